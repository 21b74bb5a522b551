"""`/dashboard/runs/{id}`: one run as a timeline, each step with its attempts and calls; buttons that steer it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fastapi import Request, Response
from starlette.responses import RedirectResponse

from api.pages.forms import check_same_origin, json_field, read_form, usd_field
from api.pages.rendering import page
from api.pages.timeline import timeline
from api.request_spans import context_of
from api.services import Services
from api.submissions import check_models
from engine.clock import now_us
from engine.control import cancel, pause, resume, retry
from engine.errors import NotFound
from engine.fork import Fork, fork
from engine.money import to_picousd
from engine.run_writer import SIGNAL
from engine.signals import send
from engine.states import RUN_ENDED, RunStatus
from engine.store.database import Tx
from engine.store.runs import get_run
from engine.transition import Ring
from engine.views import deliveries_view, run_view, steps_view

MOST_STEPS = 200
_GOING_ON = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING)


async def run_page(services: Services, run_id: str) -> Response:
    """The page. Raises: NotFound."""
    found = await services.database.read(lambda tx: _read(tx, run_id))
    run, steps = found["run"], found["steps"]
    seen = steps[:MOST_STEPS]
    values = {
        "here": "runs",
        "run": run,
        "steps": seen,
        "left_out": len(steps) - len(seen),
        "deliveries": found["deliveries"],
        "timeline": timeline(run, seen, datetime.now(UTC)),
        "live": run["status"] not in RUN_ENDED,
        "actions": _actions(run),
        "signal": SIGNAL,
        "forkable": run["status"] in RUN_ENDED,
    }
    return await page("run.html", values)


def _read(tx: Tx, run_id: str) -> dict[str, Any]:
    row = get_run(tx, run_id)
    if row is None:
        raise NotFound("run_not_found", f"there is no run {run_id}", param="run_id")
    return {"run": run_view(tx, row), "steps": steps_view(tx, run_id), "deliveries": deliveries_view(tx, run_id)}


def _actions(run: dict[str, Any]) -> list[str]:
    match run["status"]:
        case RunStatus.PAUSED:
            return ["resume", "cancel"]
        case RunStatus.FAILED:
            return ["retry"]
        case status if status in _GOING_ON:
            return ["pause", "cancel"]
        case _:
            return []


async def steer(services: Services, request: Request, run_id: str, action: str) -> Response:
    """A button was pressed: do it, then show the run again. Raises: HttpError, NotFound, Conflict, UserError."""
    check_same_origin(request)
    fields = await read_form(request)
    if action == "fork":
        models = await _other_model(services, fields)
        asked = Fork(fields.get("from_step", ""), models=models, trace_context=context_of(request.scope))
        run, rings = await services.database.write(lambda tx: fork(tx, services.catalogue, run_id, asked, now_us()))
        run_id = run["id"]
    else:
        rings = await services.database.write(_transition(services, run_id, action, fields))
    for ring in rings:
        services.doorbell.ring(ring.step_id, ring.priority)
    return RedirectResponse(f"/dashboard/runs/{run_id}", 303)


async def _other_model(services: Services, fields: dict[str, str]) -> dict[str, str]:
    """The model that the forked step is to use, by its id. Raises: UserError where nothing serves it."""
    model = fields.get("model", "").strip()
    models = {fields.get("from_step", ""): model} if model else {}
    await check_models(services, models)
    return models


def _transition(services: Services, run_id: str, action: str, fields: dict[str, str]) -> Callable[[Tx], list[Ring]]:
    """What the button does; it returns the bells to ring after the commit."""
    catalogue, now = services.catalogue, now_us()
    match action:
        case "cancel":
            return lambda tx: cancel(tx, catalogue, run_id, now)[1]
        case "pause":
            return lambda tx: _quiet(pause(tx, catalogue, run_id, now))
        case "retry":
            return lambda tx: retry(tx, catalogue, run_id, now)[1]
        case "signal":
            signal = fields.get("name", ""), json_field(fields, "payload")
            return lambda tx: send(tx, catalogue, run_id, signal, now)[1]
        case "resume":
            amount = usd_field(fields, "budget_usd")
            budget = None if amount is None else to_picousd(amount)
            return lambda tx: resume(tx, catalogue, run_id, budget, now)[1]
        case _:
            raise NotFound("not_found", f"a run has no {action!r}")


def _quiet(_: object) -> list[Ring]:
    return []
