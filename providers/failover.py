"""Failover as a state machine: which call comes next after a failure, until one answers or none is left.

It happens before any content has gone out. Role-only chunks are held back, and content too for as long as the route says; once
content is out, a failure is raised to the reader and never hidden behind a clean end. Every upstream call is booked (`providers.booking`). A candidate that a budget, the
key or a missing price rules out is passed over; that is the answer only where no other candidate was asked.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from engine.clock import Clock, now_us
from engine.errors import BudgetExceeded, Forbidden, UserError
from engine.ledger import UNKNOWN_PRICE, Book, CallKind, CallScope, CostSource, Usage
from providers.abilities import Abilities
from providers.booking import Call, Desk
from providers.errand import Errand
from providers.errors import ProviderError
from providers.health import Health
from providers.observed import Observations
from providers.pricing import PriceBook
from providers.provider import Answer, AttemptInfo, Chunk, Json
from providers.routing import Candidate, Route
from providers.strategies import Chooser
from providers.streams import OpenStream
from providers.timers import paced, whole
from providers.walk import FailoverPolicy, Walk
from providers.wording import NativeProvider, Request, TokenCounter, Wording

Sleep = Callable[[float], Awaitable[None]]
Result = TypeVar("Result")


@dataclass(slots=True)
class Completed:
    """A whole answer and what it took. `latency_us` counts all attempts and pauses."""

    answer: Answer
    provider: str
    model: str
    attempts: tuple[AttemptInfo, ...]
    usage: Usage | None
    cost_picousd: int | None
    cost_source: CostSource
    latency_us: int


class Failover:
    """Asks a route's candidates until one answers. One for a process; safe for any number of requests at once."""

    def __init__(
        self,
        prices: PriceBook,
        *,
        clock: Clock = now_us,
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        health: Health | None = None,
    ) -> None:
        """`jitter` gives numbers in [0, 1): for pauses, and for strategy weighted."""
        self.health = health or Health(clock)
        self._observed = Observations()
        self._desk = Desk(prices, clock, self.health, self._observed)
        self._chooser = Chooser(prices, self._observed, jitter)
        self._abilities = Abilities()
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter

    async def complete(
        self, route: Route, body: Json | Request, *, scope: CallScope, book: Book, policy: FailoverPolicy | None = None
    ) -> Completed:
        """A whole chat answer. Raises: ProviderError (the last one, with `attempts`), BudgetExceeded."""
        errand = Errand(route, body, scope, book, CallKind.CHAT)
        return await self._whole(errand, policy)

    async def embeddings(
        self, route: Route, body: Json, *, scope: CallScope, book: Book, policy: FailoverPolicy | None = None
    ) -> Completed:
        """Embeddings. Raises: ProviderError (the last one, with `attempts`), BudgetExceeded."""
        errand = Errand(route, body, scope, book, CallKind.EMBEDDINGS)
        return await self._whole(errand, policy)

    async def count_tokens(self, route: Route, request: Request, *, scope: CallScope, book: Book) -> Completed:
        """The size of a prompt, from candidates that are TokenCounters. Free, but booked. Raises: ProviderError."""
        errand = Errand(route, request, scope, book, CallKind.COUNT_TOKENS)
        return await self._whole(errand, None)

    async def stream(
        self, route: Route, body: Json | Request, *, scope: CallScope, book: Book, policy: FailoverPolicy | None = None
    ) -> OpenStream:
        """A stream whose first content is there, or more of it where the route holds it back; close it. Raises: ProviderError (with `attempts`), BudgetExceeded."""
        errand = Errand(route, body, scope, book, CallKind.CHAT, streamed=True)
        return await self._first(errand, policy or FailoverPolicy(), self._begin)

    async def drain(self) -> None:
        """Wait for the bookings of cancelled callers and for what is to be told: call it before the database is closed."""
        await self._desk.drain()
        await self.health.drain()

    async def _whole(self, errand: Errand, policy: FailoverPolicy | None) -> Completed:
        started = self._clock()
        answer, usage = await self._first(errand, policy or FailoverPolicy(), self._answer)
        last = errand.attempts[-1]
        return Completed(
            answer=answer,
            provider=last.provider,
            model=last.model,
            attempts=tuple(errand.attempts),
            usage=usage,
            cost_picousd=last.cost_picousd,
            cost_source=last.cost_source,
            latency_us=max(0, self._clock() - started),
        )

    async def _first(self, errand: Errand, policy: FailoverPolicy, ask: Callable[[Call], Awaitable[Result]]) -> Result:
        walk = await self._walk(errand, policy)
        while (candidate := await walk.next()) is not None:
            try:
                call = await self._desk.open(errand, candidate)
                result = await ask(call)
            except ProviderError as error:
                self._hand_back(walk, candidate)
                pause = walk.after(candidate, error, self._jitter())
            except UserError as error:
                self._hand_back(walk, candidate)
                if not _rules_out(error):
                    raise
                walk.refused(error)
                pause = 0.0
            except BaseException:
                self._hand_back(walk, candidate)
                raise
            else:
                self.health.answered(candidate, call.began_us)
                return result
            if pause:
                await self._sleep(pause)
        assert walk.failure is not None
        raise walk.failure

    async def _walk(self, errand: Errand, policy: FailoverPolicy) -> Walk:
        """Where there is no choice, nothing is looked up."""
        line: Sequence[Candidate] = errand.route.candidates
        if len(line) > 1:
            await self.health.look()
            line = self._chooser.line(errand.route, lambda: errand.size)
            line = self._abilities.able(line, errand.needs)
        return Walk(line, self.health, self._abilities, policy)

    def _hand_back(self, walk: Walk, candidate: Candidate) -> None:
        """A probe that told nothing is for somebody else to make."""
        if walk.probing:
            self.health.gave_up(candidate)

    async def _answer(self, call: Call) -> tuple[Answer, Usage | None]:
        try:
            answer = await whole(_ask(call), call.candidate.provider.config.timeouts)
        except BaseException as error:
            await call.end(error)
            raise
        call.received.whole(answer)
        await call.end()
        dropped = call.errand.worded(call.candidate).dropped
        return replace(answer, dropped=dropped + answer.dropped) if dropped else answer, call.usage

    async def _begin(self, call: Call) -> OpenStream:
        try:
            chunks = _open(call)
        except ProviderError as error:
            await call.end(error)
            raise
        stream = OpenStream(call, paced(chunks, call.candidate.provider.config.timeouts), clock=self._clock)
        await stream.start(call.errand.route.hold_back_s)
        return stream


