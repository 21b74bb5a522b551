"""`/dashboard/runs`: all runs, newest first, by status, workflow and search, a page at a time."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import Response

from api.pages.rendering import page
from api.services import Services
from engine.clock import iso, now_us
from engine.errors import UserError
from engine.money import to_usd
from engine.states import RUN_ENDED, RunStatus
from engine.store.database import Row, Tx
from engine.store.definitions import workflow_names
from engine.store.requests import run_sums
from engine.store.runs import list_runs

_PAGE = 50


def run_rows(tx: Tx, filters: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
    """What a table of runs shows. Inputs and outputs, which can be large, are not read."""
    now = now_us()
    return [_row(tx, run, now) for run in list_runs(tx, filters, limit)]


def _row(tx: Tx, run: Row, now: int) -> dict[str, Any]:
    sums = run_sums(tx, run["id"])
    until = run["finished_us"] or (None if run["status"] in RUN_ENDED else now)
    return {
        "id": run["id"],
        "workflow": run["workflow_name"],
        "status": run["status"],
        "created_at": iso(run["created_us"]),
        "duration_ms": None if until is None else max(0, until - run["created_us"]) / 1000,
        "cost_usd": to_usd(sums["cost_picousd"]),
        "unknown_calls": sums["unknown_calls"],
        "tokens": sums["total_tokens"],
    }


async def run_list(services: Services, *, status: str, workflow: str, text: str, before: str) -> Response:
    """The page; empty filters do not filter. Raises: UserError for a status that there is none of."""
    if status and status not in set(RunStatus):
        raise UserError("invalid_parameter", f"there is no run status {status!r}", param="status")
    filters = {"status": status, "workflow": workflow, "text": text, "before": before}
    rows, names = await services.database.read(lambda tx: (run_rows(tx, filters, _PAGE + 1), workflow_names(tx)))
    shown = rows[:_PAGE]
    asked = {name: value for name, value in (("status", status), ("workflow", workflow), ("q", text)) if value}
    older = {**asked, "before": shown[-1]["id"]} if len(rows) > _PAGE else None
    values = {
        "here": "runs",
        "runs": shown,
        "names": names,
        "statuses": list(RunStatus),
        "status": status,
        "workflow": workflow,
        "text": text,
        "older": urlencode(older, errors="replace") if older else None,
        "newest": urlencode(asked, errors="replace") if before else None,
    }
    return await page("runs.html", values)
