"""Stands between a server and the library's session and keeps a server from flooding this process.

The session starts a task for every message that a server sends. So notifications that nobody here listens to are
dropped, in bulk they are slowed down (the pipe or socket then holds the server back), and a server that asks without
reading the answers loses its connection. Answers to calls always pass.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio
import mcp_types
from mcp.client._transport import ReadStream, TransportStreams, WriteStream
from mcp.shared.message import SessionMessage

_HEARD = frozenset({"notifications/tools/list_changed"})
_MAX_OPEN_REQUESTS = 64
_BURST = 256
_BURST_PAUSE_S = 0.05


class Sieve:
    """Wraps a transport's two streams; `on_end` is called once the server's side has ended."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self.on_end = on_end
        self.open_requests = 0

    def wrap(self, streams: TransportStreams) -> TransportStreams:
        """The streams for the session."""
        reading, writing = streams
        return _Reading(reading, self), _Writing(writing, self)


class _Reading(ReadStream[SessionMessage | Exception]):
    """The server's messages without the noise."""

    def __init__(self, inner: ReadStream[SessionMessage | Exception], sieve: Sieve) -> None:
        self._inner = inner
        self._sieve = sieve
        self._noise = 0

    async def receive(self) -> SessionMessage | Exception:
        while True:
            try:
                item = await self._inner.receive()
            except (anyio.EndOfStream, anyio.ClosedResourceError):
                self._sieve.on_end()
                raise
            if isinstance(item, SessionMessage) and _is_answer(item):
                return item
            await self._count_noise()
            if isinstance(item, SessionMessage) and self._is_heard(item):
                return item

    async def _count_noise(self) -> None:
        self._noise += 1
        if self._noise % _BURST == 0:
            await asyncio.sleep(_BURST_PAUSE_S)

    def _is_heard(self, item: SessionMessage) -> bool:
        if isinstance(item.message, mcp_types.JSONRPCNotification):
            return item.message.method in _HEARD
        self._sieve.open_requests += 1
        if self._sieve.open_requests > _MAX_OPEN_REQUESTS:
            self._sieve.on_end()
            return False
        return True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(exc_type, exc_val, exc_tb)


class _Writing(WriteStream[SessionMessage]):
    """Counts the answers that the server has taken."""

    def __init__(self, inner: WriteStream[SessionMessage], sieve: Sieve) -> None:
        self._inner = inner
        self._sieve = sieve

    async def send(self, item: SessionMessage, /) -> None:
        await self._inner.send(item)
        if _is_answer(item):
            self._sieve.open_requests -= 1

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(exc_type, exc_val, exc_tb)


def _is_answer(item: SessionMessage) -> bool:
    return isinstance(item.message, mcp_types.JSONRPCResponse | mcp_types.JSONRPCError)
