"""The hot route of every dialect: chat, `/v1/messages` and `/v1/responses` are three `Conversation`s of this one.

Plain ASGI: through FastAPI a request costs about half as much again (docs/architecture.md). Straight to the source of the
answer (`api.answers`), and a failure in mid-answer is told in band and never hidden behind a clean end.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from api.answer_cache import Question, through_cache, wish_of
from api.answers import Comment, Live, Source, Whole
from api.anthropic_errors import shaped
from api.asgi import (
    Receive,
    Scope,
    Send,
    end_events,
    read_json_object,
    send_frames,
    send_json,
    send_problem,
    start_events,
    unless_disconnected,
)
from api.call_headers import failed_headers
from api.errors import Problem, problem_of
from api.hold_back import with_hold_back
from api.services import Services
from api.workflow_inputs import tags_of
from api.workflow_models import submit_for, workflow_of
from engine.errors import AIGatewayError
from engine.ledger import CallScope, Usage
from providers.provider import Chunk, Json
from providers.wording import Request


class Conversation(Protocol):
    """One request in its client's dialect, and how its answer is told there."""

    @property
    def body(self) -> Json:
        """The request as it came."""
        ...

    @property
    def model(self) -> str:
        """The name that the client wrote."""
        ...

    @property
    def streamed(self) -> bool:
        """Whether the client wants events."""
        ...

    @property
    def request(self) -> Json | Request:
        """What the candidates are asked."""
        ...

    @property
    def chat(self) -> Json:
        """The request as OpenAI chat. Raises: ProviderError for content that has no word there."""
        ...

    @property
    def question(self) -> Question:
        """What is asked, for the cache."""
        ...

    @property
    def own_headers(self) -> Mapping[str, str]:
        """Headers that this dialect's clients look for."""
        ...

    def whole(self, answer: Whole) -> Json:
        """The answer to a request that is not streamed."""
        ...

    def chunk(self, chunk: Chunk) -> Iterable[Json]:
        """The events for one chunk; the opening ones come with the first. Raises: ProviderError where it makes no sense."""
        ...

    def end(self, usage: Usage | None, summary: Json) -> Iterable[Json]:
        """The last events, once the answer is whole and booked. `summary` is the `aigateway` object."""
        ...

    def failure(self, problem: Problem) -> Iterable[Json]:
        """The events that say that the answer is not whole."""
        ...

    def frames(self, events: Iterable[Json]) -> bytes:
        """The events as they go over the wire."""
        ...

    @property
    def farewell(self) -> bytes:
        """What follows the last event of a whole answer."""
        ...


Begin = Callable[[Json, Scope], Conversation]


@dataclass(frozen=True, slots=True)
class ConversationEndpoint:
    """The ASGI application of such a route. `begin` checks a body. Raises: HttpError."""

    services: Services
    begin: Begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        try:
            talk = self.begin(await read_json_object(receive), scope)
            source = await self._source(talk, scope, started)
            telling = _stream(talk, source, send) if talk.streamed else _whole(talk, source, send)
            await unless_disconnected(telling, receive, cancel=source.cancelled_with_client)
        except AIGatewayError as error:
            problem = problem_of(error)
            problem.headers.update(failed_headers(error))
            await send_problem(send, shaped(problem, scope["path"], scope["state"]["request_id"]))

    async def _source(self, talk: Conversation, scope: Scope, started: float) -> Source:
        services, state = self.services, scope["state"]
        workflow = workflow_of(services, talk.model)
        if workflow is not None:
            return await submit_for(services, workflow, talk.chat, talk.body, scope)
        route = await services.router.resolve(talk.model)
        call_scope = CallScope(
            request_id=state["request_id"],
            key_id=state.get("key_id"),
            tags=tags_of(talk.body),
            span=state.get("span"),
        )
        if talk.streamed:
            route = with_hold_back(route, scope)
        live = Live(services, route, talk.request, call_scope, started)
        wish = wish_of(route, scope)
        return live if wish is None else await through_cache(services, wish, talk.question, live)


async def _whole(talk: Conversation, source: Source, send: Send) -> None:
    answer = await source.whole()
    await send_json(send, 200, talk.whole(answer), {**answer.headers, **talk.own_headers})


async def _stream(talk: Conversation, source: Source, send: Send) -> None:
    """One piece of work, so that a client that leaves while the stream is being opened leaves no open stream behind."""
    async with source.stream() as telling:
        await start_events(send, {**telling.headers, **talk.own_headers})
        frames = b""
        try:
            async for part in telling:
                if isinstance(part, Comment):
                    frames += f": {part.text}\n\n".encode()
                else:
                    frames += talk.frames(talk.chunk(part))
                    if part.followed:
                        continue  # what came together is sent together
                await send_frames(send, frames)
                frames = b""
            frames += talk.frames(talk.end(telling.usage, telling.summary))
        except AIGatewayError as error:
            await end_events(send, frames + talk.frames(talk.failure(problem_of(error))), broken=True)
            return
        await end_events(send, frames + talk.farewell)


def read_headers(scope: Scope) -> dict[str, str]:
    """The request's headers by lower-case name; several of one name are joined by commas."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers
