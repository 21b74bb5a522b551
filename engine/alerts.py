"""Tells of budgets that reached a threshold: once each, into the log and to the operator's webhook.

The threshold is noted in the transaction that reaches it (`engine.budgets`); any worker tells of it soon afterwards.
"""

from typing import Any

from engine.clock import iso
from engine.store.alerts import take_alert, untold_alerts
from engine.store.database import Tx
from engine.store.json_text import dumps, loads
from engine.webhook_outbox import queue_delivery

_AT_ONCE = 50


def anything_to_tell(tx: Tx) -> bool:
    """Whether `tell_alerts` would find something."""
    return bool(untold_alerts(tx, 1))


def tell_alerts(tx: Tx, url: str | None, now: int) -> list[dict[str, Any]]:
    """Take the alerts that nobody has told of, and queue a webhook for each where there is a URL; returns what they say."""
    told = [alert for alert in untold_alerts(tx, _AT_ONCE) if take_alert(tx, alert, now)]
    facts = [loads(alert["data_json"]) for alert in told]
    if url is not None:
        for alert, data in zip(told, facts, strict=True):
            body = {"type": "budget.alert", "timestamp": iso(alert["at_us"]), "data": data}
            queue_delivery(tx, None, "budget.alert", (url, dumps(body)), now)
    return facts
