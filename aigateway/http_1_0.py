"""Answers to HTTP/1.0. One without a length uvicorn sends in chunks, which HTTP/1.0 does not know: there the end of the connection
is the end of the answer.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Unchunked:
    """The answer to one HTTP/1.0 request; uvicorn closes the connection behind it."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._send = cycle.send
        self._has_length = False

    async def send(self, message: Any) -> None:
        """uvicorn counts a body against its announced length: where none is, each piece is announced by itself."""
        if message["type"] == "http.response.start":
            self._has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
        if not self._has_length:
            self._cycle.chunked_encoding = False
            self._cycle.expected_content_length = len(message["body"]) if "body" in message else 0
        await self._send(message)
