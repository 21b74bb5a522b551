"""A server as a child process: starts it under a guard, carries messages over its stdin and stdout, ends it.

Takes the place of the library's own stdio transport, which reads lines of any length, inherits stderr, logs every
line of garbage with a traceback, and cannot end a server whose parent was killed. Wire format: one JSON-RPC message
a line, https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#stdio.
"""

import asyncio
import contextlib
import re
import select
from collections.abc import Mapping

import anyio
import mcp_types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage

from engine.states import ErrorClass
from mcp_bridge.errors import Fault
from mcp_bridge.guard import Guard
from mcp_bridge.lines import LastWords, LineSplitter, Oversized
from mcp_bridge.servers import McpServerConfig

_CHUNK_BYTES = 65_536
_WRITE_TIMEOUT_S = 30.0
_EXIT_GRACE_S = 2.0
_TERM_GRACE_S = 1.0
_PIPE_GRACE_S = 0.5
_EXIT_POLL_S = 0.01
_WATCH_S = 0.5
_ID_FIRST = re.compile(rb'^\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d+)\s*,')
_ID_LAST = re.compile(rb'"id"\s*:\s*(\d+)\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')


class StdioTransport:
    """One life of one server process, as an async context manager that gives the library its two streams."""

    def __init__(self, config: McpServerConfig, environment: Mapping[str, str], *, max_line_bytes: int) -> None:
        self._config = config
        self._environment = {**environment, **config.env}
        self._max_line_bytes = max_line_bytes
        self._stack = contextlib.AsyncExitStack()
        self._stderr = LastWords()
        self._garbage: str | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> TransportStreams:
        """Starts the server.

        Raises:
            OSError: the program or the working directory is missing, or may not be used.
        """
        async with contextlib.AsyncExitStack() as stack:
            process = await self._start(stack)
            to_session, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
            write_stream, from_session = anyio.create_memory_object_stream[SessionMessage](0)
            for stream in (to_session, read_stream, write_stream, from_session):
                stack.callback(stream.close)
            pumps = [
                asyncio.create_task(self._read(process, to_session)),
                asyncio.create_task(self._write(process, from_session, to_session)),
                asyncio.create_task(self._listen(process)),
                asyncio.create_task(self._watch(process, to_session)),
            ]
            stack.push_async_callback(self._end, process, pumps)
            self._stack = stack.pop_all()
        return read_stream, write_stream

    async def __aexit__(self, *_: object) -> None:
        """Ends the server and all that it started; takes at most about three seconds and a half."""
        await self._stack.aclose()

    def gone(self) -> bool:
        """Whether nobody is left to read what would be sent: known the moment a server dies, before its end is read."""
        process = self._process
        if process is None or process.stdin is None or process.returncode is not None:
            return True
        pipe = process.stdin.transport.get_extra_info("pipe")
        if pipe is None or pipe.closed:  # None: this kind of event loop does not show it
            return pipe is not None
        poll = select.poll()
        poll.register(pipe.fileno(), 0)  # errors and hang-ups are always reported
        return bool(poll.poll(0))

    def epitaph(self) -> str:
        """Why it ended, as far as can be told from outside: exit code and last words. Empty while it lives."""
        process = self._process
        if process is None or process.returncode is None:
            told = ""
        elif process.returncode < 0:
            told = f"it was killed by signal {-process.returncode}"
        else:
            told = f"it exited with code {process.returncode}"
        words = self._stderr.text()
        parts = [told, f"stderr: {words}" if words else "", self._garbage or ""]
        return "; ".join(part for part in parts if part)

    async def _start(self, stack: contextlib.AsyncExitStack) -> asyncio.subprocess.Process:
        guard = Guard()
        self._guard = guard
        stack.push_async_callback(guard.kill)
        assert self._config.command is not None
        process = self._process = await asyncio.create_subprocess_exec(
            self._config.command,
            *self._config.args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
            cwd=self._config.cwd,
            process_group=guard.group,
            limit=_CHUNK_BYTES,
        )
        return process

    async def _read(
        self, process: asyncio.subprocess.Process, to_session: MemoryObjectSendStream[SessionMessage | Exception]
    ) -> None:
        """Server to session, until the server closes its stdout."""
        assert process.stdout is not None
        lines = LineSplitter(self._max_line_bytes)
        refused = 0
        with to_session, contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            while chunk := await process.stdout.read(_CHUNK_BYTES):
                for line in lines.feed(chunk):
                    message = self._oversized(line) if isinstance(line, Oversized) else self._parse(line)
                    if message is not None:
                        await to_session.send(message)
                    elif (refused := refused + 1) % 256 == 0:
                        await asyncio.sleep(0.05)  # a flood of garbage must not take the event loop
                await asyncio.sleep(0)

    def _parse(self, line: bytes) -> SessionMessage | None:
        """None for what is no message: servers do print to stdout, and that must not end the connection."""
        try:
            return SessionMessage(mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False))
        except (ValueError, RecursionError):
            if line.strip() and self._garbage is None:
                words = line[:200].decode("utf-8", "replace")
                self._garbage = f"its stdout holds something that is no MCP message: {words!r}"
            return None

    def _oversized(self, line: Oversized) -> SessionMessage | None:
        """The error that the waiting call gets in place of an answer that is too large."""
        found = _ID_FIRST.match(line.head) or _ID_LAST.search(line.tail)
        if found is None:
            return None
        fault = Fault(ErrorClass.TOOL_ERROR, f"the answer is larger than {self._max_line_bytes:,} bytes")
        error = mcp_types.ErrorData(code=mcp_types.INTERNAL_ERROR, message=fault.message, data=fault.as_data())
        return SessionMessage(mcp_types.JSONRPCError(jsonrpc="2.0", id=int(found[1]), error=error))

    async def _write(
        self,
        process: asyncio.subprocess.Process,
        from_session: MemoryObjectReceiveStream[SessionMessage],
        to_session: MemoryObjectSendStream[SessionMessage | Exception],
    ) -> None:
        """Session to server. A server that does not read for half a minute counts as dead."""
        assert process.stdin is not None
        try:
            with from_session:
                async for item in from_session:
                    text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                    process.stdin.write(text.encode() + b"\n")
                    async with asyncio.timeout(_WRITE_TIMEOUT_S):
                        await process.stdin.drain()
        except (OSError, TimeoutError):
            to_session.close()  # the session sees the end of the connection, so no call waits for an answer

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Keeps the end of stderr; never lets the pipe fill up, or the server would stand still."""
        assert process.stderr is not None
        while chunk := await process.stderr.read(_CHUNK_BYTES):
            self._stderr.feed(chunk)
            await asyncio.sleep(0)

    async def _watch(
        self, process: asyncio.subprocess.Process, to_session: MemoryObjectSendStream[SessionMessage | Exception]
    ) -> None:
        """Sees the death of a server whose stdout a child of it still holds open."""
        while process.returncode is None:  # noqa: ASYNC110 - see `_exited`
            await asyncio.sleep(_WATCH_S)
        await asyncio.sleep(_PIPE_GRACE_S)  # for answers that are still in the pipe
        to_session.close()

    async def _end(self, process: asyncio.subprocess.Process, pumps: list[asyncio.Task[None]]) -> None:
        """Closes stdin, waits, asks, kills: the order of the specification, with bounds."""
        try:
            await self._drain(process, pumps)
            if not await _exited(process, _EXIT_GRACE_S):
                self._guard.terminate()
                await _exited(process, _TERM_GRACE_S)
        finally:
            self._guard.kill_now()
            await _exited(process, _EXIT_GRACE_S)
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps, timeout=_PIPE_GRACE_S)
            _close_pipes(process)

    async def _drain(self, process: asyncio.subprocess.Process, pumps: list[asyncio.Task[None]]) -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        await asyncio.wait([pumps[2]], timeout=0.05)  # last words that are already in the pipe


async def _exited(process: asyncio.subprocess.Process, timeout_s: float) -> bool:
    """Polls, because `process.wait()` also waits for pipes, which a grandchild may hold open."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while process.returncode is None:
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(_EXIT_POLL_S)
    return True


def _close_pipes(process: asyncio.subprocess.Process) -> None:
    """The pipes stay open while a grandchild that left the group holds the other end; nothing public closes them."""
    transport = getattr(process, "_transport", None)
    if isinstance(transport, asyncio.SubprocessTransport):
        transport.close()
