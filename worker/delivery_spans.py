"""One try of a run's webhook in the trace of what submitted the run."""

from urllib.parse import urlsplit

from engine.errors import RetryableError
from engine.store.database import Database, Row
from engine.store.runs import get_run
from engine.tracing import Span, Tracer, context_of_run


async def begin_span(tracer: Tracer, database: Database, delivery: Row) -> Span | None:
    """None for an alert, which belongs to no run, and where the run cannot be read: the webhook is sent all the same."""
    run_id = delivery["run_id"]
    try:
        run = None if run_id is None else await database.read(lambda tx: get_run(tx, run_id))
    except RetryableError:
        run = None
    if run is None:
        return None
    return tracer.start(
        f"webhook {delivery['type']}",
        "client",
        context_of_run(run),
        {
            "http.request.method": "POST",
            "server.address": urlsplit(str(delivery["url"])).hostname,
            "aigateway.run.id": run_id,
            "aigateway.workflow": run["workflow_name"],
            "aigateway.webhook.id": delivery["id"],
            "aigateway.webhook.type": delivery["type"],
            "aigateway.webhook.attempt": delivery["tries"] + 1,
        },
    )


def end_span(span: Span, status_code: int | None) -> None:
    """`status_code` None: the receiver gave no answer."""
    delivered = status_code is not None and 200 <= status_code < 300
    error = None if delivered else "connection" if status_code is None else str(status_code)
    span.end({"http.response.status_code": status_code}, error=error)
