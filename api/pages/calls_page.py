"""`/dashboard/calls`: the ledger, newest first: every upstream call with its request, its cost and what went wrong."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import Response

from api.pages.rendering import page
from api.params import tag_filter
from api.services import Services
from engine.errors import UserError
from engine.store.api_keys import key_names
from engine.store.database import Row, Tx
from engine.store.requests import list_requests
from engine.views import request_view

_PAGE = 50
STATUSES = ("started", "succeeded", "failed", "unknown")


@dataclass(frozen=True, slots=True)
class AskedCalls:
    """What narrows the list; empty texts do not."""

    status: str
    model: str
    request: str
    tag: str
    before: str

    @property
    def narrowing(self) -> dict[str, str]:
        """What a link to another page of the same list says."""
        told = {"status": self.status, "model": self.model, "request": self.request, "tag": self.tag}
        return {name: value for name, value in told.items() if value}

    def filters(self) -> dict[str, Any]:
        """As engine.store.requests knows them. Raises: UserError."""
        return {**self.narrowing, "tag": tag_filter(self.tag or None), "before": self.before}


async def calls_page(services: Services, asked: AskedCalls) -> Response:
    """The page. Raises: UserError for a status that there is none of, and for a tag that is none."""
    if asked.status and asked.status not in STATUSES:
        raise UserError("invalid_parameter", f"there is no status of calls {asked.status!r}", param="status")
    filters = asked.filters()

    def read(tx: Tx) -> tuple[list[Row], dict[str, str]]:
        return list_requests(tx, filters, _PAGE + 1), key_names(tx)

    rows, keys = await services.database.read(read)
    shown = rows[:_PAGE]
    older = {**asked.narrowing, "before": shown[-1]["id"]} if len(rows) > _PAGE else None
    values = {
        "here": "calls",
        "calls": [request_view(row) | {"key": keys.get(row["key_id"])} for row in shown],
        "statuses": STATUSES,
        "asked": asked,
        "older": urlencode(older, errors="replace") if older else None,
        "newest": urlencode(asked.narrowing, errors="replace") if asked.before else None,
    }
    return await page("calls.html", values)
