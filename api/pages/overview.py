"""`/dashboard`: what was spent on what, how the system stands, what ran last."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import Response

from api.pages.formats import NONE, short_id
from api.pages.rendering import page
from api.pages.run_list import run_rows
from api.pages.spend_chart import DAYS, by_day, by_name, chart, last_days
from api.services import Services
from engine.budgets import budget_view
from engine.clock import now_us
from engine.errors import UserError
from engine.store.api_keys import key_names
from engine.store.budgets import all_budgets
from engine.store.database import Row, Tx
from engine.store.gauges import read_queue
from engine.store.spend import DAY_US, spend
from engine.store.workers import count_workers

QUICK_S = 0.05
SPARED = 20
LONGEST_S = 60.0
_LATEST_RUNS = 12
_MOST_NAMES = 12
PERIODS = {1: "Today", 7: "7 days", DAYS: "30 days"}


class SpendKept:
    """Sums of the last 30 days, kept for SPARED times as long as it took to read them, a minute at most. One for a process.

    Pages refresh themselves: however many there are, they take a twentieth of a reader. What is read quickly is not kept.
    """

    def __init__(self, services: Services, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._clock = clock
        self._reading = asyncio.Lock()
        self._rows: list[Row] = []
        self._since = -1
        self._good_until = 0.0

    async def rows(self, since: int) -> list[Row]:
        """By day, provider, model, workflow and key."""
        async with self._reading:
            if since != self._since or self._clock() >= self._good_until:
                groups = ("day", "provider", "model", "workflow", "key")
                began = self._clock()
                self._rows = await self._services.database.read(lambda tx: spend(tx, groups, {"since": since}))
                self._since = since
                took = self._clock() - began
                self._good_until = self._clock() + (min(SPARED * took, LONGEST_S) if took > QUICK_S else 0)
            return self._rows


async def overview(services: Services, kept: SpendKept, asked: str) -> Response:
    """The page; days are UTC, and `asked` is how many of them the sums by name cover. Raises: UserError for another number."""
    days = next((number for number in PERIODS if asked == str(number)), None)
    if days is None:
        raise UserError("invalid_parameter", "days has to be 1, 7 or 30", param="days")
    now = now_us()
    found = await services.database.read(lambda tx: _read(tx, now))
    rows = await kept.rows((now // DAY_US - DAYS + 1) * DAY_US)
    spent = _spend_values(rows, now // DAY_US, days, found["keys"])
    return await page("overview.html", {"here": "overview", "days": days, **found, **spent})


def _read(tx: Tx, now: int) -> dict[str, Any]:
    queue = read_queue(tx, now)
    return {
        "keys": key_names(tx),
        "budgets": [budget_view(tx, row, now) for row in all_budgets(tx)],
        "runs": run_rows(tx, {}, _LATEST_RUNS),
        "workers": count_workers(tx, now),
        "waiting": sum(queue.depth.values()),
        "oldest_ms": None if queue.oldest_us is None else max(0, now - queue.oldest_us) / 1000,
    }


def _spend_values(rows: Sequence[Row], today: int, days: int, keys: Mapping[str, str]) -> dict[str, Any]:
    all_days = by_day(rows, today)
    covered = [row for row in rows if row["day"] > today - days]
    groups = {
        "Model": (by_name(covered, lambda row: (row["model"], row["provider"])), NONE),
        "Provider": (by_name(covered, lambda row: (row["provider"], "")), NONE),
        "Workflow": (by_name(covered, lambda row: (row["workflow"] or "", "")), "outside workflows"),
        "Key": (by_name(covered, lambda row: _key(row["key"], keys)), "without a key"),
    }
    return {
        "periods": [(number, last_days(all_days, number, name)) for number, name in PERIODS.items()],
        "chart": chart(all_days),
        "groups": [
            {"name": name, "rows": sums[:_MOST_NAMES], "more": len(sums[_MOST_NAMES:]), "nameless": nameless}
            for name, (sums, nameless) in groups.items()
        ],
    }


def _key(key_id: str | None, keys: Mapping[str, str]) -> tuple[str, str]:
    """Its name, and its id where names may be shared."""
    return ("", "") if key_id is None else (keys.get(key_id, key_id), short_id(key_id))
