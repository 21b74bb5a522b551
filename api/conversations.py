"""A hot route for a dialect that is not OpenAI chat: `/v1/messages` and `/v1/responses` are two `Conversation`s of this one.

Plain ASGI like `api.chat`, and the same rules: straight to the provider, every attempt booked, a failure in mid-answer told in
band and never hidden behind a clean end.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from api.anthropic_errors import shaped
from api.asgi import (
    Receive,
    Scope,
    Send,
    end_events,
    read_json_object,
    send_json,
    send_named_events,
    send_problem,
    start_events,
    unless_disconnected,
)
from api.call_headers import answer_headers, failed_headers, stream_headers
from api.errors import Problem, problem_of
from api.services import ChatBook, Services
from engine.errors import AIGatewayError
from engine.ledger import CallScope
from providers.errors import ProviderError
from providers.failover import Completed
from providers.provider import Chunk, Json
from providers.routing import Route
from providers.streams import OpenStream
from providers.wording import Request


class Conversation(Protocol):
    """One request in its client's dialect, and how its answer is told there. Each event names itself under `type`."""

    @property
    def model(self) -> str:
        """The name that the client wrote."""
        ...

    @property
    def streamed(self) -> bool:
        """Whether the client wants events."""
        ...

    @property
    def request(self) -> Request:
        """What the candidates are asked."""
        ...

    @property
    def own_headers(self) -> Mapping[str, str]:
        """Headers that this dialect's clients look for."""
        ...

    def whole(self, done: Completed) -> Json:
        """The answer to a request that is not streamed."""
        ...

    def chunk(self, chunk: Chunk) -> Iterable[Json]:
        """The events for one chunk; the opening ones come with the first. Raises: ProviderError where it makes no sense."""
        ...

    def end(self, stream: OpenStream) -> Iterable[Json]:
        """The last events, once the call is booked."""
        ...

    def failure(self, problem: Problem) -> Iterable[Json]:
        """The events that say that the answer is not whole."""
        ...


Begin = Callable[[Json, Mapping[str, str], str], Conversation]


@dataclass(frozen=True, slots=True)
class ConversationEndpoint:
    """The ASGI application of such a route. `begin` checks a body (with the request's headers and id). Raises: HttpError."""

    services: Services
    begin: Begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        request_id: str = scope["state"]["request_id"]
        cancels = self.services.on_client_disconnect == "cancel"
        try:
            body = await read_json_object(receive)
            talk = self.begin(body, read_headers(scope), request_id)
            route = await self.services.router.resolve(talk.model)
            call_scope = CallScope(request_id=request_id, key_id=scope["state"].get("key_id"))
            telling = self._stream if talk.streamed else self._whole
            await unless_disconnected(telling(talk, route, call_scope, started, send), receive, cancel=cancels)
        except AIGatewayError as error:
            problem = problem_of(error)
            problem.headers.update(failed_headers(error))
            await send_problem(send, shaped(problem, scope["path"], request_id))

    async def _whole(self, talk: Conversation, route: Route, scope: CallScope, started: float, send: Send) -> None:
        failover = self.services.failover
        done = await failover.complete(route, talk.request, scope=scope, book=ChatBook(self.services))
        await send_json(send, 200, talk.whole(done), {**answer_headers(done, started), **talk.own_headers})

    async def _stream(self, talk: Conversation, route: Route, scope: CallScope, started: float, send: Send) -> None:
        failover = self.services.failover
        async with await failover.stream(route, talk.request, scope=scope, book=ChatBook(self.services)) as stream:
            await start_events(send, {**stream_headers(stream, started), **talk.own_headers})
            try:
                async for chunk in stream:
                    await send_named_events(send, talk.chunk(chunk))
                await send_named_events(send, talk.end(stream))
            except ProviderError as error:
                await send_named_events(send, talk.failure(problem_of(error)))
            await end_events(send)


def read_headers(scope: Scope) -> dict[str, str]:
    """The request's headers by lower-case name; several of one name are joined by commas."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers
