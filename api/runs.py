"""Runs over HTTP: submit, poll, list, inspect, control.

What holds a run's values is written by `JsonAnswer`: FastAPI's own way fails at deep values, and a list with them.
"""

import json
from collections.abc import AsyncGenerator, Callable
from decimal import Decimal
from operator import itemgetter
from typing import Annotated, Any, cast

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse

from api.asgi import JsonAnswer
from api.hot_runs import LONGEST_WAIT_S, USUAL_WAIT_S
from api.json_mistakes import TOO_DEEP, Shallow
from api.params import check_cursor, check_limit, instant_us, page, part, tag_filter
from api.request_spans import context_of
from api.run_outcome import Answer, accepted, outcome
from api.services import Services
from api.submissions import AnyRunRequest, Caller, RunRequest, check_models, preview_run, ring_all, start_run
from engine.clock import now_us
from engine.control import cancel, pause, resume, retry
from engine.depth import is_too_deep
from engine.errors import NotFound, UserError
from engine.fork import Fork, fork
from engine.keys import SIGNAL_PATTERN
from engine.money import to_picousd
from engine.signals import send
from engine.states import RUN_ENDED, RunStatus
from engine.store.database import Row, Tx
from engine.store.events import history_since
from engine.store.runs import list_runs
from engine.store.step_pages import steps_in_order
from engine.transition import Ring
from engine.views import deliveries_view, event_view, run_links, run_view, some_steps_view, step_ids
from engine.webhook_outbox import redeliver

_EVENTS_AT_ONCE = 500
_EVENTS_A_PAGE = 10_000
_LARGEST_NUMBER = 2**31 - 1  # that an event can have
_SIGN_OF_LIFE_S = 15.0
_Json = dict[str, Any]

IdempotencyKey = Annotated[str | None, Header(description="The same key and body give the same run again.")]
DryRun = Annotated[
    bool,
    Query(description="Start nothing: answer 200 with what each step would send and the range of what it would cost."),
]
_OUTCOMES: dict[int | str, dict[str, Any]] = {
    200: {"description": "`run_id`, `status`, `output` and `metrics`"},
    202: {"description": "It goes on: `id`, `status` and `links`, as on submission"},
    409: {"description": "It was cancelled or is paused: `error` and the metrics"},
    502: {"description": "It failed: `error` and the metrics"},
}
LastEventId = Annotated[int, Header(ge=0, le=_LARGEST_NUMBER, description="Only what came behind this event.")]
EventsCursor = Annotated[int, Query(ge=0, le=_LARGEST_NUMBER, description="`next_cursor` of the page before.")]
EventsLimit = Annotated[int, Query(ge=1, le=_EVENTS_A_PAGE)]
Wait = Annotated[float, Query(ge=0, le=LONGEST_WAIT_S, description="Seconds to wait for the run's end.")]


class ResumeRequest(BaseModel):
    """Body of `resume`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"budget_usd": 2}]})

    budget_usd: Annotated[Decimal, Field(ge=0, le=1_000_000)] | None = None


class ForkRequest(BaseModel):
    """Body of `fork`."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"from_step": "report", "models": {"report": "fast"}}]}
    )

    from_step: str = Field(
        description="The step to go on from; every result before it is reused and not paid for again."
    )
    input: Shallow[dict[str, Any]] | None = Field(
        default=None, description="Replaces the run's input for what runs anew."
    )
    models: dict[str, str] = Field(default_factory=dict[str, str], description="Other models by step id.")


def routes(services: Services) -> APIRouter:
    """All routes of runs."""
    router = APIRouter(tags=["runs"])
    _submission_routes(router, services)
    _reading_routes(router, services)
    _control_routes(router, services)
    _webhook_routes(router, services)
    return router


def _submission_routes(router: APIRouter, services: Services) -> None:
    @router.post("/v1/workflows/{name}/runs", status_code=202, summary="Start a run of a stored workflow")
    async def start(  # pyright: ignore[reportUnusedFunction]
        name: str,
        request: Request,
        asked: RunRequest | None = None,
        idempotency_key: IdempotencyKey = None,
        dry_run: DryRun = False,
    ) -> JsonAnswer:
        if dry_run:
            return JsonAnswer(await preview_run(services, name, asked or RunRequest()))
        caller = caller_of(request, idempotency_key)
        return _json(accepted((await start_run(services, name, asked or RunRequest(), caller)).run))

    @router.post("/v1/runs", status_code=202, summary="Start a run of a stored workflow or of an inline definition")
    async def start_any(  # pyright: ignore[reportUnusedFunction]
        asked: AnyRunRequest, request: Request, idempotency_key: IdempotencyKey = None, dry_run: DryRun = False
    ) -> JsonAnswer:
        if dry_run:
            return JsonAnswer(await preview_run(services, asked.workflow, asked))
        started = await start_run(services, asked.workflow, asked, caller_of(request, idempotency_key))
        return _json(accepted(started.run))

    @router.post("/v1/workflow/{name}", summary="Run a workflow and wait for its output", responses=_OUTCOMES)
    async def run_and_wait(  # pyright: ignore[reportUnusedFunction]
        name: str,
        request: Request,
        asked: RunRequest | None = None,
        wait: Wait = USUAL_WAIT_S,
        idempotency_key: IdempotencyKey = None,
    ) -> JsonAnswer:
        started = await start_run(services, name, asked or RunRequest(), caller_of(request, idempotency_key))
        return _json(await services.run_watch.told_at_end(started.run["id"], wait, outcome))


