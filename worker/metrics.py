"""A worker process's own metrics, on a port of its own. Spend, runs and queue come from the database, on the API's `/metrics`.

Imported only where a port was asked for: the library costs 8 MB.
"""

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram, start_http_server

_BUCKETS = (0.005, 0.025, 0.1, 0.25, 1, 2.5, 10, 30, 60, 120, 300, 600)

_ended = Counter("aigateway_worker_steps", "Steps that this process ended.", ["type", "outcome"])
_duration = Histogram("aigateway_worker_step_seconds", "From claim to end.", ["type"], buckets=_BUCKETS)
_in_flight = Gauge("aigateway_worker_steps_in_flight", "Steps that this process is running.")


def observe_step(kind: str, outcome: str, seconds: float) -> None:
    """One step ended here."""
    _ended.labels(kind, outcome).inc()
    _duration.labels(kind).observe(seconds)


def serve_metrics(host: str, port: int, in_flight: Callable[[], int]) -> Callable[[], None]:
    """Serve `/metrics` on a thread; returns what stops it. Raises: OSError where the port is taken."""
    _in_flight.set_function(lambda: float(in_flight()))
    server, thread = start_http_server(port, addr=host)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=2)

    return stop
