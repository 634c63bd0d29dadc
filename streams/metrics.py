"""What a worker counts, in a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60)


class Metrics:
    """Counters, gauges and histograms of one worker."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.plays = Counter("msam_plays", "Plays answered by a list.", registry=r)
        self.redelivered = Counter("msam_plays_redelivered", "Plays that came again, answered before.", registry=r)
        self.forgotten = Counter("msam_plays_forgotten", "Plays of forgotten listeners, passed over.", registry=r)
        self.dead = Counter("msam_dead_letters", "Records sent to dead-letters.", ["topic"], registry=r)
        self.tracks = Counter("msam_track_features", "Track features published.", ["part"], registry=r)
        self.batch = Histogram(
            "msam_batch_plays", "Plays in one model call.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=r
        )
        self.infer = Histogram(
            "msam_infer_seconds", "Time of one micro-batch in the model.", buckets=_SECONDS, registry=r
        )
        self.delay = Histogram(
            "msam_play_delay_seconds", "From a play's append to its list.", buckets=_SECONDS, registry=r
        )
        self.catalogue = Gauge("msam_catalogue_version", "Version of the catalogue that is served.", registry=r)
        self.known = Gauge("msam_catalogue_tracks", "Tracks that can be recommended.", registry=r)
        self.model = Gauge("msam_model_info", "1 for the model version that is served.", ["version"], registry=r)
        self.rolled_back = Gauge(
            "msam_models_rolled_back", "Model versions that were rolled back as their lists were worse.", registry=r
        )
        self.refused = Counter("msam_models_refused", "Model versions that failed verification.", registry=r)

    def text(self) -> bytes:
        """The exposition that Prometheus scrapes."""
        return generate_latest(self.registry)
