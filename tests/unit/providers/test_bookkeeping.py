"""Bookings go on while the database is away: the answer waits a while, the booking until it is taken, the end not for ever."""

import asyncio

import pytest
from budget_hand import settlement
from upstreams.book import MemoryBook

from engine.errors import BudgetExceeded, LimitExceeded, RetryableError
from engine.ledger import Settlement
from providers.bookkeeping import Bookkeeper, may_be_written

DONE = settlement("call", 1, 7)
AWAY = RetryableError("database_unavailable", "away")


class LateBook(MemoryBook):
    """Takes nothing until `there` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.there = asyncio.Event()
        self.tries = 0
        self.asked = asyncio.Event()
        self.taken = asyncio.Event()

    async def settle(self, settlement: Settlement) -> None:
        self.tries += 1
        self.asked.set()
        if not self.there.is_set():
            raise AWAY
        self.taken.set()


def test_the_answer_waits_for_a_while_and_the_booking_goes_on() -> None:
    async def play() -> None:
        book, keeper = LateBook(), Bookkeeper(answer_waits_s=0.05)
        with pytest.raises(RetryableError):
            await keeper.settle(book, DONE)
        book.there.set()
        await asyncio.wait_for(book.taken.wait(), 5)
        assert book.tries >= 2

    asyncio.run(play())


def test_an_outcome_is_durable_when_settle_returns() -> None:
    async def play() -> None:
        book, keeper = LateBook(), Bookkeeper(answer_waits_s=30)
        waiting = asyncio.ensure_future(keeper.settle(book, DONE))
        await book.asked.wait()
        assert not waiting.done()
        book.there.set()
        await asyncio.wait_for(waiting, 5)
        assert book.taken.is_set()

    asyncio.run(play())


def test_a_caller_that_is_cancelled_leaves_its_booking_running() -> None:
    async def play() -> None:
        book, keeper = LateBook(), Bookkeeper(answer_waits_s=30, drain_s=5)
        waiting = asyncio.ensure_future(keeper.settle(book, DONE))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        book.there.set()
        await keeper.drain()
        assert book.taken.is_set()

    asyncio.run(play())


def test_the_end_of_the_process_does_not_wait_for_ever() -> None:
    async def play() -> None:
        book, keeper = LateBook(), Bookkeeper(drain_s=0.05)
        booking = keeper.settle_later(book, DONE)
        await asyncio.wait_for(keeper.drain(), 5)
        await asyncio.wait([booking], timeout=5)
        assert booking.cancelled()

    asyncio.run(play())


def test_only_a_lost_answer_leaves_an_intent_in_doubt() -> None:
    limited = LimitExceeded("too many", retry_after_s=1, unit="requests", limit=1, remaining=0)
    assert may_be_written(None)
    assert may_be_written(AWAY)
    assert not may_be_written(limited)
    assert not may_be_written(BudgetExceeded("too dear"))
