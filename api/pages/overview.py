"""`/dashboard`: what was spent on what, how the system stands, what ran last."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Response

from api.pages.rendering import page
from api.pages.run_list import run_rows
from api.pages.spend_chart import DAYS, by_day, by_name, chart, last_days
from api.services import Services
from engine.clock import now_us
from engine.errors import UserError
from engine.store.api_keys import key_names
from engine.store.database import Row, Tx
from engine.store.gauges import read_queue
from engine.store.spend import DAY_US, spend
from engine.store.workers import count_workers

_LATEST_RUNS = 12
_MOST_NAMES = 12
_PERIODS = {1: "Today", 7: "7 days", DAYS: f"{DAYS} days"}


async def overview(services: Services, asked: str) -> Response:
    """The page; days are UTC. What money was spent on is told of the last `asked`. Raises: UserError."""
    days = next((number for number in _PERIODS if asked == str(number)), None)
    if days is None:
        raise UserError("invalid_parameter", f"days must be one of {', '.join(map(str, _PERIODS))}", param="days")
    now = now_us()
    found = await services.database.read(lambda tx: _read(tx, now))
    told = _of_all_days(found["spend"], now // DAY_US) | _by_names(found, now // DAY_US - days)
    return await page("overview.html", {"here": "overview", **found, **told, "days": days, "names": _PERIODS})


def _read(tx: Tx, now: int) -> dict[str, Any]:
    since = (now // DAY_US - DAYS + 1) * DAY_US
    queue = read_queue(tx, now)
    return {
        "spend": spend(tx, ("day", "provider", "model", "workflow", "key"), {"since": since}),
        "keys": key_names(tx),
        "runs": run_rows(tx, {}, _LATEST_RUNS),
        "workers": count_workers(tx, now),
        "waiting": sum(queue.depth.values()),
        "oldest_ms": None if queue.oldest_us is None else max(0, now - queue.oldest_us) / 1000,
    }


def _of_all_days(rows: Sequence[Row], today: int) -> dict[str, Any]:
    days = by_day(rows, today)
    return {"periods": [last_days(days, number, name) for number, name in _PERIODS.items()], "chart": chart(days)}


def _by_names(found: Mapping[str, Any], before: int) -> dict[str, Any]:
    """The tables, of the days behind that one."""
    rows = [row for row in found["spend"] if row["day"] > before]
    keys = found["keys"]
    tables = (
        ("Model", "unknown", by_name(rows, lambda row: (row["model"], row["provider"]))),
        ("Provider", "unknown", by_name(rows, lambda row: (row["provider"], ""))),
        ("Workflow", "outside workflows", by_name(rows, lambda row: (row["workflow"] or "", ""))),
        ("Key", "without a key", by_name(rows, lambda row: (keys.get(row["key"], row["key"] or ""), ""))),
    )
    return {
        "tables": [
            {"title": title, "nameless": nameless, "rows": sums[:_MOST_NAMES], "more": len(sums[_MOST_NAMES:])}
            for title, nameless, sums in tables
        ]
    }
