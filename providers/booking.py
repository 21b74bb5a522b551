"""Books one upstream call: its intent durable before it is sent, its outcome whatever happens, cancellation included.

What a call costs that did not end well: nothing where the upstream refused it, an estimate of what was received where a
stream had begun, unknown where it was sent and nobody saw its end.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from engine.clock import Clock, new_id
from engine.errors import AIGatewayError
from engine.ledger import Book, CallKind, CallScope, CostSource, Intent, Settlement, Usage
from engine.states import ErrorClass
from engine.token_estimate import BYTES_PER_TOKEN
from providers.errors import ProviderError
from providers.pricing import DEFAULT_MAX_TOKENS, PriceBook
from providers.provider import Answer, AttemptInfo, Chunk, Json, ProviderType
from providers.routing import Candidate, Route
from providers.shapes import as_count, as_object, as_objects
from providers.usage import estimate_prompt_tokens
from providers.wording import Request, Wording

_TEXT_KEYS = ("content", "reasoning_content", "reasoning", "refusal")
_LIMIT_KEYS = (
    "max_completion_tokens",
    "max_tokens",
    "max_output_tokens",
)  # OpenAI's, both, and that of `/v1/responses`
_ERROR_SHOWN = 2000


@dataclass
class Errand:
    """One request on its way through candidates. `attempts` grows as calls end."""

    route: Route
    request: Json | Request
    scope: CallScope
    book: Book
    kind: CallKind
    streamed: bool = False
    attempts: list[AttemptInfo] = field(default_factory=list[AttemptInfo])
    _wordings: dict[ProviderType, Wording] = field(default_factory=dict[ProviderType, Wording])

    @property
    def body(self) -> Json:
        """The request as its client wrote it."""
        return self.request.body if isinstance(self.request, Request) else self.request

    def worded(self, candidate: Candidate) -> Wording:
        """The request as this candidate takes it. Raises: ProviderError where it cannot be carried there."""
        kind = candidate.provider.config.type
        if kind not in self._wordings:
            request = self.request
            self._wordings[kind] = request.word(kind) if isinstance(request, Request) else Wording(request)
        return self._wordings[kind]

    @cached_property
    def prompt_tokens(self) -> int:
        """About how many input tokens the request has."""
        return estimate_prompt_tokens(self.body)

    @property
    def output_limit(self) -> int:
        """The most output tokens that all its choices may have."""
        if self.kind is not CallKind.CHAT:
            return 0
        limits = [as_count(self.body.get(key)) for key in _LIMIT_KEYS]
        limit = next(filter(None, limits), DEFAULT_MAX_TOKENS)
        return limit * max(1, as_count(self.body.get("n")) or 1)


class Received:
    """What has come in of an answer so far."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.reported_picousd: int | None = None
        self.first_us: int | None = None
        self.begun = False
        self._prompt_usage: Usage | None = None
        self._size = 0

    def whole(self, answer: Answer) -> None:
        """Note a whole answer."""
        self.begun = True
        self.usage, self.reported_picousd = answer.usage, answer.reported_cost_picousd
        if answer.native:
            self._size = answer.size
        elif answer.usage is None:
            self._size = sum(
                _size(as_object(choice.get("message"))) for choice in as_objects(answer.body.get("choices"))
            )

    def chunk(self, chunk: Chunk, now_us: int) -> None:
        """Note a chunk of a stream."""
        self.begun = True
        if chunk.has_content:
            self.first_us = self.first_us or now_us
            self._size += chunk.size
            for choice in as_objects(chunk.body.get("choices")):
                self._size += _size(as_object(choice.get("delta")))
        self._prompt_usage = self._prompt_usage or chunk.prompt_usage
        if chunk.usage is not None:
            self.usage = chunk.usage
        if chunk.reported_cost_picousd is not None:
            self.reported_picousd = chunk.reported_cost_picousd

    def estimate(self, prompt_tokens: int) -> Usage:
        """About what has been used so far: the input as told, else `prompt_tokens`; the output as it came in."""
        told = self._prompt_usage or Usage(input=prompt_tokens)
        return replace(told, output=max(told.output, -(-self._size // BYTES_PER_TOKEN)))


class Call:
    """An upstream call whose intent is booked. `end` books its outcome exactly once; `info` and `usage` are set then."""

    def __init__(self, desk: "Desk", errand: Errand, candidate: Candidate, intent: Intent) -> None:
        self._desk = desk
        self._intent = intent
        self.errand = errand
        self.candidate = candidate
        self.received = Received()
        self.info: AttemptInfo | None = None
        self.usage: Usage | None = None

    @property
    def ttft_us(self) -> int | None:
        """From the intent to the first content; None before it."""
        first = self.received.first_us
        return None if first is None else max(0, first - self._intent.at_us)

    async def end(self, error: BaseException | None = None) -> AttemptInfo:
        """Book the outcome, shielded: a cancelled caller leaves it running. A second end changes nothing."""
        if self.info is None:
            settlement = self._settlement(error)
            self.usage = settlement.usage
            self.info = self._as_info(settlement)
            self.errand.attempts.append(self.info)
            if isinstance(error, ProviderError):
                error.provider, error.model = self.candidate.key
                error.attempts = tuple(self.errand.attempts)
            await self._desk.settle(self.errand.book, settlement)
        return self.info

    def _settlement(self, error: BaseException | None) -> Settlement:
        now = self._desk.clock()
        usage, cost, source = self._bill(error)
        return Settlement(
            id=self._intent.id,
            success=error is None,
            usage=usage,
            cost_picousd=cost,
            cost_source=source,
            finished_us=now,
            latency_us=max(0, now - self._intent.at_us),
            ttft_us=self.ttft_us,
            status_code=_status(error),
            error_class=_error_class(error),
            error=None if error is None else _shown(error),
        )

    def _bill(self, error: BaseException | None) -> tuple[Usage | None, int | None, CostSource]:
        config, model, prices = self.candidate.provider.config, self.candidate.model, self._desk.prices
        got = self.received
        if got.usage is not None or got.reported_picousd is not None:
            return got.usage, *prices.cost(config, model, got.usage, reported_picousd=got.reported_picousd)
        if got.begun:
            usage = got.estimate(self.errand.prompt_tokens)
            return usage, *prices.estimate(config, model, usage)
        if isinstance(error, ProviderError) and not error.maybe_billed:
            return None, 0, CostSource.FREE
        return None, *prices.cost(config, model, None)

    def _as_info(self, settlement: Settlement) -> AttemptInfo:
        provider, model = self.candidate.key
        return AttemptInfo(
            id=settlement.id,
            provider=provider,
            model=model,
            success=settlement.success,
            latency_us=settlement.latency_us,
            cost_picousd=settlement.cost_picousd,
            cost_source=settlement.cost_source,
            ttft_us=settlement.ttft_us,
            status_code=settlement.status_code,
            error_class=settlement.error_class,
            error=settlement.error,
        )


class Desk:
    """Opens calls and keeps the bookings of cancelled callers alive until they are done."""

    def __init__(self, prices: PriceBook, clock: Clock) -> None:
        self.prices = prices
        self.clock = clock
        self._running: set[asyncio.Task[None]] = set()

    async def open(self, errand: Errand, candidate: Candidate) -> Call:
        """A call whose intent is durable. Raises: BudgetExceeded, and whatever the book raises."""
        config = candidate.provider.config
        intent = Intent(
            id=new_id(),
            scope=errand.scope,
            kind=errand.kind,
            provider=config.name,
            model=candidate.model,
            requested_model=errand.route.requested,
            streamed=errand.streamed,
            at_us=self.clock(),
            reserve_picousd=self.prices.worst_case(config, candidate.model, errand.prompt_tokens, errand.output_limit),
            reserve_tokens=errand.prompt_tokens + errand.output_limit,
        )
        call = Call(self, errand, candidate, intent)
        opening = self._keep(errand.book.open(intent))
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._keep(self._undo(opening, call))
            raise
        return call

    async def settle(self, book: Book, settlement: Settlement) -> None:
        """Book an outcome; goes on where the caller is cancelled."""
        await asyncio.shield(self._keep(book.settle(settlement)))

    async def drain(self) -> None:
        """Wait for the bookings that cancelled callers left behind: call it before the database is closed."""
        while self._running:
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _undo(self, opening: asyncio.Task[None], call: Call) -> None:
        """The caller left while the intent was being written: if it was, say that nothing was sent."""
        await asyncio.wait([opening])
        if not opening.cancelled() and opening.exception() is None:
            await call.end(ProviderError(ErrorClass.CANCELLED, "Cancelled before the request was sent."))

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task


def _size(message: Json) -> int:
    size = sum(len(text) for key in _TEXT_KEYS if isinstance(text := message.get(key), str))
    for call in as_objects(message.get("tool_calls")):
        function = as_object(call.get("function"))
        size += sum(len(text) for text in function.values() if isinstance(text, str))
    return size


def _status(error: BaseException | None) -> int | None:
    if error is None:
        return 200
    return error.status if isinstance(error, ProviderError) else None


def _error_class(error: BaseException | None) -> ErrorClass | None:
    if error is None:
        return None
    if isinstance(error, ProviderError):
        return error.error_class
    return ErrorClass.CANCELLED if isinstance(error, (asyncio.CancelledError, GeneratorExit)) else ErrorClass.INTERNAL


def _shown(error: BaseException) -> str:
    if isinstance(error, AIGatewayError):
        return error.message[:_ERROR_SHOWN]
    return (str(error) or type(error).__name__)[:_ERROR_SHOWN]
