"""Where an answer comes from, told the same way to every dialect: a live upstream, a workflow's run, something kept.

`api.conversations` tells it to the client in the client's dialect; a source never knows which one that is.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from api.call_headers import answer_headers, answer_summary, stream_headers, stream_summary
from api.limit_headers import standing_headers
from api.services import ChatBook, Services
from engine.ledger import CallScope, Usage
from providers.provider import Chunk, Json
from providers.routing import Route
from providers.streams import OpenStream
from providers.wording import Request


@dataclass(slots=True)
class Whole:
    """A whole answer: OpenAI's completion, or the upstream's own dialect where `native`. `summary` is the `aigateway` object."""

    body: Json
    model: str
    usage: Usage | None
    summary: Json
    headers: Mapping[str, str]
    native: bool = False


@dataclass(frozen=True, slots=True)
class Comment:
    """A line of a stream that clients skip: progress, or a sign of life."""

    text: str


class Telling(Protocol):
    """An answer as a stream. Iterating raises AIGatewayError where it breaks; `usage` and `summary` are right at its end."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What is known at the start."""
        ...

    @property
    def usage(self) -> Usage | None:
        """What was used."""
        ...

    @property
    def summary(self) -> Json:
        """The `aigateway` object."""
        ...

    def __aiter__(self) -> AsyncIterator[Chunk | Comment]: ...


class Source(Protocol):
    """One answer to be had. Both raise AIGatewayError where there is none."""

    @property
    def cancelled_with_client(self) -> bool:
        """Whether a client that leaves ends the work; else it goes on to its end."""
        ...

    async def whole(self) -> Whole:
        """The answer in one piece."""
        ...

    def stream(self) -> AbstractAsyncContextManager[Telling]:
        """The answer as it comes; leaving the block early ends it."""
        ...


@dataclass(frozen=True, slots=True)
class LiveTelling:
    """An upstream's stream whose first content is there."""

    stream: OpenStream
    headers: Mapping[str, str]

    @property
    def usage(self) -> Usage | None:
        """What was booked."""
        return self.stream.usage

    @property
    def summary(self) -> Json:
        """The `aigateway` object."""
        return stream_summary(self.stream)

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self.stream


@dataclass(slots=True)
class Live:
    """An upstream's answer, every attempt booked. `started`: when the request came in (time.perf_counter)."""

    services: Services
    route: Route
    request: Json | Request
    scope: CallScope
    started: float
    more_headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def cancelled_with_client(self) -> bool:
        """As the configuration says."""
        return self.services.on_client_disconnect == "cancel"

    async def whole(self) -> Whole:
        """Raises: ProviderError, BudgetExceeded and what else refuses a call."""
        book = ChatBook(self.services)
        done = await self.services.failover.complete(self.route, self.request, scope=self.scope, book=book)
        headers = {**answer_headers(done, self.started), **standing_headers(book.standings), **self.more_headers}
        answer = done.answer
        return Whole(answer.body, done.model, done.usage, answer_summary(done), headers, native=answer.native)

    @asynccontextmanager
    async def stream(self) -> AsyncGenerator[Telling, None]:
        """Raises: ProviderError, BudgetExceeded and what else refuses a call. Nothing is open once the block is left."""
        book = ChatBook(self.services)
        opening = self.services.failover.stream(self.route, self.request, scope=self.scope, book=book)
        async with await opening as stream:
            headers = {**stream_headers(stream, self.started), **standing_headers(book.standings), **self.more_headers}
            yield LiveTelling(stream, headers)
