"""The three timers that run while an upstream works: first content, idle, total (the fourth, connect, is the HTTP client's)."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from types import TracebackType
from typing import Any, Self, TypeVar

from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.provider import Chunk, Timeouts

Result = TypeVar("Result")


async def whole(call: Awaitable[Result], timeouts: Timeouts) -> Result:
    """The result of `call` within the total time. Raises: ProviderError(timeout)."""
    loop = asyncio.get_running_loop()
    watch = _Watch(loop)
    try:
        with watch.until(loop.time() + timeouts.total_s):
            return await call
    except TimeoutError as error:
        raise _late(f"no answer within {timeouts.total_s:g} s") from error
    finally:
        watch.close()


async def paced(chunks: AsyncGenerator[Chunk, None], timeouts: Timeouts) -> AsyncGenerator[Chunk, None]:
    """`chunks` with a deadline for each. Role-only chunks do not stop the first-content timer. Raises: ProviderError(timeout)."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    end = start + timeouts.total_s
    deadline, why = _sooner(start + timeouts.first_content_s, end, f"no content within {timeouts.first_content_s:g} s")
    idle = f"silent for {timeouts.idle_s:g} s in mid-answer"
    watch = _Watch(loop)
    started = False
    try:
        while True:
            try:
                with watch.until(deadline):
                    chunk = await anext(chunks, None)
            except TimeoutError as error:
                raise _late(why) from error
            if chunk is None:
                return
            started = started or chunk.has_content or chunk.finish_reason is not None
            yield chunk
            if started:
                deadline, why = _sooner(loop.time() + timeouts.idle_s, end, idle)
    finally:
        watch.close()
        await chunks.aclose()


class _Watch:
    """asyncio.timeout for waiting again and again: one timer for all of it, set anew only where it goes off too early."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._waiting: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._late = False

    def until(self, deadline: float) -> Self:
        """For a `with` block whose body raises TimeoutError where it is not done by then (loop time)."""
        self._deadline = deadline
        return self

    def __enter__(self) -> None:
        task = asyncio.current_task(self._loop)  # finding the loop would cost more than all else here
        assert task is not None
        self._waiting, self._cancelling = task, task.cancelling()
        if self._timer is None or self._timer.when() > self._deadline:
            self._set()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        task, self._waiting = self._waiting, None
        if self._late:
            self._late = False
            assert task is not None
            # As asyncio.timeout has it: whoever else cancelled the task meanwhile is not to be overheard.
            if task.uncancel() <= self._cancelling and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError from error

    def close(self) -> None:
        """Nothing is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self) -> None:
        self.close()
        self._timer = self._loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._waiting is None:
            return  # the next wait sets it
        if self._loop.time() < self._deadline:
            self._set()
        else:
            self._late = True
            self._waiting.cancel()


def _sooner(deadline: float, end: float, why: str) -> tuple[float, str]:
    return (deadline, why) if deadline < end else (end, "not done within its total time")


def _late(why: str) -> ProviderError:
    return ProviderError.unseen(ErrorClass.TIMEOUT, f"The upstream took too long: {why}.")
