"""Tells of budgets that reached a threshold and of models whose price nobody knows: once each, into the log and to the
operator's webhook.

What there is to tell is noted in the transaction that finds it (`engine.budgets`, `engine.admission`); any worker tells of it
soon afterwards.
"""

from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from engine.clock import iso
from engine.ledger import LIMITED, Intent
from engine.periods import Period, span_at
from engine.store.alerts import insert_alert, take_alert, untold_alerts
from engine.store.database import Tx
from engine.store.json_text import dumps, loads
from engine.webhook_outbox import queue_delivery

_AT_ONCE = 50
_BUDGET = "budget.alert"
UNKNOWN_PRICE = "price.unknown"


def anything_to_tell(tx: Tx) -> bool:
    """Whether `tell_alerts` would find something."""
    return bool(untold_alerts(tx, 1))


def note_unknown_price(tx: Tx, intent: Intent) -> None:
    """Once a model and day (UTC): a call is made whose price nobody knows. Safe to repeat.

    Locks on PostgreSQL: to be called before any row is locked, since whoever notes the same at the same moment is waited for.
    """
    if intent.reserve_picousd is not None or intent.kind not in LIMITED:
        return
    name = f"{intent.provider}/{intent.model}"
    told: Mapping[str, Any] = {
        "alert": UNKNOWN_PRICE,
        "provider": intent.provider,
        "model": intent.model,
        "message": f"no price is known for {name}, its calls are booked as unknown; set providers.{intent.provider}.prices",
    }
    insert_alert(
        tx,
        {
            "budget_id": str(uuid5(NAMESPACE_URL, f"price:{name}")),
            "period_start_us": span_at(Period.DAY, "UTC", intent.at_us).start_us,
            "threshold": 0,
            "data_json": dumps(told),
            "at_us": intent.at_us,
            "told_us": None,
        },
    )


def tell_alerts(tx: Tx, url: str | None, now: int) -> list[dict[str, Any]]:
    """Take the alerts that nobody has told of, and queue a webhook for each where there is a URL; returns what they say.

    `alert` in each says of which type it is.
    """
    told = [alert for alert in untold_alerts(tx, _AT_ONCE) if take_alert(tx, alert, now)]
    facts = [{"alert": _BUDGET, **loads(alert["data_json"])} for alert in told]
    if url is not None:
        for alert, data in zip(told, facts, strict=True):
            own = {key: value for key, value in data.items() if key != "alert"}
            body = {"type": data["alert"], "timestamp": iso(alert["at_us"]), "data": own}
            queue_delivery(tx, None, data["alert"], (url, dumps(body)), now)
    return facts
