"""Failover as a state machine: which call comes next after a failure, until one answers or none is left.

It happens before the first content alone. Role-only chunks are held back; once content is out, a failure is raised to the
reader and never hidden behind a clean end. Every upstream call is booked (`providers.booking`).
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from engine.clock import Clock, now_us
from engine.ledger import Book, CallKind, CallScope, CostSource, Usage
from engine.states import ErrorClass
from providers.booking import Call, Desk, Errand
from providers.errors import ProviderError
from providers.health import Cooldowns
from providers.pricing import PriceBook
from providers.provider import Answer, AttemptInfo, Chunk, Json
from providers.routing import Candidate, Route
from providers.streams import OpenStream
from providers.timers import paced, whole
from providers.wording import NativeProvider, Request

Sleep = Callable[[float], Awaitable[None]]
Result = TypeVar("Result")

_RETRIED = frozenset({ErrorClass.RATE_LIMIT, ErrorClass.OVERLOADED, ErrorClass.CONNECTION, ErrorClass.SERVER_ERROR})
_MOVES_ON = _RETRIED | {ErrorClass.TIMEOUT, ErrorClass.AUTH, ErrorClass.QUOTA, ErrorClass.CONTEXT_LENGTH}


@dataclass(frozen=True, slots=True)
class FailoverPolicy:
    """How long one candidate is tried. Pauses are backoff_s * 2^n with jitter, or what the upstream asks for up to a cap."""

    retries_per_target: int = 2
    backoff_s: float = 0.5
    backoff_max_s: float = 8.0
    retry_after_cap_s: float = 10.0


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Ask the same candidate once more after a pause."""

    pause_s: float


@dataclass(frozen=True, slots=True)
class MoveOn:
    """Ask the next candidate at once."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The error is the answer."""


def decide(
    error: ProviderError, *, tries: int, more: bool, policy: FailoverPolicy, jitter: float
) -> TryAgain | MoveOn | GiveUp:
    """What follows a failure. `tries` counts calls to this candidate so far, `jitter` is in [0, 1).

    A request that is wrong, or that a content filter refused, is nobody else's to answer. A timer of ours that ran out has
    used up the caller's patience with this candidate.
    """
    missing = error.error_class is ErrorClass.INVALID_REQUEST and error.status == 404
    if error.error_class not in _MOVES_ON and not missing:
        return GiveUp()
    retried = error.error_class in _RETRIED or (error.error_class is ErrorClass.TIMEOUT and error.status is not None)
    if retried and tries <= policy.retries_per_target:
        pause = min(policy.backoff_s * 2 ** (tries - 1), policy.backoff_max_s) * (0.5 + jitter / 2)
        if error.retry_after_s is not None:
            pause = max(pause, error.retry_after_s)
        if error.retry_after_s is None or error.retry_after_s <= policy.retry_after_cap_s:
            return TryAgain(pause)
    return MoveOn() if more else GiveUp()


class _Walk:
    """Where in the list of candidates a request stands."""

    def __init__(self, candidates: Sequence[Candidate], policy: FailoverPolicy) -> None:
        self._candidates = candidates
        self._policy = policy
        self._at = 0
        self._tries = 1

    @property
    def candidate(self) -> Candidate:
        return self._candidates[self._at]

    def after(self, error: ProviderError, jitter: float) -> float:
        """The pause before the next call. Raises: `error` where none is left."""
        more = self._at + 1 < len(self._candidates)
        match decide(error, tries=self._tries, more=more, policy=self._policy, jitter=jitter):
            case TryAgain(pause_s):
                self._tries += 1
                return pause_s
            case MoveOn():
                self._at, self._tries = self._at + 1, 1
                return 0.0
            case GiveUp():
                raise error


class Failover:
    """Asks a route's candidates until one answers. One for a process; safe for any number of requests at once."""

    def __init__(
        self,
        prices: PriceBook,
        *,
        clock: Clock = now_us,
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        cooldowns: Cooldowns | None = None,
    ) -> None:
        self._desk = Desk(prices, clock)
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._cooldowns = cooldowns or Cooldowns()

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

    async def stream(
        self, route: Route, body: Json | Request, *, scope: CallScope, book: Book, policy: FailoverPolicy | None = None
    ) -> OpenStream:
        """A stream whose first content is there; close it. Raises: ProviderError (with `attempts`), BudgetExceeded."""
        errand = Errand(route, body, scope, book, CallKind.CHAT, streamed=True)
        return await self._first(errand, policy or FailoverPolicy(), self._begin)

    async def drain(self) -> None:
        """Wait for the bookings of cancelled callers: call it before the database is closed."""
        await self._desk.drain()

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
        walk = _Walk(self._cooldowns.ready_first(errand.route.candidates), policy)
        while True:
            call = await self._desk.open(errand, walk.candidate)
            try:
                result = await ask(call)
            except ProviderError as error:
                self._cooldowns.failed(call.candidate, error)
                pause = walk.after(error, self._jitter())
            else:
                self._cooldowns.succeeded(call.candidate)
                return result
            if pause:
                await self._sleep(pause)

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
        await stream.start()
        return stream


def _ask(call: Call) -> Awaitable[Answer]:
    """The call for a whole answer. Raises: ProviderError where the request cannot be carried to this candidate."""
    provider, model = call.candidate.provider, call.candidate.model
    wording = call.errand.worded(call.candidate)
    if call.errand.kind is CallKind.EMBEDDINGS:
        return provider.embeddings(model, wording.body)
    if wording.native:
        assert isinstance(provider, NativeProvider)
        return provider.answer_native(model, wording)
    return provider.chat(model, wording.body)


def _open(call: Call) -> AsyncGenerator[Chunk, None]:
    """The call for a stream. Raises: ProviderError where the request cannot be carried to this candidate."""
    provider, model = call.candidate.provider, call.candidate.model
    wording = call.errand.worded(call.candidate)
    if wording.native:
        assert isinstance(provider, NativeProvider)
        return provider.stream_native(model, wording)
    return provider.stream(model, wording.body)
