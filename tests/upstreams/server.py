"""Runs an upstream on a real socket of 127.0.0.1: in a thread of its own with `with`, or inside `upstreams.serve`."""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web
from upstreams.answers import marker_in
from upstreams.control import Call, Control, Fault, Price

Handler = Callable[[web.Request], Any]
FOREVER_S = 3600.0


class Refused(Exception):
    """The request is one that the real service refuses."""

    def __init__(self, status: int, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.fields = fields


@dataclass
class Piece:
    """Something to send: `tokens` output tokens are produced by it, `kind` is role | content | finish | usage | done."""

    kind: str
    data: bytes
    tokens: int = 0
    tells_usage: bool = False


class Upstream:
    """Base of the three services: `with OpenAIUpstream() as up: up.base_url, up.control.script(...), up.control.calls`."""

    default_models: tuple[str, ...] = ()
    base_path = ""
    stream_type = "text/event-stream"
    malformed = b'data: {"id": "x", "choi\n\n'

    def __init__(
        self,
        *,
        models: tuple[str, ...] | None = None,
        key: str = "test-key",
        prices: Mapping[str, Price] | None = None,
        context: int = 100_000,
    ) -> None:
        self.models = models or self.default_models
        self.key = key
        self.context = context
        self.control = Control(prices)
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What a client is configured with."""
        return self.url + self.base_path

    # What a dialect brings.

    def routes(self) -> list[tuple[str, str, Handler]]:
        raise NotImplementedError

    def error_body(self, status: int, message: str, **fields: Any) -> Any:
        raise NotImplementedError

    # Life.

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        if not ready.wait(10) or not self.port:
            raise RuntimeError("the upstream did not start")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop and self._thread
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self, ready: threading.Event) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            try:
                runner = await self.start()
            finally:
                ready.set()
            await self._stop.wait()
            await runner.cleanup()

        asyncio.run(main())

    async def start(self, port: int = 0) -> web.AppRunner:
        """Serve on the running loop; `port` 0 takes a free one."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        for method, path, handler in [*self.routes(), *self._control_routes()]:
            app.router.add_route(method, path, handler)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.port = runner.addresses[0][1]
        return runner

    # Serving one call.

    async def serve(
        self, request: web.Request, answer: Callable[[web.Request, Any, Call, Fault | None], Any]
    ) -> web.StreamResponse:
        """Count, go wrong if scripted, else validate and answer in the dialect."""
        raw = await request.read()
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        call, fault = self.control.begin(lambda number: self._call(number, request, body))
        try:
            return await self._serve(request, body, call, fault, answer)
        except Refused as refused:
            self.control.end(call, "refused", refused.status)
            return web.json_response(
                self.error_body(refused.status, refused.message, **refused.fields), status=refused.status
            )
        except (asyncio.CancelledError, ConnectionResetError) as gone:
            if call.outcome == "running":
                self.control.end(call, "client_gone", call.status)
            if isinstance(gone, ConnectionResetError):
                return web.Response()  # nobody is there to get it
            raise

    async def _serve(
        self, request: web.Request, body: Any, call: Call, fault: Fault | None, answer: Callable[..., Any]
    ) -> web.StreamResponse:
        if fault and fault.delay_s and fault.kind not in ("slow",):
            await asyncio.sleep(fault.delay_s)
        if fault and fault.kind == "status":
            fields = {"type": fault.type, "code": fault.code}
            self.control.end(call, "status", fault.status)
            body = self.error_body(fault.status, fault.message, **fields)
            return web.json_response(body, status=fault.status, headers=dict(fault.headers))
        if fault and fault.kind == "reset":
            self.control.end(call, "reset", 0)
            return self.cut(request)
        if fault and fault.kind == "hang":
            await asyncio.sleep(FOREVER_S)
        if fault and fault.kind == "not_json":
            self.control.end(call, "not_json", 200)
            return web.Response(text="<html>busy</html>", content_type="text/html")
        if fault and fault.kind == "empty":
            self.control.end(call, "empty", 200)
            return web.Response(text="", content_type=self.stream_type)
        if fault and fault.kind == "error_in_200":
            self.control.end(call, "error_in_200", 200)
            return web.json_response(self.error_body(502, fault.message, type=fault.type, code=fault.code))
        return await answer(request, body, call, fault)

    async def send_whole(self, request: web.Request, call: Call, body: Any, fault: Fault | None) -> web.Response:
        """Send a whole answer whose tokens are noted in `call` already; a fault for streams has its counterpart here."""
        raw = json.dumps(body).encode()
        kind = fault.kind if fault else "ok"
        if kind in ("stall", "role_then_stall"):
            await asyncio.sleep(FOREVER_S)
        if kind == "slow" and fault:
            await asyncio.sleep(fault.delay_s)
        if kind in ("cut", "no_finish"):
            self.control.end(call, kind, 200)
            response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(raw))})
            await response.prepare(request)
            await response.write(raw[: len(raw) // 2])
            return self.cut(request)
        call.usage_told = kind not in ("no_usage", "malformed")
        self.control.end(call, kind, 200)
        return web.Response(body=raw[:-5] if kind == "malformed" else raw, content_type="application/json")

    async def send_stream(
        self, request: web.Request, call: Call, pieces: AsyncIterator[Piece], fault: Fault | None
    ) -> web.StreamResponse:
        """Send pieces; `fault` says where it goes wrong. Tokens are billed as they are sent."""
        response = web.StreamResponse(headers={"Content-Type": self.stream_type, "Cache-Control": "no-cache"})
        await response.prepare(request)
        call.status = 200
        sent = 0
        async for piece in pieces:
            if fault and (action := _action(fault, piece, sent)):
                if action == "skip":
                    continue
                if await self._misbehave(request, response, call, fault):
                    return response
                continue
            if fault and fault.kind == "slow" and piece.kind == "content":
                await asyncio.sleep(fault.delay_s)
            call.tokens.output += piece.tokens
            call.usage_told = call.usage_told or piece.tells_usage
            if piece.kind == "done":
                self.control.end(call, fault.kind if fault else "ok", 200)
            await response.write(piece.data)
            sent += piece.kind == "content"
            await asyncio.sleep(0)
        if call.outcome == "running":
            self.control.end(call, fault.kind if fault else "ok", 200)
        await response.write_eof()
        return response

    async def _misbehave(self, request: web.Request, response: web.StreamResponse, call: Call, fault: Fault) -> bool:
        """True where the stream is over."""
        if fault.kind in ("stall", "role_then_stall"):
            await asyncio.sleep(FOREVER_S)
        if fault.kind == "malformed":
            self.control.end(call, "malformed", 200)
            await response.write(self.malformed)
        elif fault.kind == "error_in_stream":
            self.control.end(call, "error_in_stream", 200)
            await response.write(self.error_piece(fault))
        else:
            self.control.end(call, fault.kind, 200)
            self.cut(request)
            return True
        await response.write_eof()
        return True

    def error_piece(self, fault: Fault) -> bytes:
        body = self.error_body(fault.status, fault.message, type=fault.type, code=fault.code)
        return f"data: {json.dumps(body)}\n\n".encode()

    def cut(self, request: web.Request) -> web.Response:
        """Reset the connection (RST, not FIN)."""
        transport = request.transport
        if transport is not None:
            sock: socket.socket = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        return web.Response()

    def _call(self, number: int, request: web.Request, body: Any) -> Call:
        fields = body if isinstance(body, dict) else {}
        marker = request.headers.get("x-test-marker") or marker_in(json.dumps(fields.get("messages", "")))
        return Call(
            number=number,
            model=str(fields.get("model", "")),
            marker=marker,
            stream=bool(fields.get("stream")),
            path=request.path,
            headers=dict(request.headers),
            body=body,
        )

    # Control from another process.

    def _control_routes(self) -> list[tuple[str, str, Handler]]:
        async def state(_: web.Request) -> web.Response:
            return web.json_response(self.control.state())

        async def script(request: web.Request) -> web.Response:
            given = await request.json()
            faults = [Fault(**fault) if fault else None for fault in given.get("faults", [])]
            if given.get("always"):
                self.control.always(faults[0] if faults else None, given.get("model"))
            else:
                self.control.script(*faults, model=given.get("model"))
            return web.json_response({})

        async def reset(_: web.Request) -> web.Response:
            self.control.reset()
            return web.json_response({})

        return [
            ("GET", "/_control/state", state),
            ("POST", "/_control/script", script),
            ("POST", "/_control/reset", reset),
        ]


def _action(fault: Fault, piece: Piece, sent: int) -> str | None:
    """What a fault does at this piece: `skip` it, `break` here, or nothing."""
    match fault.kind:
        case "cut" | "stall" | "malformed" | "error_in_stream":
            return "break" if sent >= fault.after or piece.kind in ("finish", "done") else None
        case "role_then_stall":
            return "break" if piece.kind not in ("role",) else None
        case "no_done":
            return "skip" if piece.kind == "done" else None
        case "no_finish":
            return "skip" if piece.kind in ("finish", "done", "usage") else None
        case "no_usage":
            return "skip" if piece.kind == "usage" else None
        case _:
            return None
