"""A function that waits for its transaction, and the way its answer goes back to who asked: an event loop, or a waiting thread.

The answers of one group go back together, one call into each loop: a call into a loop writes to its wake-up socket.
"""

import asyncio
import queue
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from engine.errors import AIGatewayError


@dataclass(slots=True, eq=False)
class Asked:
    """`loop` is None for a thread that waits."""

    work: Callable[[Any], Any]
    future: "asyncio.Future[Any] | Future[Any]"
    loop: asyncio.AbstractEventLoop | None = None
    take: Callable[[Any], Any] | None = None  # makes the answer of what `work` returned, where the asker waits

    def given_up(self) -> bool:
        """Whether nobody wants the answer any more; what has begun is finished all the same."""
        return self.future.cancelled()


@dataclass(slots=True, eq=False)
class Answer:
    """What came of an `Asked`: a value, or the error to raise."""

    asked: Asked
    value: Any = None
    error: BaseException | None = None

    def give(self) -> None:
        """To be called where the asker waits. One that gave up meanwhile gets nothing."""
        future = self.asked.future
        if future.cancelled():
            return
        if self.error is not None:
            future.set_exception(self.error)
            return
        try:
            value = self.value if self.asked.take is None else self.asked.take(self.value)
        except AIGatewayError as error:
            future.set_exception(error)
        else:
            future.set_result(value)


Line = queue.SimpleQueue[Asked | None]
"""What waits for a database thread; None ends it."""


def hand_out(answers: Iterable[Answer]) -> None:
    """Give every answer; called on a database thread."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Answer]] = {}
    for answer in answers:
        if answer.asked.loop is None:
            answer.give()
        else:
            by_loop.setdefault(answer.asked.loop, []).append(answer)
    for loop, theirs in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(give_all, theirs)


def give_all(answers: Iterable[Answer]) -> None:
    """The same on the thread of the one loop that all of them wait on."""
    for answer in answers:
        answer.give()
