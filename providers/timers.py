"""The three timers that run while an upstream works: first content, idle, total (the fourth, connect, is the HTTP client's)."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from typing import TypeVar

from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.provider import Chunk, Timeouts

Result = TypeVar("Result")


async def whole(call: Awaitable[Result], timeouts: Timeouts) -> Result:
    """The result of `call` within the total time. Raises: ProviderError(timeout)."""
    try:
        async with asyncio.timeout(timeouts.total_s):
            return await call
    except TimeoutError as error:
        raise _late(f"no answer within {timeouts.total_s:g} s") from error


async def paced(chunks: AsyncGenerator[Chunk, None], timeouts: Timeouts) -> AsyncGenerator[Chunk, None]:
    """`chunks` with a deadline for each. Role-only chunks do not stop the first-content timer. Raises: ProviderError(timeout)."""
    now = asyncio.get_running_loop().time
    end = now() + timeouts.total_s
    deadline, why = _sooner(now() + timeouts.first_content_s, end, f"no content within {timeouts.first_content_s:g} s")
    started = False
    try:
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    chunk = await anext(chunks, None)
            except TimeoutError as error:
                raise _late(why) from error
            if chunk is None:
                return
            started = started or chunk.has_content or chunk.finish_reason is not None
            yield chunk
            if started:
                deadline, why = _sooner(now() + timeouts.idle_s, end, f"silent for {timeouts.idle_s:g} s in mid-answer")
    finally:
        await chunks.aclose()


def _sooner(deadline: float, end: float, why: str) -> tuple[float, str]:
    return (deadline, why) if deadline < end else (end, "not done within its total time")


def _late(why: str) -> ProviderError:
    return ProviderError.unseen(ErrorClass.TIMEOUT, f"The upstream took too long: {why}.")
