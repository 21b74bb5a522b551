"""Bookings under way: what has been paid for is written however long the database is away, whoever has left meanwhile.

An answer waits for its booking ("answered means booked"), but not for ever; the booking itself goes on for as long as the
process lives. A call whose outcome was never written stays open in the ledger, and becomes `unknown` when its process ends.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable
from functools import partial

import structlog

from engine.errors import LimitExceeded, RetryableError
from engine.ledger import Book, Settlement

ANSWER_WAITS_S = 60.0
DRAIN_S = 10.0
_PAUSE_S = 0.2

log = structlog.get_logger(__name__)


class Bookkeeper:
    """One for a process."""

    def __init__(self, *, answer_waits_s: float = ANSWER_WAITS_S, drain_s: float = DRAIN_S) -> None:
        self._answer_waits_s = answer_waits_s
        self._drain_s = drain_s
        self._running: set[asyncio.Future[None]] = set()
        self._patience = _Patience(answer_waits_s)

    def keep(self, work: Awaitable[None]) -> "asyncio.Future[None]":
        """Let it go on to its end, whatever becomes of who asked."""
        running = asyncio.ensure_future(work)
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return running

    def watch(self, work: Awaitable[None]) -> "tuple[asyncio.Future[None], asyncio.Future[None]]":
        """`keep`, and a future that is done when the work is, however that ended: who waits for it may be cancelled.

        What asyncio.shield is for, with one future less: every call waits so twice.
        """
        running = asyncio.ensure_future(work)
        seen: asyncio.Future[None] = running.get_loop().create_future()
        self._running.add(running)
        running.add_done_callback(partial(self._over, seen))
        return running, seen

    def _over(self, seen: "asyncio.Future[None]", running: "asyncio.Future[None]") -> None:
        self._running.discard(running)
        if not seen.done():
            seen.set_result(None)

    async def settle(self, book: Book, settlement: Settlement) -> None:
        """Return when the outcome is durable. Raises: RetryableError where the database is away for too long; trying goes on."""
        deadline = time.monotonic() + self._answer_waits_s
        booking, seen = self.watch(book.settle(settlement))  # by itself where it is taken at once, as almost all are
        self._patience.end_in_time(seen)
        try:
            await seen
        except asyncio.CancelledError:
            self.keep(_insist(book, settlement, booking))
            raise
        if not booking.done() or isinstance(booking.exception(), RetryableError):
            booking = self.keep(_insist(book, settlement, booking))
            await asyncio.wait([booking], timeout=max(0.0, deadline - time.monotonic()))
        if not booking.done():
            message = "the upstream has answered, but the database has not taken the call's cost; it is tried on"
            raise RetryableError("database_unavailable", message)
        booking.result()

    def settle_later(self, book: Book, settlement: Settlement) -> "asyncio.Future[None]":
        """The same for an outcome that nobody waits for."""
        return self.keep(_insist(book, settlement))

    async def drain(self) -> None:
        """Wait for what is under way, but no longer than a process that is told to end may take. Call it before the database is closed."""
        if self._running:
            await asyncio.wait(self._running, timeout=self._drain_s)
        for left in self._running:
            left.cancel()
        if self._running:
            log.error("calls were not booked: the database is away", action="drain", calls=len(self._running))


class _Patience:
    """Ends waits after the same time each, with one timer for all of them."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._waits: deque[tuple[float, asyncio.Future[None]]] = deque()  # by their ends
        self._timer: asyncio.TimerHandle | None = None

    def end_in_time(self, wait: "asyncio.Future[None]") -> None:
        """`wait` is done after that time at the latest."""
        loop = wait.get_loop()
        while self._waits and self._waits[0][1].done():
            self._waits.popleft()
        self._waits.append((loop.time() + self._wait_s, wait))
        if self._timer is None:
            self._timer = loop.call_at(self._waits[0][0], self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waits and (self._waits[0][1].done() or self._waits[0][0] <= loop.time()):
            wait = self._waits.popleft()[1]
            if not wait.done():
                wait.set_result(None)
        self._timer = loop.call_at(self._waits[0][0], self._ring, loop) if self._waits else None


def may_be_written(error: BaseException | None) -> bool:
    """Whether an intent whose writing ended so may be in the ledger: the database's answer was lost, or nothing went wrong."""
    return error is None or (isinstance(error, RetryableError) and not isinstance(error, LimitExceeded))


async def _insist(book: Book, settlement: Settlement, tried: Awaitable[None] | None = None) -> None:
    """Until it is taken; safe to repeat, the first settlement stands. `tried` is a try under way. Raises what is no use to repeat."""
    refused = False
    while True:
        try:
            await (tried or book.settle(settlement))
        except RetryableError as error:
            tried = None
            if not refused:
                log.warning("call not booked yet", action="settle", call=settlement.id, error=error.message)
            refused = True
            await asyncio.sleep(_PAUSE_S)
        else:
            return