def _reading_routes(router: APIRouter, services: Services) -> None:
    @router.get("/v1/runs", response_model=_Json, summary="List runs, newest first")
    async def list_all(  # pyright: ignore[reportUnusedFunction]
        status: RunStatus | None = None,
        workflow: str | None = None,
        tag: str | None = None,
        since: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> JsonAnswer:
        filters = {
            "status": status.value if status else None,
            "workflow": workflow,
            "tag": tag_filter(tag),
            "since": instant_us(since, "since"),
            "before": check_cursor(cursor),
        }
        size = check_limit(limit)
        rows = await services.database.read(lambda tx: [run_view(tx, row) for row in list_runs(tx, filters, size + 1)])
        return JsonAnswer(page(rows, size))

    @router.get("/v1/runs/{run_id}", response_model=_Json, summary="A run; with `wait`, as soon as it has ended")
    async def show(run_id: str, wait: Wait = 0) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        return JsonAnswer(await services.run_watch.told_at_end(run_id, wait, run_view))

    @router.get("/v1/runs/{run_id}/steps", response_model=_Json, summary="A run's steps in the order they ran")
    async def steps(  # pyright: ignore[reportUnusedFunction]
        run_id: str, limit: int = 50, cursor: str | None = None
    ) -> JsonAnswer:
        await services.run_watch.run(run_id)
        return JsonAnswer(await services.database.read(lambda tx: _steps_page(tx, run_id, limit, cursor)))

    @router.get("/v1/runs/{run_id}/events", summary="A run's history, as JSON or as a live stream")
    async def events(  # pyright: ignore[reportUnusedFunction]
        run_id: str,
        request: Request,
        last_event_id: LastEventId = 0,
        cursor: EventsCursor = 0,
        limit: EventsLimit = _EVENTS_A_PAGE,
    ) -> Response:
        await services.run_watch.run(run_id)
        after = max(last_event_id, cursor)
        if "text/event-stream" in request.headers.get("accept", ""):
            headers = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
            lines = _live(services, run_id, after)
            return StreamingResponse(lines, media_type="text/event-stream", headers=headers)
        rows = await services.database.read(lambda tx: history_since(tx, run_id, after, limit + 1))
        shown = rows[:limit]
        more = str(shown[-1]["seq"]) if len(rows) > len(shown) else None
        return JsonAnswer({"object": "list", "data": [event_view(row) for row in shown], "next_cursor": more})


def _steps_page(tx: Tx, run_id: str, limit: int, cursor: str | None) -> dict[str, object]:
    """All in one moment of the database. Raises: UserError."""
    order = steps_in_order(tx, run_id)
    found = part(step_ids(order), limit, cursor, name=itemgetter("id"))
    keys = {str(row["id"]) for row in cast(list[Row], found["data"])}
    return found | {"data": some_steps_view(tx, run_id, order, keys)}


def _control_routes(router: APIRouter, services: Services) -> None:
    @router.post("/v1/runs/{run_id}/cancel", status_code=202, response_model=_Json, summary="Stop a run")
    async def cancel_run(run_id: str) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        return await _going_on(services, run_id, lambda tx: cancel(tx, services.catalogue, run_id, now_us()))

    @router.post(
        "/v1/runs/{run_id}/pause", status_code=202, response_model=_Json, summary="Start no further step of a run"
    )
    async def pause_run(run_id: str) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        await services.database.write(lambda tx: pause(tx, services.catalogue, run_id, now_us()))
        return await _view(services, run_id)

    @router.post("/v1/runs/{run_id}/resume", status_code=202, response_model=_Json, summary="Let a paused run go on")
    async def resume_run(  # pyright: ignore[reportUnusedFunction]
        run_id: str, asked: ResumeRequest | None = None
    ) -> JsonAnswer:
        budget = asked.budget_usd if asked else None
        limit = None if budget is None else to_picousd(budget)
        return await _going_on(services, run_id, lambda tx: resume(tx, services.catalogue, run_id, limit, now_us()))

    @router.post(
        "/v1/runs/{run_id}/retry", status_code=202, response_model=_Json, summary="Go on from the step that failed"
    )
    async def retry_run(run_id: str) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        return await _going_on(services, run_id, lambda tx: retry(tx, services.catalogue, run_id, now_us()))

    @router.post(
        "/v1/runs/{run_id}/fork",
        status_code=201,
        response_model=_Json,
        summary="A new run that goes on from a step of this one",
    )
    async def fork_run(  # pyright: ignore[reportUnusedFunction]
        run_id: str, asked: ForkRequest, request: Request
    ) -> JsonAnswer:
        await check_models(services, asked.models)
        wanted = Fork(asked.from_step, asked.input, asked.models, context_of(request.scope))
        run, rings = await services.database.write(lambda tx: fork(tx, services.catalogue, run_id, wanted, now_us()))
        ring_all(services, rings)
        return await _view(services, run["id"], 201, {"location": run_links(run["id"])["self"]})

    @router.post(
        "/v1/runs/{run_id}/signals/{name}",
        status_code=202,
        response_model=_Json,
        summary="Give a run the signal that a step of it waits for; the body is its payload",
        openapi_extra={"requestBody": {"content": {"application/json": {"example": {"approved": True}}}}},
    )
    async def send_signal(  # pyright: ignore[reportUnusedFunction]
        run_id: str, name: Annotated[str, Path(pattern=SIGNAL_PATTERN)], request: Request
    ) -> JsonAnswer:
        signal = (name, await _payload(request))
        _, rings, _ = await services.database.write(lambda tx: send(tx, services.catalogue, run_id, signal, now_us()))
        ring_all(services, rings)
        return await _view(services, run_id)


async def _payload(request: Request) -> Any:
    """Any JSON; an empty body is null. Raises: UserError."""
    body = await request.body()
    try:
        payload = json.loads(body) if body.strip() else None
    except RecursionError as error:
        raise UserError("invalid_json", TOO_DEEP) from error
    except ValueError as error:
        raise UserError("invalid_json", f"the body is no JSON: {error}") from error
    if is_too_deep(payload):
        raise UserError("invalid_json", TOO_DEEP)
    return payload


def _webhook_routes(router: APIRouter, services: Services) -> None:
    @router.get("/v1/runs/{run_id}/webhooks", summary="The run's webhook deliveries with every try, newest first")
    async def deliveries(  # pyright: ignore[reportUnusedFunction]
        run_id: str, limit: int = 50, cursor: str | None = None
    ) -> dict[str, Any]:
        await services.run_watch.run(run_id)
        rows = await services.database.read(lambda tx: deliveries_view(tx, run_id))
        return part(rows[::-1], limit, cursor, name=itemgetter("id"))

    @router.post("/v1/webhooks/{delivery_id}/redeliver", status_code=202, summary="Send a webhook once more")
    async def send_again(delivery_id: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        if not await services.database.write(lambda tx: redeliver(tx, delivery_id, now_us())):
            raise NotFound("delivery_not_found", f"there is no delivery {delivery_id}", param="delivery_id")
        return {"id": delivery_id, "status": "pending"}


def caller_of(request: Request, idempotency_key: str | None) -> Caller:
    """Who asks, as the middleware found out."""
    key_id = getattr(request.state, "key_id", None)
    return Caller(request.state.request_id, key_id, idempotency_key, context_of(request.scope))


async def _view(
    services: Services, run_id: str, status: int = 202, headers: dict[str, str] | None = None
) -> JsonAnswer:
    return JsonAnswer(await services.run_watch.told_at_end(run_id, 0, run_view), status, headers)


def _json(answer: Answer) -> JsonAnswer:
    return JsonAnswer(answer.body, answer.status, answer.headers)


async def _going_on(services: Services, run_id: str, transition: Callable[[Tx], tuple[Row, list[Ring]]]) -> JsonAnswer:
    _, rings = await services.database.write(transition)
    ring_all(services, rings)
    return await _view(services, run_id)


async def _live(services: Services, run_id: str, after: int) -> AsyncGenerator[str, None]:
    """Events as they come, until the run has ended and all were sent; resumable by `Last-Event-ID`."""
    while True:
        seen = after
        run = await services.run_watch.run(run_id)
        rows = await services.database.read(lambda tx, number=seen: history_since(tx, run_id, number, _EVENTS_AT_ONCE))
        for row in rows:
            after = row["seq"]
            yield f"id: {after}\nevent: {row['type']}\ndata: {json.dumps(event_view(row))}\n\n"
        all_sent = run["event_seq"] <= after or not rows
        if (run["status"] in RUN_ENDED and all_sent) or services.closing.is_set():
            return
        if run["event_seq"] <= after:
            if not await services.run_watch.changed(run_id, after, _SIGN_OF_LIFE_S):
                yield ": waiting\n\n"
