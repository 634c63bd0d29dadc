"""The main job, whole, on one machine: `msam demo`. Observes by a consumer of its own, not by what workers report."""
