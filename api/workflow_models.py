"""`workflow/NAME` as a model: a durable run stands behind the answer.

The run is an ordinary one of the caller's key. A client that leaves does not stop it, and neither does an answer that takes
longer than the client waits: the run's id is in `x-aigateway-run-id` either way.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from api.answers import Comment, Telling, Whole
from api.asgi import Scope
from api.errors import HttpError
from api.limit_headers import standing_headers
from api.request_spans import context_of
from api.run_watch import SETTLED
from api.runs import LONGEST_WAIT_S
from api.services import ChatBook, Services
from api.submissions import Caller, RunRequest, definition_of, start_run
from api.workflow_inputs import dropped_names, input_of, tags_of
from engine.admission import Standing
from engine.clock import new_id, now_us
from engine.definition import Definition
from engine.errors import NotFound
from engine.ledger import CallKind, CallScope, Intent, Usage
from engine.money import usd_text
from engine.states import RunStatus
from engine.store.database import Row, Tx
from engine.store.events import history_since, why_paused
from engine.store.json_text import dumps
from engine.store.requests import run_sums
from engine.store.runs import get_run
from engine.submission import is_submitted
from engine.views import run_view
from engine.workflow_grants import WORKFLOW_MODEL
from providers.completions import ChunkMaker, completion, new_completion_id
from providers.provider import Chunk, Json

PREFIX = WORKFLOW_MODEL
USUAL_WAIT_S = 300.0
_SIGN_OF_LIFE_S = 15.0
_EVENTS_AT_ONCE = 500
_CLIENTS_TIMEOUTS = (
    b"x-stainless-read-timeout",
    b"x-stainless-timeout",
)  # seconds, as OpenAI's and Anthropic's clients say
_BEFORE_CLIENT_S = 1.0  # an answer that comes while the client still listens


def workflow_of(services: Services, model: str) -> str | None:
    """The workflow that a model's name stands for; None where it stands for another model."""
    if not model.startswith(PREFIX) or services.router.configures(model):
        return None
    return model.removeprefix(PREFIX)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to: its output as text, what its calls used, and the `aigateway` object."""

    text: str
    usage: Usage
    summary: Json
    cost: str


@dataclass(frozen=True, slots=True)
class WorkflowRun:
    """A submitted run as the source of an answer."""

    services: Services
    workflow: str
    run_id: str
    headers: Mapping[str, str]
    wait_s: float

    @property
    def cancelled_with_client(self) -> bool:
        """It is only the waiting that ends: the run goes on."""
        return True

    @property
    def model(self) -> str:
        """As the client named it."""
        return PREFIX + self.workflow

    async def whole(self) -> Whole:
        """The run's output. Raises: HttpError where there is none, or not in time."""
        await self.services.run_watch.end_of(self.run_id, self.wait_s)
        done = await self.outcome()
        message = {"role": "assistant", "content": done.text}
        body = completion(new_completion_id(), self.model, message=message, finish_reason="stop", usage=done.usage)
        return Whole(body, self.model, done.usage, done.summary, {"x-aigateway-cost-usd": done.cost, **self.headers})

    @asynccontextmanager
    async def stream(self) -> AsyncGenerator[Telling, None]:
        """Begins at once; the run's progress comes as comments, its output as content."""
        yield WorkflowTelling(self)

    async def outcome(self) -> Outcome:
        """What the run came to. Raises: HttpError where it has no output, or none yet."""
        view, sums = await self.services.database.read(self._read)
        if view["status"] != RunStatus.SUCCEEDED.value:
            reason = await self.services.database.read(lambda tx: why_paused(tx, self.run_id))
            raise self._trouble(view, reason)
        summary: Json = {
            "cost_usd": view["cost_usd"],
            "cost_unknown_calls": view["cost_unknown_calls"],
            "latency_ms": view["latency_ms"],
            "provider": "workflow",
            "model": self.workflow,
            "attempts": [],
            "run_id": self.run_id,
        }
        output = view["output"]
        cost = "unknown" if view["cost_unknown_calls"] else usd_text(sums["cost_picousd"])
        return Outcome(output if isinstance(output, str) else dumps(output), _usage(sums), summary, cost)

    def _read(self, tx: Tx) -> tuple[Json, Row]:
        row = get_run(tx, self.run_id)
        assert row is not None
        return run_view(tx, row), run_sums(tx, self.run_id)

    def _trouble(self, view: Json, paused_for: str | None) -> HttpError:
        """Why there is no output, as `/v1/workflow/{name}` tells it; a budget as every other budget, with when it resets."""
        where = f"run {self.run_id} of the workflow {self.workflow}"
        match view["status"]:
            case RunStatus.FAILED.value:
                step = f" at step {view['error']['step']}" if view["error"]["step"] else ""
                status, code, told = 502, "run_failed", f"failed{step}: {view['error']['message']}"
            case RunStatus.CANCELLED.value:
                status, code, told = 409, "run_cancelled", "was cancelled"
            case RunStatus.PAUSED.value if view["pause_reason"] == "budget_exceeded":
                status, code = 402, "budget_exceeded"
                limit = ": ".join(filter(None, ("its spending limit is reached", paused_for)))
                told = f"is paused: {limit}; resume it then, or with a larger budget_usd where the run's own is used up"
            case RunStatus.PAUSED.value:
                status, code, told = 409, "run_paused", "was paused"
            case _:
                status, code = 504, "run_not_finished"
                told = f"goes on, and has not ended in time; GET /v1/runs/{self.run_id}?wait=300 waits for its end"
        return HttpError(status, code, f"{where} {told}", headers=self.headers)


