"""`/dashboard`: what was spent on what, how the system stands, what ran last."""

from collections.abc import Sequence
from typing import Any

from fastapi import Response

from api.pages.rendering import page
from api.pages.run_list import run_rows
from api.pages.spend_chart import DAYS, by_day, by_name, chart, last_days
from api.services import Services
from engine.clock import now_us
from engine.store.database import Row, Tx
from engine.store.gauges import read_queue
from engine.store.spend import DAY_US, spend
from engine.store.workers import count_workers

_LATEST_RUNS = 12
_MOST_NAMES = 12


async def overview(services: Services) -> Response:
    """The page; days are UTC."""
    now = now_us()
    found = await services.database.read(lambda tx: _read(tx, now))
    return await page("overview.html", {"here": "overview", **found, **_spend_values(found["spend"], now // DAY_US)})


def _read(tx: Tx, now: int) -> dict[str, Any]:
    since = (now // DAY_US - DAYS + 1) * DAY_US
    queue = read_queue(tx, now)
    return {
        "spend": spend(tx, ("day", "provider", "model", "workflow"), {"since": since}),
        "runs": run_rows(tx, {}, _LATEST_RUNS),
        "workers": count_workers(tx, now),
        "waiting": sum(queue.depth.values()),
        "oldest_ms": None if queue.oldest_us is None else max(0, now - queue.oldest_us) / 1000,
    }


def _spend_values(rows: Sequence[Row], today: int) -> dict[str, Any]:
    days = by_day(rows, today)
    models = by_name(rows, lambda row: (row["model"], row["provider"]))
    workflows = by_name(rows, lambda row: (row["workflow"] or "", ""))
    return {
        "periods": [last_days(days, 1, "Today"), last_days(days, 7, "7 days"), last_days(days, DAYS, "30 days")],
        "chart": chart(days),
        "models": models[:_MOST_NAMES],
        "more_models": len(models[_MOST_NAMES:]),
        "workflows": workflows[:_MOST_NAMES],
        "more_workflows": len(workflows[_MOST_NAMES:]),
    }
