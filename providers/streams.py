"""An answer being streamed: its chunks for one reader, its booking at the end of it, whoever ends it."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

from engine.clock import Clock
from engine.ledger import CostSource, Usage
from engine.states import ErrorClass
from providers.booking import Call
from providers.errors import ProviderError
from providers.provider import AttemptInfo, Chunk

MAX_HELD_CHUNKS = 10_000  # without any content, more than this is no answer; with it, no more is held back


class OpenStream:
    """Iterate it inside `async with`. A chunk with `usage_only` comes last, after the cost is booked and known.

    Iterating raises ProviderError where the upstream fails in mid-answer; leaving the block early cancels the upstream call
    and books what was received. Known from the start: `provider`, `model`, `dropped`; at the end: `usage`, `cost_picousd`,
    `cost_source`; `attempts` holds the calls that have ended.
    """

    def __init__(self, call: Call, chunks: AsyncGenerator[Chunk, None], *, clock: Clock) -> None:
        self._call = call
        self._chunks = chunks
        self._clock = clock
        self._held: deque[Chunk] = deque()
        self._tail: list[Chunk] = []
        self._ended = False
        self.provider, self.model = call.candidate.key
        self.dropped = call.errand.worded(call.candidate).dropped

    @property
    def attempts(self) -> tuple[AttemptInfo, ...]:
        """The calls that have ended, this one included once it has."""
        return tuple(self._call.errand.attempts)

    @property
    def usage(self) -> Usage | None:
        """What was booked; None before the end."""
        return self._call.usage

    @property
    def cost_picousd(self) -> int | None:
        """The booked cost; None before the end and where it is unknown."""
        return self._call.info.cost_picousd if self._call.info else None

    @property
    def cost_source(self) -> CostSource:
        """Where the cost comes from; UNKNOWN before the end."""
        return self._call.info.cost_source if self._call.info else CostSource.UNKNOWN

    @property
    def ttft_us(self) -> int | None:
        """How long this call took to its first content."""
        return self._call.ttft_us

    async def start(self, hold_back_s: float = 0.0) -> None:
        """Read up to the first content, and on for `hold_back_s` from there, or to the end. Raises: ProviderError, after the call is booked.

        What is held back goes out with the first chunk behind that time: a stream that falls silent meanwhile has told nobody anything.
        """
        free_us: int | None = None
        unended = self._call.errand.choices
        while True:
            chunk = await self._read()
            if chunk is None:
                if not self._held:
                    raise await self._fail("The upstream's stream was empty.")
                return
            self.dropped += chunk.dropped
            self._held.append(chunk)
            if chunk.finish_reason is not None:
                unended -= 1
            if free_us is None and (chunk.has_content or chunk.finish_reason is not None):
                free_us = self._clock() + round(hold_back_s * 1_000_000)
            full = len(self._held) > MAX_HELD_CHUNKS
            if free_us is not None and (full or not unended or not hold_back_s or self._clock() >= free_us):
                return
            if full:
                raise await self._fail("The upstream sends chunks without content.")

    async def aclose(self) -> None:
        """End the upstream call where it still runs and book what was received. Does nothing after the end."""
        if not self._ended:
            await self._end(asyncio.CancelledError("The reader left."))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self._held:
            return self._held.popleft()
        chunk = None if self._ended else await self._read()
        if chunk is not None:
            return chunk
        if self._tail:
            return self._tail.pop(0)
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _read(self) -> Chunk | None:
        """The next chunk with choices, or None when the answer is whole and booked."""
        while True:
            try:
                chunk = await anext(self._chunks, None)
            except BaseException as error:
                await self._end(error)
                raise
            if chunk is None:
                await self._end(None)
                return None
            self._call.received.chunk(chunk, self._clock)
            if not chunk.usage_only:
                return chunk
            self._tail.append(chunk)

    async def _fail(self, message: str) -> ProviderError:
        error = ProviderError.unseen(ErrorClass.SERVER_ERROR, message)
        await self._end(error)
        return error

    async def _end(self, error: BaseException | None) -> None:
        """Book first: closing the connection may be cut short, the booking may not."""
        self._ended = True
        try:
            await self._call.end(error)
        finally:
            await self._chunks.aclose()