def _rules_out(error: UserError) -> bool:
    """Whether an error of the book is about this candidate alone: another one may cost less, be allowed, have a price."""
    return isinstance(error, BudgetExceeded | Forbidden) or error.code == UNKNOWN_PRICE


def _ask(call: Call) -> Awaitable[Answer]:
    """The call for a whole answer. Raises: ProviderError where the request cannot be carried to this candidate."""
    provider, model = call.candidate.provider, call.candidate.model
    wording = call.errand.worded(call.candidate)
    if call.errand.kind is CallKind.EMBEDDINGS:
        return provider.embeddings(model, wording.body)
    if call.errand.kind is CallKind.COUNT_TOKENS:
        return _count(call.candidate, wording)
    if wording.native:
        assert isinstance(provider, NativeProvider)
        return provider.answer_native(model, wording)
    return provider.chat(model, wording.body)


async def _count(candidate: Candidate, wording: Wording) -> Answer:
    assert isinstance(candidate.provider, TokenCounter)
    tokens = await candidate.provider.count_tokens(candidate.model, wording)
    return Answer({"input_tokens": tokens}, None, candidate.model, native=True)


def _open(call: Call) -> AsyncGenerator[Chunk, None]:
    """The call for a stream. Raises: ProviderError where the request cannot be carried to this candidate."""
    provider, model = call.candidate.provider, call.candidate.model
    wording = call.errand.worded(call.candidate)
    if wording.native:
        assert isinstance(provider, NativeProvider)
        return provider.stream_native(model, wording)
    return provider.stream(model, wording.body)
