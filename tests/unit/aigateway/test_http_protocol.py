"""An answer's head and the first piece of its body are one write, and no request is held back, lost or endless."""

import asyncio
import json
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from aigateway.http_protocol import HttpProtocol

Message = dict[str, Any]
START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
EVENTS: Message = {"type": "http.response.start", "status": 200, "headers": []}


class Writes(asyncio.Transport):
    """Remembers each write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False
        self.end = asyncio.Event()

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True
        self.end.set()

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def play(
    *messages: Message | None,
    request: bytes = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    cut: int | None = None,
    echo: bool = False,
) -> Writes:
    """Sends `messages`; None: wait for the turn of the loop to end. The request comes in pieces of `cut` bytes; `echo`: its body and headers are the answer."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if echo:
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message["body"], message["more_body"]
            names = [name.decode() for name, _ in scope["headers"]]
            await send({**START, "headers": []})
            await send({"type": "http.response.body", "body": json.dumps([body.decode(), names]).encode()})
        for message in messages:
            await (asyncio.sleep(0) if message is None else send(message))

    async def main() -> Writes:
        config = uvicorn.Config(app, log_config=None, lifespan="off", http=HttpProtocol)
        config.load()
        state, transport = ServerState(), Writes()
        protocol = HttpProtocol(config=config, server_state=state, app_state={})
        protocol.connection_made(transport)
        for at in range(0, len(request), cut or len(request)):
            if not transport.closed:
                protocol.data_received(request[at : at + (cut or len(request))])
        if state.tasks:
            await asyncio.wait(set(state.tasks))
        await asyncio.sleep(0)
        protocol.connection_lost(None)
        return transport

    return asyncio.run(main())


def body(data: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def test_head_and_body_are_one_write() -> None:
    (only,) = play(START, body(b"hi")).written
    assert only.startswith(b"HTTP/1.1 200")
    assert only.endswith(b"\r\n\r\nhi")


def test_a_head_without_a_body_does_not_wait_for_one() -> None:
    head, *rest = play(EVENTS, None, None, body(b"a", more=True), body(b"b")).written
    assert head.startswith(b"HTTP/1.1 200")
    assert head.endswith(b"\r\n\r\n")
    assert rest == [b"1\r\na\r\n", b"1\r\nb\r\n0\r\n\r\n"]


def test_a_body_that_looks_like_a_head_is_none() -> None:
    size = {**START, "headers": [(b"content-length", b"24")]}
    written = play(size, body(b"HTTP/1.1 no\n", more=True), body(b"HTTP/1.1 no\n")).written
    assert b"".join(written).endswith(b"\r\n\r\nHTTP/1.1 no\nHTTP/1.1 no\n")


def test_http_1_0_gets_no_chunks_and_the_end_of_the_connection_is_the_end() -> None:
    old = b" / HTTP/1.0\r\nhost: x\r\n\r\n"
    sent = play(
        EVENTS,
        None,
        body(b"a", more=True),
        {"type": "http.response.body", "more_body": True},
        body(b"bc"),
        request=b"GET" + old,
    )
    head, _, told = b"".join(sent.written).partition(b"\r\n\r\n")
    assert (told, sent.closed) == (b"abc", True)
    assert b"transfer-encoding" not in head and b"connection: close" in head
    sized = b"".join(play(START, body(b"hi"), request=b"GET" + old).written)
    assert sized.endswith(b"\r\n\r\nhi") and b"content-length: 2\r\n" in sized
    assert b"".join(play(EVENTS, body(b"unseen"), request=b"HEAD" + old).written).endswith(b"\r\n\r\n")


def test_a_connection_that_is_closed_says_all_before() -> None:
    closing = play(START, body(b"hi"), request=b"GET / HTTP/1.0\r\n\r\n")
    assert closing.closed
    assert b"".join(closing.written).endswith(b"hi")


JAVA = (
    b"POST /v1/x HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 4\r\nHost: x\r\n"
    b"HTTP2-Settings: AAEAAEAA\r\nUpgrade: h2c\r\n\r\nbody"
)


def test_a_wish_for_another_protocol_does_not_cost_the_body() -> None:
    for cut in (None, 1, len(JAVA) - 4):
        (answer,) = play(request=JAVA, echo=True, cut=cut).written
        assert b'["body", ["connection", "content-length", "host"]]' in answer


def test_a_head_has_a_bound_and_what_is_no_http_is_told_in_the_one_shape() -> None:
    endless = b"GET / HTTP/1.1\r\nx: " + b"a" * 400_000
    proxied = b"CONNECT elsewhere:443 HTTP/1.1\r\n\r\n"
    for request, status, code in [
        (endless, b"431 ", "headers_too_large"),
        (b"\x16\x03\x01", b"400 ", "invalid_http"),
        (proxied, b"400 ", "invalid_http"),
    ]:
        refused = play(request=request, cut=65_536)
        head, _, told = b"".join(refused.written).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 " + status) and b"x-request-id: " in head and refused.closed
        error = json.loads(told)["error"]
        assert error["code"] == code and error.keys() == {"message", "type", "code", "param"}


def waited_for(*pieces: bytes, answer_at_once: bool = False) -> Writes:
    """What a server of little patience does with a request that comes in these pieces and no further."""

    class Impatient(HttpProtocol):
        patience_s = 0.01

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        if answer_at_once:
            await send(EVENTS)
        while (await receive())["more_body"]:
            pass

    async def main() -> Writes:
        config = uvicorn.Config(app, log_config=None, lifespan="off", http=Impatient)
        config.load()
        transport = Writes()
        protocol = Impatient(config=config, server_state=ServerState(), app_state={})
        protocol.connection_made(transport)
        for piece in pieces:
            protocol.data_received(piece)
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await transport.end.wait()
        for task in protocol.tasks:
            task.cancel()
        protocol.connection_lost(None)
        await asyncio.sleep(0)
        return transport

    return asyncio.run(main())


def test_who_does_not_send_the_rest_of_a_request_is_not_waited_for() -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n"
    for pieces in [(head[:9],), (head[:9], head[9:20]), (head,), (head, b"half")]:
        told = b"".join(waited_for(*pieces).written)
        assert told.startswith(b"HTTP/1.1 408 ") and b'"code":"request_timeout"' in told
    assert waited_for().written == []
    assert b"408" not in b"".join(waited_for(head, b"half", answer_at_once=True).written)
