"""A server behind an address: Streamable HTTP, with every failure turned into an answer that the library survives.

Used bare, the library loses the HTTP status, ends the whole client when one request cannot connect or breaks while
its body is read, and reads JSON bodies of any size. The border here sits below it, inside the HTTP client: what goes
wrong becomes a JSON-RPC error that says what happened (`Fault`), so one failed call never takes others with it.
"""

import asyncio
import contextlib
from typing import Any

import httpx2
import orjson
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import streamable_http_client

from engine.states import ErrorClass
from mcp_bridge.errors import Fault, shorten
from mcp_bridge.servers import McpServerConfig

_GET_PAUSE_S = 0.5
_DELETE_TIMEOUT_S = 2.0
_MAX_RETRY_AFTER_S = 3_600.0
_SESSION_HEADER = "mcp-session-id"
_CLASS_BY_STATUS = {
    401: ErrorClass.AUTH,
    403: ErrorClass.AUTH,
    407: ErrorClass.AUTH,
    402: ErrorClass.QUOTA,
    408: ErrorClass.TIMEOUT,
    429: ErrorClass.RATE_LIMIT,
    503: ErrorClass.OVERLOADED,
    504: ErrorClass.TIMEOUT,
    529: ErrorClass.OVERLOADED,
}
_NOT_STARTED = frozenset({401, 402, 403, 407, 429})


class HttpTransport:
    """The library's HTTP transport over a client of our own; an async context manager that gives the two streams."""

    def __init__(self, config: McpServerConfig, *, max_message_bytes: int) -> None:
        self._config = config
        self._max_message_bytes = max_message_bytes
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> TransportStreams:
        """Opens no connection yet: the first message does."""
        assert self._config.url is not None
        border = _Border(
            httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20)),
            max_body_bytes=self._max_message_bytes,
        )
        timeout = httpx2.Timeout(self._config.connect_timeout_s, read=None)  # a call's own timer bounds the reading
        headers = {**self._config.headers, "accept-encoding": "identity"}  # an unpacked answer would have no bound
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(
                httpx2.AsyncClient(transport=border, headers=headers, timeout=timeout)
            )
            streams = await stack.enter_async_context(
                streamable_http_client(self._config.url, http_client=client, max_sse_event_size=self._max_message_bytes)
            )
            self._stack = stack.pop_all()
        return streams

    async def __aexit__(self, *_: object) -> None:
        """Ends the session at the server where there is one, and closes the sockets."""
        await self._stack.aclose()

    def gone(self) -> bool:
        """Only a request can tell."""
        return False

    def epitaph(self) -> str:
        """An HTTP server says why it failed in its answers; there is nothing to add."""
        return ""


class _Border(httpx2.AsyncBaseTransport):
    """Turns connection errors and refusing statuses into JSON-RPC errors, and bounds bodies."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, *, max_body_bytes: int) -> None:
        self._inner = inner
        self._max_body_bytes = max_body_bytes
        self._next_get = 0.0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "DELETE":  # ends the session on our way out; a hung server must not hold us
            async with asyncio.timeout(_DELETE_TIMEOUT_S):
                return await self._inner.handle_async_request(request)
        if request.method == "GET":
            await self._pause_gets()
        try:
            response = await self._inner.handle_async_request(request)
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                await response.aclose()
                return _answer(502, Fault(ErrorClass.SERVER_ERROR, "the answer is compressed, which was not asked for"))
            if request.method != "POST" or _is_events(response):
                return response  # event streams are bounded by event, in the library
            body = await _read_at_most(response, self._max_body_bytes)
        except httpx2.TransportError as error:
            return _answer(502, _connection_fault(error))
        if body is None:
            fault = Fault(ErrorClass.TOOL_ERROR, f"the answer is larger than {self._max_body_bytes:,} bytes")
            return _answer(502, fault)
        if response.status_code >= 400:
            return _refusal(request, response, body)
        response.stream = httpx2.ByteStream(body)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _pause_gets(self) -> None:
        """Event streams are opened again as fast as the server likes (`retry: 0`): not faster than twice a second."""
        now = asyncio.get_running_loop().time()
        start = max(now, self._next_get)
        self._next_get = start + _GET_PAUSE_S
        await asyncio.sleep(start - now)


def _connection_fault(error: httpx2.TransportError) -> Fault:
    sent = not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.UnsupportedProtocol)
    kind = ErrorClass.TIMEOUT if isinstance(error, httpx2.TimeoutException) and sent else ErrorClass.CONNECTION
    return Fault(kind, shorten(f"{type(error).__name__}: {error}", 300), sent=sent)


def _refusal(request: httpx2.Request, response: httpx2.Response, body: bytes) -> httpx2.Response:
    """The server's own JSON-RPC error passes through; anything else keeps its status in words of ours."""
    own = _own_error(body)
    status = response.status_code
    if _SESSION_HEADER in request.headers and (status == 404 or (status == 400 and b"session id" in body.lower())):
        fault = Fault(ErrorClass.CONNECTION, "the server no longer knows this session", sent=False, session_lost=True)
        return _answer(status, fault)
    if own is not None and status not in _CLASS_BY_STATUS:
        return httpx2.Response(status, headers={"content-type": "application/json"}, content=body)
    return _answer(status, _status_fault(status, response.headers.get("retry-after"), own, body))


def _status_fault(status: int, retry_after: str | None, own: dict[str, Any] | None, body: bytes) -> Fault:
    words = str(own.get("message", "")) if own else " ".join(body.decode("utf-8", "replace").split())
    kind = _CLASS_BY_STATUS.get(status) or (ErrorClass.SERVER_ERROR if status >= 500 else ErrorClass.INVALID_REQUEST)
    message = f"HTTP {status}" + (f": {shorten(words, 300)}" if words else "")
    return Fault(kind, message, retry_after_s=_seconds(retry_after), sent=status not in _NOT_STARTED)


def _own_error(body: bytes) -> dict[str, Any] | None:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    match parsed:
        case {"jsonrpc": "2.0", "error": {"code": int(), "message": str()} as error}:
            return error
        case _:
            return None


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds (RFC 9110 §10.2.3); its date form is rare and left alone."""
    if retry_after is None or not retry_after.strip().isdigit():
        return None
    return min(float(retry_after), _MAX_RETRY_AFTER_S)


def _answer(status: int, fault: Fault) -> httpx2.Response:
    """`id` is null as for a request that was refused unread; the library puts the right one in."""
    error = {"code": -32000, "message": fault.message, "data": fault.as_data()}
    content = orjson.dumps({"jsonrpc": "2.0", "id": None, "error": error})
    return httpx2.Response(status, headers={"content-type": "application/json"}, content=content)


def _is_events(response: httpx2.Response) -> bool:
    return response.is_success and response.headers.get("content-type", "").lower().startswith("text/event-stream")


async def _read_at_most(response: httpx2.Response, limit_bytes: int) -> bytes | None:
    """The body as it came; None where it is larger. The raw stream is read, so a compressed one cannot blow up."""
    body = bytearray()
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    try:
        async for chunk in response.stream:
            body += chunk
            if len(body) > limit_bytes:
                return None
    finally:
        await response.stream.aclose()
    return bytes(body)
