"""uvicorn's HTTP protocol with six changes.

An answer's head leaves together with the first piece of its body: uvicorn writes them apart, and each write is a system call
here and a wake-up at the client. A wish for HTTP/2 in the clear is passed over, as RFC 9110 §7.8 lets a server do: Java's
client and `curl --http2` send it with their bodies, which uvicorn would lose. A request's head has a bound (uvicorn keeps any
number of headers of any length), and who does not send a request that was begun is not waited for without end. What is no HTTP
is answered in the one error shape. HTTP/1.0 gets no chunks
(`aigateway.http_1_0`).
"""

import asyncio
import secrets
from typing import Any, cast

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from aigateway.http_1_0 import Unchunked

_HEAD = b"HTTP/1.1 "
_LARGEST_HEAD = 256 * 1024
_TOO_LARGE = f"the request's line and headers are larger than {_LARGEST_HEAD // 1024} KiB"
_OF_UPGRADES = frozenset({b"upgrade", b"http2-settings"})


class HttpProtocol(HttpToolsProtocol):
    """For `uvicorn.Config(http=HttpProtocol)`."""

    patience_s = 60.0  # how often it is looked; what is missing then and at the look before is given up
    _head_size: int | None = None  # of a head that is not complete; None outside of heads
    _heads = 0  # begun on this connection
    _pieces = 0  # received on it
    _watch: asyncio.TimerHandle | None = None  # at most one, set where something is missing
    _passed_over = False  # the message is read anew without its wish for another protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(cast(asyncio.Transport, _Joining(transport, self.loop)))
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._unset_keepalive_if_required()
        self._pieces += 1
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self._stop_watching()
                self.handle_websocket_upgrade()
                return
            elif self.parser.get_method() == b"CONNECT":
                self.send_400_response("this is no proxy")
            else:
                self._read_anew(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("this is no HTTP request that can be read")
        if self._head_size is not None:
            self._head_size += len(data)
            if self._head_size > _LARGEST_HEAD:
                self._refuse("431 Request Header Fields Too Large", "headers_too_large", _TOO_LARGE)
        if self._watch is None and self._is_unfinished():
            self._look_later()

    def on_message_begin(self) -> None:
        """See httptools."""
        self._head_size = 0
        self._heads += 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._head_size = None
        self._passed_over = self.parser.should_upgrade() and not self._should_upgrade()
        if self._passed_over:
            return
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before and self.scope["http_version"] == "1.0":
            self.cycle.send = Unchunked(self.cycle).send

    def on_message_complete(self) -> None:
        """See httptools."""
        if not self._passed_over:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What cannot be read is answered so, and the connection closed."""
        self._refuse("400 Bad Request", "invalid_http", msg)

    @property
    def _current(self) -> RequestResponseCycle | None:
        """The request whose head came last; None before the first."""
        return cast("RequestResponseCycle | None", self.cycle)

    def _lacks_body(self) -> bool:
        current = self._current
        return current is not None and current.more_body and not current.response_complete

    def _is_answering(self) -> bool:
        current = self._current
        return current is not None and current.response_started and not current.response_complete

    def _is_unfinished(self) -> bool:
        """Whether more of a request has to come: of its head or its body, or the first one at all."""
        if self.transport.is_closing():
            return False
        return self._head_size is not None or self._current is None or self._lacks_body()

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _look_later(self) -> None:
        self._watch = self.loop.call_later(self.patience_s, self._look, self._heads, self._pieces)

    def _look(self, heads: int, pieces: int) -> None:
        """Give up a head that was unfinished already when this was set, and a body of which nothing has come since."""
        self._watch = None
        if not self._is_unfinished():
            return
        if self._head_size is None and self._current is not None:
            late = pieces == self._pieces and not self.flow.read_paused
        else:
            late = heads == self._heads
        if not late:
            self._look_later()
        elif not self._heads or self._is_answering():
            self.transport.close()  # there is nothing to answer, or no place for another answer within one
        else:
            words = f"the rest of the request did not come within {self.patience_s:g} s"
            self._refuse("408 Request Timeout", "request_timeout", words)

    def _read_anew(self, rest: bytes) -> None:
        """The message that asked for another protocol, as if it had not; `rest` is what came behind its head."""
        lines = [b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url)]
        for name, value in self.headers:
            if name == b"connection":
                value = b", ".join(word for word in value.split(b",") if word.strip().lower() not in _OF_UPGRADES)
            if name not in _OF_UPGRADES:
                lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def _refuse(self, status: str, code: str, message: str) -> None:
        self._head_size = None
        error = {"message": message, "type": "invalid_request_error", "code": code, "param": None}
        body = orjson.dumps({"error": error})
        lines = (
            f"HTTP/1.1 {status}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            f"x-request-id: {secrets.token_hex(16)}",
            "x-should-retry: false",
            "connection: close",
        )
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()


class _Joining:
    """A transport that holds a head back until the next write, and no longer than this turn of the loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """See asyncio.WriteTransport."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(_HEAD):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        """See asyncio.BaseTransport."""
        self._flush()
        self._transport.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See asyncio.BaseTransport: another protocol has the transport to itself."""
        self._flush()
        self._transport.set_protocol(protocol)

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)
