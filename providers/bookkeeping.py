"""Bookings under way: what has been paid for is written however long the database is away, whoever has left meanwhile.

An answer waits for its booking ("answered means booked"), but not for ever; the booking itself goes on for as long as the
process lives. A call whose outcome was never written stays open in the ledger, and becomes `unknown` when its process ends.
"""

import asyncio
import time
from collections.abc import Awaitable

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

    def keep(self, work: Awaitable[None]) -> "asyncio.Future[None]":
        """Let it go on to its end, whatever becomes of who asked."""
        running = asyncio.ensure_future(work)
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return running

    async def settle(self, book: Book, settlement: Settlement) -> None:
        """Return when the outcome is durable. Raises: RetryableError where the database is away for too long; trying goes on."""
        deadline = time.monotonic() + self._answer_waits_s
        booking = self.keep(book.settle(settlement))  # by itself where it is taken at once, as almost all are
        try:
            done, _ = await asyncio.wait([booking], timeout=self._answer_waits_s)
        except asyncio.CancelledError:
            self.keep(_insist(book, settlement, booking))
            raise
        if not done or isinstance(booking.exception(), RetryableError):
            booking = self.keep(_insist(book, settlement, booking))
            done, _ = await asyncio.wait([booking], timeout=max(0.0, deadline - time.monotonic()))
        if not done:
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
