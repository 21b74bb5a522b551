"""`/dashboard/deliveries`: webhooks of all runs and alerts, newest first, and a button that sends one again."""

from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from starlette.responses import RedirectResponse

from api.pages.forms import check_same_origin
from api.pages.rendering import page
from api.services import Services
from engine.clock import iso, now_us
from engine.errors import NotFound, UserError
from engine.store.database import Row
from engine.store.deliveries import list_deliveries
from engine.webhook_outbox import redeliver

_PAGE = 50
STATUSES = ("pending", "delivered", "dead")


async def deliveries_page(services: Services, *, status: str, before: str) -> Response:
    """The page. Raises: UserError for a status that there is none of."""
    if status and status not in STATUSES:
        raise UserError("invalid_parameter", f"there is no delivery status {status!r}", param="status")
    rows = await services.database.read(lambda tx: list_deliveries(tx, status, before, _PAGE + 1))
    shown = rows[:_PAGE]
    asked = {"status": status} if status else {}
    values = {
        "here": "deliveries",
        "deliveries": [_seen(row) for row in shown],
        "statuses": STATUSES,
        "status": status,
        "older": urlencode({**asked, "before": shown[-1]["id"]}) if len(rows) > _PAGE else None,
        "newest": urlencode(asked) if before else None,
    }
    return await page("deliveries.html", values)


async def send_again(services: Services, request: Request, delivery_id: str) -> Response:
    """The button was pressed. Raises: HttpError, NotFound."""
    check_same_origin(request)
    if not await services.database.write(lambda tx: redeliver(tx, delivery_id, now_us())):
        raise NotFound("delivery_not_found", f"there is no delivery {delivery_id}", param="delivery_id")
    return RedirectResponse("/dashboard/deliveries", 303)


def _seen(row: Row) -> dict[str, Any]:
    due = row["next_attempt_us"]
    return {
        "id": row["id"],
        "type": row["type"],
        "status": row["status"],
        "run_id": row["run_id"],
        "url": row["url"],
        "tries": row["number"] or 0,
        "status_code": row["status_code"],
        "error": row["error"],
        "created_at": iso(row["created_us"]),
        "next_at": None if due is None else iso(due),
    }
