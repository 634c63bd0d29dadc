"""What a worker counts, in a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60)


class Metrics:
    """Counters, gauges and histograms of one worker."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.plays = Counter("msam_plays", "Plays answered by a list.", registry=own)
        self.redelivered = Counter(
            "msam_plays_redelivered", "Plays that came again and had been answered.", registry=own
        )
        self.dead = Counter("msam_dead_letters", "Records sent to dead-letters.", ["topic"], registry=own)
        self.tracks = Counter("msam_track_features", "Track features published.", ["part"], registry=own)
        self.batch = Histogram(
            "msam_batch_plays", "Plays in one model call.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=own
        )
        self.infer = Histogram(
            "msam_infer_seconds", "Time of one micro-batch on the model's thread.", buckets=_SECONDS, registry=own
        )
        self.delay = Histogram(
            "msam_play_delay_seconds", "From a play's append to its list.", buckets=_SECONDS, registry=own
        )
        self.catalogue = Gauge("msam_catalogue_version", "Version of the catalogue that is served.", registry=own)
        self.known = Gauge("msam_catalogue_tracks", "Tracks that can be recommended.", registry=own)
        self.model = Gauge("msam_model_info", "1 for the model version that is served.", ["version"], registry=own)
        self.refused = Counter("msam_models_refused", "Model versions that failed verification.", registry=own)

    def text(self) -> bytes:
        """The exposition that Prometheus scrapes."""
        return generate_latest(self.registry)
