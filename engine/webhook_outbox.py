"""The outbox of webhooks: a delivery is stored in the transaction that it tells of, and sent by any worker afterwards."""

from engine.clock import iso, new_id
from engine.store.database import Row, Tx
from engine.store.deliveries import (
    get_delivery,
    insert_delivery,
    record_try,
    recorded_tries,
    settle_delivery,
    settle_failed_try,
)
from engine.store.json_text import dumps
from engine.store.runs import get_run
from engine.views import run_view

KEPT_TRYING_US = 24 * 3600 * 1_000_000
_PAUSES_S = (5, 30, 120, 600, 1800, 3600, 7200, 14400)  # the last one repeats until a day has passed


def queue_webhook(tx: Tx, run: Row, kind: str, now: int) -> None:
    """Store a delivery where the run was submitted with a webhook_url; its body is the run as it stands in the database now."""
    if run["webhook_url"] is None:
        return
    fresh = get_run(tx, run["id"])
    assert fresh is not None
    body = {"type": kind, "timestamp": iso(now), "data": run_view(tx, fresh)}
    queue_delivery(tx, run["id"], kind, (run["webhook_url"], dumps(body)), now)


def queue_delivery(tx: Tx, run_id: str | None, kind: str, sent: tuple[str, str], now: int) -> None:
    """Store a delivery: `sent` is its URL and its body. Without a run it goes to the operator."""
    url, body = sent
    insert_delivery(
        tx,
        {
            "id": new_id(),
            "run_id": run_id,
            "type": kind,
            "url": url,
            "body": body,
            "status": "pending",
            "tries": 0,
            "next_attempt_us": now,
            "created_us": now,
            "finished_us": None,
            "worker_id": None,
        },
    )


def record_delivery(tx: Tx, delivery: Row, status_code: int | None, error: str | None, now: int) -> str:
    """Record one try (a 2xx delivers); returns what it makes of the delivery: pending, delivered or dead.

    Pauses grow with the tries that were recorded: those whose process died say nothing of the receiver.
    """
    tx.point("record_delivery")
    number: int = delivery["tries"] + 1
    record_try(
        tx,
        {"delivery_id": delivery["id"], "number": number, "at_us": now, "status_code": status_code, "error": error},
    )
    if status_code is not None and 200 <= status_code < 300:
        settle_delivery(tx, delivery["id"], "delivered", None, now)
        return "delivered"
    failed = recorded_tries(tx, delivery["id"])
    pause_us = _PAUSES_S[min(failed, len(_PAUSES_S)) - 1] * 1_000_000
    if now + pause_us > delivery["created_us"] + KEPT_TRYING_US:
        settle_failed_try(tx, delivery, number, None, now)
        return "dead"
    settle_failed_try(tx, delivery, number, now + pause_us, None)
    return "pending"


def redeliver(tx: Tx, delivery_id: str, now: int) -> bool:
    """Send once more, under the same webhook-id; False where there is no such delivery."""
    tx.point("redeliver")
    if get_delivery(tx, delivery_id) is None:
        return False
    settle_delivery(tx, delivery_id, "pending", now, None)
    return True
