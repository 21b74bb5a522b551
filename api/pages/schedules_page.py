"""`/dashboard/schedules`: what runs by the clock, when it comes next, and what came of it."""

from typing import Any

from fastapi import Response

from api.pages.rendering import page
from api.pages.run_list import run_rows
from api.services import Services
from engine.schedules import schedule_view
from engine.store.database import Row, Tx
from engine.store.schedules import list_schedules

_MOST = 100
_RUNS = 5


async def schedules_page(services: Services) -> Response:
    """The page; the newest hundred schedules, those of definitions too."""
    schedules = await services.database.read(lambda tx: [_seen(tx, row) for row in list_schedules(tx, None, _MOST + 1)])
    return await page(
        "schedules.html", {"here": "schedules", "schedules": schedules[:_MOST], "more": len(schedules) > _MOST}
    )


def _seen(tx: Tx, row: Row) -> dict[str, Any]:
    return schedule_view(row) | {"runs": run_rows(tx, {"schedule": row["id"]}, _RUNS)}
