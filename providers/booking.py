"""Books one upstream call: its intent durable before it is sent, its outcome whatever happens, cancellation included.

What a call costs that did not end well: nothing where the upstream refused it, an estimate of what was received where a
stream had begun, unknown where it was sent and nobody saw its end.
"""

import asyncio

from engine.clock import Clock, new_id
from engine.errors import AIGatewayError
from engine.ledger import Book, CallKind, CostSource, Intent, Settlement, Usage, settle_free
from engine.states import ErrorClass
from providers.bookkeeping import Bookkeeper, may_be_written
from providers.call_spans import as_work
from providers.errand import Errand
from providers.errors import ProviderError
from providers.health import Health
from providers.observed import Observations
from providers.pricing import PriceBook
from providers.provider import AttemptInfo
from providers.received import Received
from providers.routing import Candidate

_ERROR_SHOWN = 2000
_LEFT = (asyncio.CancelledError, GeneratorExit)


class Call:
    """An upstream call whose intent is booked. `end` books its outcome exactly once; `info` and `usage` are set then."""

    def __init__(self, desk: "Desk", errand: Errand, candidate: Candidate, intent: Intent) -> None:
        self._desk = desk
        self.intent = intent
        self.errand = errand
        self.candidate = candidate
        self.received = Received()
        self.info: AttemptInfo | None = None
        self.usage: Usage | None = None

    @property
    def began_us(self) -> int:
        """When its intent was made."""
        return self.intent.at_us

    @property
    def ttft_us(self) -> int | None:
        """From the intent to the first content; None before it."""
        first = self.received.first_us
        return None if first is None else max(0, first - self.intent.at_us)

    async def end(self, error: BaseException | None = None) -> AttemptInfo:
        """Book the outcome, shielded: a cancelled caller leaves it running. A second end changes nothing."""
        if self.info is None:
            settlement = self._settlement(error)
            self.usage = settlement.usage
            self.info = self._as_info(settlement)
            self.errand.attempts.append(self.info)
            self._desk.note(self, settlement, error)
            if isinstance(error, ProviderError):
                error.provider, error.model = self.candidate.key
                error.attempts = tuple(self.errand.attempts)
            await self._desk.settle(self.errand.book, settlement)
        return self.info

    def _settlement(self, error: BaseException | None) -> Settlement:
        now = self._desk.clock()
        usage, cost, source = self._bill(error)
        return Settlement(
            id=self.intent.id,
            success=error is None,
            usage=usage,
            cost_picousd=cost,
            cost_source=source,
            finished_us=now,
            latency_us=max(0, now - self.intent.at_us),
            ttft_us=self.ttft_us,
            status_code=_status(error),
            error_class=_error_class(error),
            error=None if error is None else _shown(error),
        )

    def _bill(self, error: BaseException | None) -> tuple[Usage | None, int | None, CostSource]:
        config, model, prices = self.candidate.provider.config, self.candidate.model, self._desk.prices
        got = self.received
        if self.errand.kind is CallKind.COUNT_TOKENS:
            return None, 0, CostSource.FREE
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
    """Opens calls, keeps the bookings of cancelled callers alive until they are done, and notes how candidates do."""

    def __init__(self, prices: PriceBook, clock: Clock, health: Health, observed: Observations) -> None:
        self.prices = prices
        self.clock = clock
        self._health = health
        self._observed = observed
        self._keeper = Bookkeeper()

    async def open(self, errand: Errand, candidate: Candidate) -> Call:
        """A call whose intent is durable. Raises: BudgetExceeded, and whatever the book raises."""
        call = Call(self, errand, candidate, self._intent(errand, candidate))
        self._observed.began(candidate.key)
        opening: asyncio.Future[None] | None = None
        try:
            opening, written = self._keeper.watch(errand.book.open(call.intent))
            await written
            opening.result()
        except asyncio.CancelledError:
            if opening is not None:
                self._keeper.keep(self._undo(opening, call))
            raise
        except AIGatewayError as error:
            self._observed.ended(candidate.key)
            if may_be_written(error):
                not_sent = settle_free(call.intent, self.clock(), ErrorClass.CONNECTION, f"not sent: {error.message}")
                self._keeper.settle_later(errand.book, not_sent)
            raise
        return call

    def note(self, call: Call, settlement: Settlement, error: BaseException | None) -> None:
        """What the end of a call says about its candidate."""
        candidate, key = call.candidate, call.candidate.key
        self._observed.ended(key)
        if call.errand.scope.span is not None:
            work = as_work(call.errand, candidate, call.intent, call.received, settlement)
            call.errand.scope.span.add(work)
        if error is None:
            self._health.succeeded(candidate, call.began_us)
            took_us = settlement.ttft_us if call.errand.streamed else settlement.latency_us
            if took_us is not None:
                self._observed.measured(key, streamed=call.errand.streamed, seconds=took_us / 1_000_000)
        elif isinstance(error, ProviderError) and error.error_class is not ErrorClass.CANCELLED:
            self._health.failed(candidate, error, call.began_us)
            self._observed.forget(key)

    def _intent(self, errand: Errand, candidate: Candidate) -> Intent:
        config, counts = candidate.provider.config, errand.kind is not CallKind.COUNT_TOKENS
        return Intent(
            id=new_id(),
            scope=errand.scope,
            kind=errand.kind,
            provider=config.name,
            model=candidate.model,
            requested_model=errand.route.requested,
            streamed=errand.streamed,
            at_us=self.clock(),
            reserve_picousd=self._worst_case(errand, candidate) if counts else 0,
            reserve_tokens=errand.prompt_tokens + errand.output_limit if counts else 0,
        )

    def _worst_case(self, errand: Errand, candidate: Candidate) -> int | None:
        config = candidate.provider.config
        return self.prices.worst_case(
            config,
            candidate.model,
            errand.prompt_tokens,
            errand.output_limit,
            for_an_hour=config.type == "anthropic" and errand.caches_for_an_hour,
        )

    async def settle(self, book: Book, settlement: Settlement) -> None:
        """Book an outcome; goes on where the caller is cancelled. Raises: RetryableError where the database is away for too long."""
        await self._keeper.settle(book, settlement)

    async def drain(self) -> None:
        """Wait for the bookings that cancelled callers left behind: call it before the database is closed."""
        await self._keeper.drain()

    async def _undo(self, opening: "asyncio.Future[None]", call: Call) -> None:
        """The caller left while the intent was being written: if it was, say that nothing was sent."""
        await asyncio.wait([opening])
        if not opening.cancelled() and may_be_written(opening.exception()):
            await call.end(ProviderError(ErrorClass.CANCELLED, "Cancelled before the request was sent."))
        else:
            self._observed.ended(call.candidate.key)


def _status(error: BaseException | None) -> int | None:
    if error is None:
        return 200
    return error.status if isinstance(error, ProviderError) else None


def _error_class(error: BaseException | None) -> ErrorClass | None:
    if error is None:
        return None
    if isinstance(error, ProviderError):
        return error.error_class
    return ErrorClass.CANCELLED if isinstance(error, _LEFT) else ErrorClass.INTERNAL


def _shown(error: BaseException) -> str:
    if isinstance(error, AIGatewayError):
        return error.message[:_ERROR_SHOWN]
    if isinstance(error, _LEFT):
        return "the caller left, or was told to stop, before the answer was complete"
    return (str(error) or type(error).__name__)[:_ERROR_SHOWN]
