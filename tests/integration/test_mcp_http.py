"""The bridge over Streamable HTTP: a real MCPServer under uvicorn, and a raw server that answers wrongly."""

import asyncio
import contextlib
import json
import socket
import time

import pytest
import uvicorn
from integration.mcp_bridging import bridge, loop_watched, refused, run
from mcp.server import MCPServer

from engine.states import ErrorClass
from mcp_bridge.servers import McpServerConfig


def web(port: int, name: str = "web", **settings) -> McpServerConfig:
    return McpServerConfig(name=name, url=f"http://127.0.0.1:{port}/mcp", **settings)


def an_mcp_server(seen: dict) -> MCPServer:
    server = MCPServer("sums", version="3.1")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    @server.tool()
    async def hang() -> str:
        """Never answer."""
        seen["started"].release()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            seen["cancelled"].set()
            raise
        return "never"

    @server.tool()
    def giant(size: int) -> str:
        """Answer at length."""
        return "x" * size

    return server


@contextlib.asynccontextmanager
async def served(app, port: int = 0):
    """Runs an ASGI app under uvicorn in this event loop; gives the port."""
    listener = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, ws="none")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None
    task = asyncio.create_task(server.serve([listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it; `run` sets the deadline
        await asyncio.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize("json_response", [False, True])
def test_calls_lists_and_state(json_response):
    async def work():
        app = an_mcp_server({}).streamable_http_app(json_response=json_response)
        async with served(app) as port, bridge(web(port)) as b:
            assert [t.name for t in await b.tools()] == ["add", "hang", "giant"]
            answers = await asyncio.gather(*(b.call("add", {"a": n, "b": 1}) for n in range(50)))
            assert [a.value for a in answers] == [n + 1 for n in range(50)]
            error = await refused(b.call("add", {"a": "x"}))
            assert error.error_class is ErrorClass.TOOL_ERROR
            (state,) = await b.servers()
            assert (state.transport, state.status, state.server_name) == ("http", "connected", "sums")

    run(work())


def test_hung_calls_time_out_on_time_and_block_nobody():
    async def work():
        seen = {"started": asyncio.Semaphore(0), "cancelled": asyncio.Event()}
        async with served(an_mcp_server(seen).streamable_http_app()) as port, bridge(web(port)) as b:
            await b.tools()
            started = time.monotonic()
            hung = [asyncio.create_task(refused(b.call("hang", {}, timeout_s=4.0))) for _ in range(150)]
            for _ in hung:
                await seen["started"].acquire()
            assert (await b.call("add", {"a": 1, "b": 2})).value == 3
            assert time.monotonic() - started < 4
            errors = await asyncio.gather(*hung)
            assert {e.error_class for e in errors} == {ErrorClass.TIMEOUT}
            assert time.monotonic() - started < 5.5

    run(work())


def test_a_call_that_ran_out_is_cancelled_at_the_server():
    async def work():
        seen = {"started": asyncio.Semaphore(0), "cancelled": asyncio.Event()}
        async with served(an_mcp_server(seen).streamable_http_app()) as port, bridge(web(port)) as b:
            await refused(b.call("hang", {}, timeout_s=0.5))
            await asyncio.wait_for(seen["cancelled"].wait(), 5)
            assert (await b.servers())[0].restarts == 0

    run(work())


@pytest.mark.parametrize("json_response", [False, True])
def test_a_giant_answer_fails_its_call_alone(json_response):
    async def work():
        app = an_mcp_server({}).streamable_http_app(json_response=json_response)
        async with served(app) as port, bridge(web(port), max_result_bytes=1_000_000) as b:
            error = await refused(b.call("giant", {"size": 6_000_000}))
            assert error.error_class in (ErrorClass.TOOL_ERROR, ErrorClass.CONNECTION), error
            error = await refused(b.call("giant", {"size": 1_000_001}))
            assert error.error_class is ErrorClass.TOOL_ERROR and "more than the limit" in error.message
            assert len((await b.call("giant", {"size": 1_000_000})).value) == 1_000_000

    run(work())


def test_an_address_where_nobody_listens_and_then_somebody_does():
    async def work():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        async with bridge(web(port)) as b:
            error = await refused(b.call("add", {"a": 1, "b": 1}, server="web"))
            assert error.error_class is ErrorClass.CONNECTION and not error.sent
            async with served(an_mcp_server({}).streamable_http_app(), port):
                assert (await b.call("add", {"a": 1, "b": 1}, server="web")).value == 2
            error = await refused(b.call("add", {"a": 1, "b": 1}, server="web"))
            assert error.error_class is ErrorClass.CONNECTION and not error.sent
            async with served(an_mcp_server({}).streamable_http_app(), port):
                assert (await b.call("add", {"a": 1, "b": 1})).value == 2

    run(work())


class Raw:
    """An ASGI app that speaks just enough of the 2025 protocol and answers `tools/call` as it is told."""

    def __init__(self) -> None:
        self.status, self.headers, self.body, self.calls = 200, {}, b"", 0
        self.token: bytes | None = None
        self.session = "one"
        self.gets = 0

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b""
        while (event := await receive()).get("type") == "http.request":
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        if scope["method"] == "GET":
            self.gets += 1
            await self.answer(send, 200, {"content-type": "text/event-stream"}, b"retry: 0\n\n")
        elif scope["method"] == "DELETE":
            await self.answer(send, 200, {}, b"")
        else:
            await self.post(send, dict(scope["headers"]), json.loads(body))

    async def post(self, send, headers, message):
        method, id_ = message["method"], message.get("id")
        if self.token is not None and headers.get(b"authorization") != self.token:
            await self.answer(send, 401, {}, b"who are you?")
        elif method == "initialize":
            info = {"name": "raw", "version": "1"}
            result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
            await self.result(send, id_, result, {"mcp-session-id": self.session})
        elif id_ is None:
            await self.answer(send, 202, {}, b"")
        elif method == "server/discover":
            await self.answer(send, 400, {}, b"what?")
        elif headers.get(b"mcp-session-id") != self.session.encode():
            await self.answer(send, 404, {}, b"no such session")
        elif method == "tools/list":
            await self.result(send, id_, {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}, {})
        else:
            await self.called(send, id_)

    async def called(self, send, id_):
        self.calls += 1
        if self.body is None:
            await self.result(send, id_, {"content": [{"type": "text", "text": "fine"}]}, {})
        else:
            await self.answer(send, self.status, self.headers, self.body)

    async def result(self, send, id_, result, headers):
        body = json.dumps({"jsonrpc": "2.0", "id": id_, "result": result}).encode()
        await self.answer(send, 200, {"content-type": "application/json", **headers}, body)

    async def answer(self, send, status, headers, body):
        pairs = [(k.encode(), v.encode()) for k, v in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("status", "headers", "body", "error_class", "words"),
    [
        (401, {}, b"token expired", ErrorClass.AUTH, "HTTP 401: token expired"),
        (403, {}, b"", ErrorClass.AUTH, "HTTP 403"),
        (429, {"retry-after": "17"}, b"slow down", ErrorClass.RATE_LIMIT, "HTTP 429"),
        (500, {}, b"<html>oops</html>", ErrorClass.SERVER_ERROR, "HTTP 500: <html>oops</html>"),
        (503, {}, b"", ErrorClass.OVERLOADED, "HTTP 503"),
        (504, {}, b"", ErrorClass.TIMEOUT, "HTTP 504"),
        (400, {}, b"", ErrorClass.INVALID_REQUEST, "HTTP 400"),
        (400, JSON, b'{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"bad x"}}', ErrorClass.TOOL_ERROR, "bad x"),
        (503, JSON, b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"full"}}', ErrorClass.OVERLOADED, "full"),
        (200, JSON, b"{not json", ErrorClass.SERVER_ERROR, "parse"),
        (200, {"content-type": "text/html"}, b"<html>", ErrorClass.INVALID_REQUEST, "text/html"),
        (200, {"content-type": "text/event-stream"}, b"data: {broken\n\n", ErrorClass.SERVER_ERROR, "parse"),
        (200, {"content-type": "text/event-stream"}, b": nothing\n\n", ErrorClass.CONNECTION, "without a response"),
        (200, {**JSON, "content-encoding": "gzip"}, b"x", ErrorClass.SERVER_ERROR, "compressed"),
        (202, {}, b"", ErrorClass.INVALID_REQUEST, "202"),
        (307, {"location": "http://example.com/mcp"}, b"", ErrorClass.INVALID_REQUEST, "example.com"),
        (200, {**JSON, "content-length": "50"}, b"{}", ErrorClass.CONNECTION, "complete message"),
    ],
)  # fmt: skip
def test_wrong_answers_are_errors_of_a_known_class_and_leave_the_connection_alive(
    status, headers, body, error_class, words
):
    async def work():
        raw = Raw()
        async with served(raw) as port, bridge(web(port)) as b:
            await b.tools()
            raw.status, raw.headers, raw.body = status, headers, body
            error = await refused(b.call("t", {}))
            assert (error.error_class, words in error.message) == (error_class, True), error.message
            assert error.retry_after_s == (17 if status == 429 else None)
            assert raw.calls == 1
            raw.body = None
            assert (await b.call("t", {})).value == "fine"
            assert (await b.servers())[0].restarts == 0

    run(work())


def test_an_event_beyond_the_limit_fails_its_call_alone():
    async def work():
        raw = Raw()
        async with served(raw) as port, bridge(web(port), max_result_bytes=100_000) as b:
            await b.tools()
            raw.headers, raw.body = {"content-type": "text/event-stream"}, b"data: " + b"x" * 400_000 + b"\n\n"
            error = await refused(b.call("t", {}))
            assert error.error_class is ErrorClass.TOOL_ERROR and "larger than" in error.message, error
            raw.body = None
            assert (await b.call("t", {})).value == "fine"

    run(work())


def test_a_forgotten_session_is_opened_again_within_the_call():
    async def work():
        raw = Raw()
        raw.body = None
        async with served(raw) as port, bridge(web(port)) as b:
            assert (await b.call("t", {})).value == "fine"
            raw.session = "two"
            assert (await b.call("t", {})).value == "fine"
            assert raw.calls == 2
            assert (await b.servers())[0].restarts == 1

    run(work())


def test_headers_are_sent_and_a_wrong_key_is_an_auth_error():
    async def work():
        raw = Raw()
        raw.body, raw.token = None, b"Bearer right-key-123"
        async with served(raw) as port:
            good = web(port, "good", headers={"Authorization": "Bearer right-key-123"})
            bad = web(port, "bad", headers={"Authorization": "Bearer wrong-key-123"})
            async with bridge(good, bad) as b:
                assert (await b.call("t", {}, server="good")).value == "fine"
                error = await refused(b.call("t", {}, server="bad"))
                assert error.error_class is ErrorClass.AUTH and "HTTP 401: who are you?" in error.message

    run(work())


def test_an_event_stream_that_ends_at_once_is_not_reopened_in_a_tight_loop():
    async def work():
        raw = Raw()
        raw.body = None
        async with served(raw) as port, bridge(web(port)) as b:
            await b.tools()
            async with loop_watched(longest_s=0.5):
                end = time.monotonic() + 1.2
                while time.monotonic() < end:
                    assert (await b.call("t", {})).value == "fine"
            assert 1 <= raw.gets <= 4

    run(work())


def test_a_mute_address_fails_within_its_connect_timeout():
    async def work():
        writers = []
        accepted = await asyncio.start_server(lambda reader, writer: writers.append(writer), "127.0.0.1", 0)
        port = accepted.sockets[0].getsockname()[1]
        async with bridge(web(port, connect_timeout_s=1.0)) as b:
            started = time.monotonic()
            error = await refused(b.call("t", {}, server="web"))
            assert error.error_class is ErrorClass.TIMEOUT and time.monotonic() - started < 1.5
        for writer in writers:
            writer.close()
            await writer.wait_closed()
        accepted.close()

    run(work())
