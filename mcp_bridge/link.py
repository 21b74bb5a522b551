"""Keeps one server usable: connects when it is needed, connects again after a death, and remembers its tools.

A server that dies or cannot be started again and again is left alone for a growing pause, at most half a minute, in
which calls fail at once and say so. Owns at most one connection at a time; used from one event loop.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from engine.states import ErrorClass
from mcp_bridge.calls import ToolResult, value_of
from mcp_bridge.catalogue import Tool, tool_of
from mcp_bridge.errors import ToolError
from mcp_bridge.servers import McpServerConfig

if TYPE_CHECKING:
    from mcp_bridge.connection import Connection

T = TypeVar("T")

_FREE_FAILURES = 2
_MAX_PAUSE_S = 30.0
_SKIP_S = 30.0
_ENVELOPE_FACTOR = 3
_MUTE_CALLS = 3


@dataclass(frozen=True, slots=True)
class ServerState:
    """How a server stands. `idle`: nobody has needed it yet; `failed`: `error` says why, the next call tries again."""

    name: str
    transport: str
    status: Literal["connected", "idle", "failed"]
    error: str | None
    tools: int | None
    protocol_version: str | None
    server_name: str | None
    server_version: str | None
    restarts: int


class ServerLink:
    """One configured server, whatever becomes of its process or its address."""

    def __init__(self, config: McpServerConfig, environment: Mapping[str, str], *, max_result_bytes: int) -> None:
        self.config = config
        self.tools_known: dict[str, Tool] = {}
        self._environment = environment
        self._max_result_bytes = max_result_bytes
        self._connection: Connection | None = None
        self._not_ended: set[Connection] = set()
        self._opening: asyncio.Task[Connection] | None = None
        self._listing: asyncio.Task[None] | None = None
        self._listed_at: float | None = None
        self._starts = 0
        self._failures = 0
        self._mute_calls = 0
        self._in_flight = 0
        self._callers = 0
        self._unused = asyncio.Event()
        self._unused.set()
        self._retry_at = 0.0
        self._unreachable_until = 0.0
        self._error: str | None = None
        self._closing = False

    @property
    def status(self) -> Literal["connected", "idle", "failed"]:
        """See `ServerState`."""
        if self._error is not None:
            return "failed"
        return "connected" if self._connection is not None and self._connection.alive else "idle"

    @property
    def lately_unreachable(self) -> bool:
        """Whether connecting failed within the last half minute: who only looks around need not wait for it again."""
        return _now() < self._unreachable_until

    @property
    def error(self) -> str | None:
        """The last failure, until something works again."""
        return self._error

    def state(self) -> ServerState:
        """Where it stands now; connects nothing."""
        live = self._connection if self._connection is not None and self._connection.alive else None
        info = live.server_info if live else None
        return ServerState(
            name=self.config.name,
            transport=self.config.transport,
            status=self.status,
            error=self._error,
            tools=len(self.tools_known) if self._listed_at is not None else None,
            protocol_version=live.protocol_version if live else None,
            server_name=info[0] if info else None,
            server_version=info[1] if info else None,
            restarts=max(0, self._starts - 1),
        )

    async def refresh(self, *, max_age_s: float) -> None:
        """Brings `tools_known` up to date, connecting where needed.

        Raises:
            ToolError: the server cannot be reached or does not list its tools.
        """
        connection = await self._connected(None)
        if self._listed_at is not None and _now() - self._listed_at <= max_age_s:
            return
        if self._listing is None or self._listing.done():
            self._listing = asyncio.create_task(self._list(connection))
            self._listing.add_done_callback(_seen)
        listing = self._listing
        await asyncio.wait({listing})  # shared by all who ask meanwhile, and bounded by itself
        listing.result()

    async def call(self, tool: str, params: Mapping[str, Any], *, timeout_s: float | None) -> ToolResult:
        """One call; `timeout_s` bounds it with connecting, else each has its configured timeout.

        A session that the server has forgotten is opened anew and the call, which did not run, sent again, once.

        Raises:
            ToolError: see `errors.py`.
        """
        deadline = None if timeout_s is None else _now() + timeout_s
        self._callers += 1
        self._unused.clear()
        try:
            return await self._call_somehow(tool, params, deadline)
        finally:
            self._callers -= 1
            if self._callers == 0:
                self._unused.set()

    async def retire(self) -> None:
        """Lets the calls that are under way end, and then the server: it is configured no longer, or otherwise."""
        await self._unused.wait()
        await self.close()

    async def close(self) -> None:
        """Ends the connection, and those that are still on their way out; later calls fail."""
        self._closing = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        await asyncio.gather(*(connection.close() for connection in self._not_ended))
        if self._listing is not None:
            await asyncio.wait({self._listing})

    async def _call_somehow(self, tool: str, params: Mapping[str, Any], deadline: float | None) -> ToolResult:
        connection = await self._connected(deadline)
        try:
            return await self._call(connection, tool, params, deadline)
        except ToolError as error:
            if error.sent or connection.alive:
                raise
        return await self._call(await self._connected(deadline), tool, params, deadline)

    async def _list(self, connection: "Connection") -> None:
        listed = await self._watched(connection.list_tools())
        self.tools_known = {tool.name: tool_of(self.config.name, tool) for tool in listed}
        self._listed_at = _now()

    async def _call(
        self, connection: "Connection", tool: str, params: Mapping[str, Any], deadline: float | None
    ) -> ToolResult:
        left = self.config.call_timeout_s if deadline is None else max(0.0, deadline - _now())
        self._in_flight += 1
        try:
            answer = await self._watched(connection.call(tool, params, timeout_s=left))
        except ToolError as error:
            self._note_silence(connection, error)
            raise
        finally:
            self._in_flight -= 1
        self._failures = self._mute_calls = 0
        subject = f"MCP tool {self.config.name}/{tool}"
        value = value_of(answer, subject=subject, max_bytes=self._max_result_bytes)
        return ToolResult(server=self.config.name, tool=tool, value=value)

    def _note_silence(self, connection: "Connection", error: ToolError) -> None:
        """A server that let several calls run out, one after the other, and answered none is started again."""
        self._mute_calls = self._mute_calls + 1 if error.error_class is ErrorClass.TIMEOUT else 0
        if self._mute_calls >= _MUTE_CALLS and self._in_flight == 1:
            self._mute_calls = 0
            connection.abandon()

    async def _watched(self, work: Coroutine[Any, Any, T]) -> T:
        """Notes whether the server is reachable, for its state and for routing."""
        try:
            result = await work
        except ToolError as error:
            if error.error_class is ErrorClass.CONNECTION:
                self._error = error.message
            raise
        self._error = None
        return result

    async def _connected(self, deadline: float | None) -> "Connection":
        """The living connection, or a new one. Callers that come together share one attempt."""
        if self._connection is not None and self._connection.alive:
            return self._connection
        if self._opening is None or self._opening.done():
            self._refuse_in_pause()
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(_seen)
        opening = self._opening
        await asyncio.wait({opening}, timeout=None if deadline is None else max(0.0, deadline - _now()))
        if not opening.done():
            message = f"MCP server {self.config.name!r} did not answer in time"
            raise ToolError(ErrorClass.TIMEOUT, message, sent=False)
        if opening.cancelled():
            raise self._closed_error()
        return opening.result()

    def _refuse_in_pause(self) -> None:
        if self._closing:
            raise self._closed_error()
        pause_s = self._retry_at - _now()
        if pause_s > 0:
            raise ToolError(
                ErrorClass.CONNECTION,
                f"MCP server {self.config.name!r} failed {self._failures} times in a row and is tried again in "
                f"{pause_s:.0f} s; last: {self._error}",
                retry_after_s=pause_s,
                sent=False,
            )

    def _closed_error(self) -> ToolError:
        return ToolError(ErrorClass.CONNECTION, f"MCP server {self.config.name!r}: the bridge is closed", sent=False)

    async def _open(self) -> "Connection":
        connection = (await asyncio.to_thread(_load))(
            self.config,
            self._environment,
            max_message_bytes=_ENVELOPE_FACTOR * self._max_result_bytes,  # a result may come twice, as data and as text
            on_tools_changed=self._forget_list,
        )
        self._not_ended.add(connection)
        connection.closed.add_done_callback(lambda _: self._not_ended.discard(connection))
        try:
            await connection.open()
        except ToolError as error:
            self._note_failure(error.message)
            self._unreachable_until = _now() + _SKIP_S
            raise
        self._error = None
        self._unreachable_until = 0.0
        self._listed_at = None
        self._starts += 1
        self._connection = connection
        connection.closed.add_done_callback(lambda closed: self._note_end(connection, closed.result().message))
        return connection

    def _forget_list(self) -> None:
        self._listed_at = None

    def _note_end(self, connection: "Connection", message: str) -> None:
        if not self._closing and not connection.answered:
            self._note_failure(self._error or f"MCP server {self.config.name!r}: {message}")

    def _note_failure(self, message: str) -> None:
        self._error = message
        self._failures += 1
        excess = self._failures - _FREE_FAILURES
        self._retry_at = _now() + min(_MAX_PAUSE_S, 2.0 ** (excess - 1)) if excess > 0 else 0.0


def _load() -> "type[Connection]":
    """In a thread: importing the library takes more than a second, and the event loop has other work."""
    from mcp_bridge.connection import Connection  # noqa: PLC0415 - slow import, paid only where servers are configured

    return Connection


def _seen(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()


def _now() -> float:
    return asyncio.get_running_loop().time()
