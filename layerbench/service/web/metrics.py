"""What the service counts, for Prometheus. A registry of its own: two services do not mix."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """Counters of one server.

    Attributes:
        registry: what `prometheus_client.generate_latest` takes.
        requests, request_s: by route, method and status; seconds.
        jobs: ended, by state, each once.
        queued, running: now.
        seconds: of measurements.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("route", "method", "status")
        self.requests = Counter(
            "layerbench_requests_total", "Requests.", labels, registry=self.registry
        )
        self.request_s = Histogram(
            "layerbench_request_seconds",
            "Seconds from a request to its answer.",
            ("route",),
            buckets=(0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120, 600),
            registry=self.registry,
        )
        self.jobs = Counter(
            "layerbench_jobs_total", "Jobs that ended.", ("state",), registry=self.registry
        )
        self.queued = Gauge("layerbench_jobs_queued", "Jobs that wait.", registry=self.registry)
        self.running = Gauge("layerbench_jobs_running", "Jobs that run.", registry=self.registry)
        self.seconds = Histogram(
            "layerbench_measurement_seconds",
            "Seconds of measurements.",
            buckets=(1, 2, 5, 10, 30, 60, 120, 300, 900),
            registry=self.registry,
        )
