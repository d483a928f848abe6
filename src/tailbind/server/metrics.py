"""What the server counts, as Prometheus reads it."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

#: Requests under other paths are counted under one name, so that strangers cannot make up labels.
OTHER: Final = "other"
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
PAIRS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own = self.registry
        self.requests = Counter("tailbind_requests", "Requests answered.", ["path", "status"], registry=own)
        self.seconds = Histogram("tailbind_request_seconds", "Time to answer.", ["path"], buckets=SECONDS, registry=own)
        self.predictions = Counter("tailbind_predictions", "Pairs and rows predicted.", registry=own)
        self.batch_pairs = Histogram("tailbind_batch_pairs", "Pairs predicted together.", buckets=PAIRS, registry=own)
        self.batch_seconds = Histogram("tailbind_batch_seconds", "Time of a batch.", buckets=SECONDS, registry=own)
        self.waiting = Gauge("tailbind_waiting_pairs", "Pairs that wait or are being predicted.", registry=own)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def batch(self, n_pairs: int, seconds: float) -> None:
        """Count a batch."""
        self.batch_pairs.observe(n_pairs)
        self.batch_seconds.observe(seconds)
        self.predictions.inc(n_pairs)

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)
