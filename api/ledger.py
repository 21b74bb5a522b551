"""The ledger over HTTP: rows, sums, and both as CSV that is safe to open in a spreadsheet."""

import csv
import io
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict
from starlette.responses import StreamingResponse

from api.params import check_cursor, check_limit, instant_us, page, part, tag_filter
from api.services import Services
from engine.errors import NotFound, UserError
from engine.ledger import CallKind
from engine.money import to_usd, usd_text
from engine.store.api_keys import key_names
from engine.store.database import Row, Tx
from engine.store.requests import list_requests, requests_of_request
from engine.store.spend import SPEND_GROUPS, spend
from engine.views import request_view, usage_view

_CSV_BATCH = 500
_CSV_COLUMNS = (
    "id",
    "timestamp",
    "request_id",
    "workflow_name",
    "run_id",
    "step_id",
    "attempt",
    "kind",
    "provider",
    "model",
    "requested_model",
    "status",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "cost_usd",
    "cost_source",
    "saved_usd",
    "latency_ms",
    "ttft_ms",
    "streamed",
    "success",
    "status_code",
    "error_class",
    "error",
    "key_id",
    "tags",
)
_SPEND = (
    f"`group_by` takes one or more of {', '.join(SPEND_GROUPS)}, with commas. "
    "A key is its id, with `key_name` beside it. A tag is `key:value`; a call with several tags counts under each, one without any under null."
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def routes(services: Services) -> APIRouter:
    """All routes of the ledger."""
    router = APIRouter(tags=["ledger"])
    _row_routes(router, services)
    _sum_routes(router, services)
    return router


class LedgerQuery(BaseModel):
    """What narrows the ledger's rows."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    provider: str | None = None
    workflow: str | None = None
    run: str | None = None
    request: str | None = None
    key: str | None = None
    kind: CallKind | None = None
    status: Literal["started", "succeeded", "failed", "unknown"] | None = None
    tag: str | None = None
    since: str | None = None
    until: str | None = None

    def filters(self) -> dict[str, Any]:
        """As the store takes them. Raises: UserError for a time or a tag that cannot be read."""
        told = self.model_dump(mode="json")
        times = {name: instant_us(told[name], name) for name in ("since", "until")}
        return told | times | {"tag": tag_filter(self.tag)}


class LedgerPageQuery(LedgerQuery):
    """The same, a page at a time."""

    limit: int = 50
    cursor: str | None = None


class SpendQuery(BaseModel):
    """How the ledger is summed, and what narrows it."""

    model_config = ConfigDict(extra="forbid")

    group_by: str = "day"
    tag: str | None = None
    since: str | None = None
    until: str | None = None


class SpendPageQuery(SpendQuery):
    """The same, a page at a time."""

    limit: int = 50
    cursor: str | None = None


def _row_routes(router: APIRouter, services: Services) -> None:
    @router.get("/v1/requests", summary="Upstream calls, newest first")
    async def rows(asked: Annotated[LedgerPageQuery, Query()]) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        filters = asked.filters() | {"before": check_cursor(asked.cursor)}
        size = check_limit(asked.limit)
        found = await services.database.read(lambda tx: list_requests(tx, filters, size + 1))
        return page([request_view(row) for row in found], size)

    @router.get("/v1/requests.csv", summary="Upstream calls as CSV, any number")
    async def rows_csv(asked: Annotated[LedgerQuery, Query()]) -> StreamingResponse:  # pyright: ignore[reportUnusedFunction]
        return _csv(_request_lines(services, asked.filters()), "requests.csv")

    @router.get("/v1/requests/{request_id}", summary="The upstream calls of one request, or of the run that it started")
    async def attempts(request_id: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        found = await services.database.read(lambda tx: requests_of_request(tx, request_id))
        if not found:
            raise NotFound("request_not_found", f"no call was made for request {request_id}", param="request_id")
        return {"object": "list", "data": [request_view(row) for row in found], "next_cursor": None}


def _sum_routes(router: APIRouter, services: Services) -> None:
    @router.get(
        "/v1/spend", summary="Sums of the ledger by day, model, provider, workflow, key or tag", description=_SPEND
    )
    async def sums(asked: Annotated[SpendPageQuery, Query()]) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        groups = _groups(asked.group_by)
        rows = await _spend(services, groups, asked)
        return part(rows, asked.limit, asked.cursor, name=lambda row: csv_line([row[name] for name in groups]).strip())

    @router.get("/v1/spend.csv", summary="The same sums as CSV", description=_SPEND)
    async def sums_csv(asked: Annotated[SpendQuery, Query()]) -> StreamingResponse:  # pyright: ignore[reportUnusedFunction]
        groups = _groups(asked.group_by)
        rows = await _spend(services, groups, asked)
        columns = (
            *groups,
            *(["key_name"] if "key" in groups else []),
            "calls",
            "cost_usd",
            "cost_unknown_calls",
            "saved_usd",
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
        )

        async def lines() -> AsyncGenerator[str, None]:
            yield csv_line(columns)
            for row in rows:
                flat = row | row["usage"]
                yield csv_line([flat[column] for column in columns])

        return _csv(lines(), "spend.csv")


def _groups(text: str) -> tuple[str, ...]:
    groups = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [name for name in groups if name not in SPEND_GROUPS]
    if unknown or not groups:
        known = ", ".join(SPEND_GROUPS)
        raise UserError("invalid_parameter", f"group_by must be one or more of {known}", param="group_by")
    return groups


async def _spend(services: Services, groups: tuple[str, ...], asked: SpendQuery) -> list[dict[str, Any]]:
    times = {"since": instant_us(asked.since, "since"), "until": instant_us(asked.until, "until")}
    filters = times | {"tag": tag_filter(asked.tag)}

    def read(tx: Tx) -> tuple[list[Row], dict[str, str]]:
        return spend(tx, groups, filters), key_names(tx) if "key" in groups else {}

    rows, names = await services.database.read(read)
    return [_sum_view(row, groups, names) for row in rows]


def _sum_view(row: Row, groups: tuple[str, ...], key_names: Mapping[str, str]) -> dict[str, Any]:
    named = {name: _day(row[name]) if name == "day" else row[name] for name in groups}
    if "key" in groups:
        named["key_name"] = key_names.get(row["key"])
    return {
        **named,
        "calls": row["calls"],
        "cost_usd": to_usd(row["cost_picousd"]),
        "cost_unknown_calls": row["unknown_calls"],
        "saved_usd": to_usd(row["saved_picousd"]),
        "tokens": row["total_tokens"],
        "usage": usage_view(row),
    }


def _day(number: int) -> str:
    return (_EPOCH + timedelta(days=number)).date().isoformat()


async def _request_lines(services: Services, filters: Mapping[str, Any]) -> AsyncGenerator[str, None]:
    """Newest first, read in batches: the memory does not depend on the number of rows."""
    yield csv_line(_CSV_COLUMNS)
    before = None
    while True:
        asked = {**filters, "before": before}
        rows = await services.database.read(lambda tx, asked=asked: list_requests(tx, asked, _CSV_BATCH))
        for row in rows:
            exact = None if row["cost_picousd"] is None else usd_text(row["cost_picousd"])
            view = request_view(row) | {"cost_usd": exact, "tags": row["tags"]}
            yield csv_line([view[column] for column in _CSV_COLUMNS])
        if len(rows) < _CSV_BATCH:
            return
        before = rows[-1]["id"]


def csv_line(values: Any) -> str:
    """One line; text that a spreadsheet would run as a formula gets an apostrophe before it."""
    out = io.StringIO()
    csv.writer(out).writerow([_inert(value) for value in values])
    return out.getvalue()


def _inert(value: object) -> object:
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r", "\n"):
        return f"'{value}"
    return "" if value is None else value


def _csv(lines: AsyncGenerator[str, None], name: str) -> StreamingResponse:
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines, media_type="text/csv", headers=headers)
