"""One live session with one server. A task of its own enters and leaves the library's client, which insists on that,
and takes the blows: whatever breaks in there ends this connection and reaches callers as `ToolError`, nothing else.

Imports the `mcp` library (over a second): reached through `link.py`, which loads it in a thread on first use.
"""

import asyncio
import importlib.metadata
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import mcp_types
from mcp import Client, MCPError
from mcp.client.session import IncomingMessage
from pydantic import TypeAdapter

from engine.states import ErrorClass
from mcp_bridge.errors import Fault, ToolError, fault_of
from mcp_bridge.http import HttpTransport
from mcp_bridge.servers import McpServerConfig
from mcp_bridge.sieve import Sieve
from mcp_bridge.stdio import StdioTransport

T = TypeVar("T")
Answer = mcp_types.CallToolResult | mcp_types.InputRequiredResult

_ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)
_MAX_PAGES = 50
_MAX_TOOLS = 5_000
_CLOSE_TIMEOUT_S = 8.0
_LAST_ANSWER_S = 0.05
_EPITAPH_WAIT_S = 1.0

for _name in ("client", "mcp.client", "mcp.shared"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # a hostile server would fill the log; callers get the error


class Connection:
    """Opens once, serves any number of calls at the same time, ends once."""

    def __init__(
        self,
        config: McpServerConfig,
        environment: Mapping[str, str],
        *,
        max_message_bytes: int,
        on_tools_changed: Callable[[], None],
    ) -> None:
        self._config = config
        self._subject = f"MCP server {config.name!r}"
        self._transport = (
            StdioTransport(config, environment, max_line_bytes=max_message_bytes)
            if config.command is not None
            else HttpTransport(config, max_message_bytes=max_message_bytes)
        )
        self._on_tools_changed = on_tools_changed
        self._client = self._new_client()
        self._abandoned: set[asyncio.Task[Any]] = set()
        loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = loop.create_future()
        self._ending = asyncio.Event()
        self.closed: asyncio.Future[Fault] = loop.create_future()
        self.answered = False
        self._owner = asyncio.create_task(self._own(), name=f"mcp {config.name}")

    @property
    def alive(self) -> bool:
        """Whether calls can be sent."""
        return self._opened.done() and not self._ending.is_set() and not self._transport.gone()

    @property
    def protocol_version(self) -> str:
        """What both sides agreed on."""
        return self._client.protocol_version

    @property
    def server_info(self) -> tuple[str, str] | None:
        """Name and version as the server gives them; newer servers need not."""
        info = self._client.server_info
        return (info.name, info.version) if info else None

    async def open(self) -> None:
        """Waits until the server has answered, at most its connect timeout.

        Raises:
            ToolError: the server cannot be started or reached, or stays mute. `sent` is False.
        """
        try:
            await asyncio.wait(
                {self._opened, self.closed},
                timeout=self._config.connect_timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            if not self._opened.done():
                self._owner.cancel()
        if self._opened.done():
            return
        if self.closed.done():
            fault = self.closed.result()
            message = f"{self._subject} cannot be used: {self._explained(fault)}"
            raise ToolError(fault.error_class, message, retry_after_s=fault.retry_after_s, sent=False)
        fault = Fault(ErrorClass.TIMEOUT, f"did not answer within {self._config.connect_timeout_s:g} s of connecting")
        raise ToolError(fault.error_class, f"{self._subject} {self._explained(fault)}", sent=False)

    async def list_tools(self) -> list[mcp_types.Tool]:
        """All tools, page by page.

        Raises:
            ToolError: the server fails, hangs or never stops giving pages.
        """
        return await self._race(self._list(), self._config.connect_timeout_s, self._subject)

    async def call(self, tool: str, params: Mapping[str, Any], *, timeout_s: float) -> mcp_types.CallToolResult:
        """One call. Cancelling it, or its timeout, is told to the server without waiting for it.

        Raises:
            ToolError: everything but an answer. An answer that says `is_error` is returned.
        """
        subject = f"MCP tool {self._config.name}/{tool}"
        answer = await self._race(self._call(tool, params), timeout_s, subject)
        self.answered = True
        if isinstance(answer, mcp_types.InputRequiredResult):
            raise ToolError(ErrorClass.TOOL_ERROR, f"{subject}: it asks for input that nobody here can give")
        return answer

    def abandon(self) -> None:
        """Ends the connection soon, without waiting."""
        self._ending.set()

    async def close(self) -> None:
        """Ends the connection and its server; waits a few seconds at most."""
        self._ending.set()
        if not self._opened.done():
            self._owner.cancel()
        await asyncio.wait({self._owner}, timeout=_CLOSE_TIMEOUT_S)

    def _new_client(self) -> Client:
        return Client(
            _Sieved(self._transport, Sieve(self.abandon)),
            message_handler=self._hear,
            client_info=mcp_types.Implementation(name="aigateway", version=importlib.metadata.version("aigateway")),
            cache=None,  # the catalogue is kept, with its age, in link.py
        )

    async def _hear(self, message: IncomingMessage) -> None:
        """The sieve lets one kind of notification through: the list of tools has changed."""
        self._on_tools_changed()

    async def _own(self) -> None:
        """The only task that enters and leaves the client."""
        fault = Fault(ErrorClass.CONNECTION, "the connection ended")
        try:
            async with self._client:
                self._opened.set_result(None)
                await self._ending.wait()
        except asyncio.CancelledError:
            pass  # the top of this task: cancelled while connecting, or an echo of an error inside the library
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - task top; the fault is handed to callers
            fault = fault_of(error)
        finally:
            self._ending.set()
            self.closed.set_result(fault)

    async def _list(self) -> list[mcp_types.Tool]:
        tools: list[mcp_types.Tool] = []
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            page = await self._client.list_tools(cursor=cursor)
            tools += page.tools
            cursor = page.next_cursor
            if cursor is None:
                return tools
            if len(tools) > _MAX_TOOLS:
                break
        raise ToolError(ErrorClass.SERVER_ERROR, f"{self._subject}: its list of tools does not end")

    async def _call(self, tool: str, params: Mapping[str, Any]) -> Answer:
        """Sends the request itself rather than by `Client.call_tool`, which checks the answer against a schema that
        the server chose: a pattern in it could keep the event loop busy for ever."""
        request = mcp_types.CallToolRequest(params=mcp_types.CallToolRequestParams(name=tool, arguments=dict(params)))
        try:
            return await self._client.session.send_request(request, _ANSWER)
        except MCPError as error:
            if error.code != mcp_types.HEADER_MISMATCH:
                raise
        await self._list()  # the server wants arguments repeated in headers, as the tool's schema says; list and resend
        return await self._client.session.send_request(request, _ANSWER)

    async def _race(self, work: Coroutine[Any, Any, T], timeout_s: float, subject: str) -> T:
        """Runs work in a task of its own: the library may take seconds to let go, and may cancel what it did not
        start."""
        task = asyncio.create_task(work)
        try:
            await asyncio.wait({task, self.closed}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if self.closed.done() and not task.done():
                await asyncio.wait({task}, timeout=_LAST_ANSWER_S)
        finally:
            if not task.done():
                self._let_go(task)
        if not task.done() and not self.closed.done():
            raise ToolError(ErrorClass.TIMEOUT, f"{subject}: no answer within {round(timeout_s, 2):g} s")
        error = self._error_of(task)
        if error is None:
            return task.result()
        if isinstance(error, ToolError):
            raise error
        raise await self._explain(error, subject)

    def _error_of(self, task: "asyncio.Task[Any]") -> BaseException | None:
        if not task.done() or task.cancelled():
            return asyncio.CancelledError()
        return task.exception()

    async def _explain(self, error: BaseException, subject: str) -> ToolError:
        """The error for the caller; a broken connection is given a moment to say why."""
        fault = fault_of(error)
        if fault.session_lost:
            self.abandon()
        elif fault.error_class is ErrorClass.CONNECTION and self._config.command is not None:
            self.abandon()
            await asyncio.wait({self.closed}, timeout=_EPITAPH_WAIT_S)
            fault = Fault(fault.error_class, self._explained(fault))
        elif isinstance(error, asyncio.CancelledError) and self.closed.done():
            fault = self.closed.result()
        return fault.as_error(subject)

    def _explained(self, fault: Fault) -> str:
        told = self._redacted(self._transport.epitaph())
        return f"{self._redacted(fault.message)} ({told})" if told else self._redacted(fault.message)

    def _redacted(self, text: str) -> str:
        """Servers print their keys; messages are stored and shown."""
        for secret in (*self._config.env.values(), *self._config.headers.values()):
            if len(secret) >= 8:
                text = text.replace(secret, "***")
        return text

    def _let_go(self, task: "asyncio.Task[Any]") -> None:
        task.cancel()
        self._abandoned.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # seen, so that asyncio does not print it


class _Sieved:
    """A transport whose streams go through a sieve."""

    def __init__(self, inner: StdioTransport | HttpTransport, sieve: Sieve) -> None:
        self._inner = inner
        self._sieve = sieve

    async def __aenter__(self) -> Any:
        return self._sieve.wrap(await self._inner.__aenter__())

    async def __aexit__(self, *error: object) -> None:
        await self._inner.__aexit__(*error)
