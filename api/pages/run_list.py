"""`/dashboard/runs`: all runs, newest first, by status, workflow, id or tag, a page at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import Response
from starlette.responses import RedirectResponse

from api.pages.rendering import page
from api.services import Services
from engine.clock import iso, now_us
from engine.errors import UserError
from engine.money import to_usd
from engine.states import RUN_ENDED, RunStatus
from engine.store.database import Row, Tx
from engine.store.definitions import workflow_names
from engine.store.requests import run_sums
from engine.store.runs import get_run, list_runs

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


@dataclass(frozen=True, slots=True)
class Asked:
    """What narrows the list; empty texts do not. `search` is a tag as key:value, how a run's id begins, or a part of a workflow's name."""

    status: str
    workflow: str
    search: str
    before: str

    @property
    def narrowing(self) -> dict[str, str]:
        """What a link to another page of the same list says."""
        told = {"status": self.status, "workflow": self.workflow, "search": self.search}
        return {name: value for name, value in told.items() if value}

    def filters(self) -> dict[str, Any]:
        """As engine.store.runs knows them."""
        return {"status": self.status, "workflow": self.workflow, "text": self.search, "before": self.before}


async def run_list(services: Services, asked: Asked) -> Response:
    """The page, or the one run that the search names. Raises: UserError for a status that there is none of."""
    if asked.status and asked.status not in set(RunStatus):
        raise UserError("invalid_parameter", f"there is no run status {asked.status!r}", param="status")
    if asked.search and await services.database.read(lambda tx: get_run(tx, asked.search)) is not None:
        return RedirectResponse(f"/dashboard/runs/{asked.search}", 303)
    filters = asked.filters()
    rows, names = await services.database.read(lambda tx: (run_rows(tx, filters, _PAGE + 1), workflow_names(tx)))
    shown = rows[:_PAGE]
    older = {**asked.narrowing, "before": shown[-1]["id"]} if len(rows) > _PAGE else None
    values = {
        "here": "runs",
        "runs": shown,
        "names": names,
        "statuses": list(RunStatus),
        "asked": asked,
        "older": urlencode(older, errors="replace") if older else None,
        "newest": urlencode(asked.narrowing, errors="replace") if asked.before else None,
    }
    return await page("runs.html", values)