@dataclass(slots=True)
class WorkflowTelling:
    """A run told while it goes on."""

    run: WorkflowRun
    usage: Usage | None = None
    summary: Json = field(default_factory=dict[str, Any])

    @property
    def headers(self) -> Mapping[str, str]:
        """The run's id among them."""
        return self.run.headers

    async def __aiter__(self) -> AsyncGenerator[Chunk | Comment, None]:
        maker = ChunkMaker(self.run.model)
        yield maker.role()
        yield Comment(f"run {self.run.run_id}")
        async for progress in self._progress():
            yield progress
        done = await self.run.outcome()
        self.usage, self.summary = done.usage, done.summary
        yield maker.delta(content=done.text)
        yield maker.finish("stop")
        yield maker.usage(done.usage)

    async def _progress(self) -> AsyncGenerator[Comment, None]:
        """What its steps do, until the run has ended or paused, or has taken longer than anybody waits."""
        services, run_id = self.run.services, self.run.run_id
        after, deadline = 0, monotonic() + self.run.wait_s
        while True:
            row = await services.run_watch.run(run_id)
            seen = after
            events = await services.database.read(lambda tx, at=seen: history_since(tx, run_id, at, _EVENTS_AT_ONCE))
            for event in events:
                after = event["seq"]
                yield Comment(" ".join(filter(None, (event["type"], event["step_key"]))))
            if events:
                continue
            if row["status"] in SETTLED or monotonic() > deadline or services.closing.is_set():
                return
            if not await services.run_watch.changed(run_id, after, _SIGN_OF_LIFE_S):
                yield Comment("waiting")


async def workflow_definition(services: Services, workflow: str) -> Definition:
    """The workflow behind a model. Raises: NotFound with the nearest names."""
    try:
        definition, _ = await definition_of(services, workflow)
    except NotFound as error:
        raise NotFound("model_not_found", error.message, param="model") from None
    return definition


async def submit_for(services: Services, workflow: str, chat: Json, body: Json, scope: Scope) -> WorkflowRun:
    """Start a run for a request: `chat` is it as OpenAI chat, `body` as it came. Raises: NotFound, UserError; Forbidden, LimitExceeded."""
    state = scope["state"]
    caller = Caller(state["request_id"], state.get("key_id"), state.get("run_key"), context_of(scope))
    standings = await _check_key(services, workflow, caller)
    definition = await workflow_definition(services, workflow)
    asked = RunRequest(input=input_of(definition, chat), tags=tags_of(body))
    run_id: str = (await start_run(services, workflow, asked, caller)).run["id"]
    headers = {
        "x-aigateway-run-id": run_id,
        "x-aigateway-provider": "workflow",
        "x-aigateway-model": workflow,
        **standing_headers(standings),
    }
    if dropped := dropped_names(body):
        headers["x-aigateway-dropped"] = ", ".join(dropped)
    return WorkflowRun(
        services, workflow, run_id, headers, LONGEST_WAIT_S if body.get("stream") else _patience_s(scope)
    )


async def _check_key(services: Services, workflow: str, caller: Caller) -> Sequence[Standing]:
    """Whether the caller's key may use the workflow, and has room for a request now: a client waits for the answer, so it is told
    at once, where a run's step would wait. Who asks for the run of an earlier request starts none. Raises: Forbidden, LimitExceeded.
    """
    if caller.key_id is None:
        return ()
    book, key_id = ChatBook(services), caller.key_id
    if await services.database.read(lambda tx: is_submitted(tx, key_id, caller.idempotency_key)):
        return ()
    await book.check(
        Intent(
            id=new_id(),
            scope=CallScope(request_id=caller.request_id, key_id=key_id),
            kind=CallKind.CHAT,
            provider="workflow",
            model=workflow,
            requested_model=PREFIX + workflow,
            streamed=False,
            at_us=now_us(),
            reserve_picousd=0,
        )
    )
    return book.standings


def _patience_s(scope: Scope) -> float:
    """How long the client waits, where it says so."""
    for name, value in scope["headers"]:
        if name in _CLIENTS_TIMEOUTS:
            try:
                told = float(value)
            except ValueError:
                continue
            if told > 0:
                return min(max(told - _BEFORE_CLIENT_S, told / 2), LONGEST_WAIT_S)
    return USUAL_WAIT_S


def _usage(sums: Row) -> Usage:
    return Usage(
        input=sums["prompt_tokens"] - sums["cached_tokens"] - sums["cache_write_tokens"],
        cache_read=sums["cached_tokens"],
        cache_write=sums["cache_write_tokens"],
        output=sums["completion_tokens"],
        reasoning=sums["reasoning_tokens"],
    )
