"""Cuts a server's output into lines without trusting it: memory stays bounded whatever the server writes. Pure."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

_EDGE_BYTES = 256


@dataclass(frozen=True, slots=True)
class Oversized:
    """A line beyond the limit was thrown away; its first and last bytes are kept, to find out what it answered."""

    head: bytes
    tail: bytes


class LineSplitter:
    """Feeds on chunks, gives whole lines. Work is linear in the bytes fed, also for lines of many chunks."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._buffer = bytearray()
        self._head: bytes | None = None  # set while an oversized line is being thrown away

    def feed(self, chunk: bytes) -> Iterator[bytes | Oversized]:
        """The lines that this chunk completes, without their line feeds."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._take(chunk[start:end])
            yield self._finish()
            start = end + 1
        self._take(chunk[start:])

    def _take(self, part: bytes) -> None:
        self._buffer += part
        if self._head is None and len(self._buffer) > self._limit:
            self._head = bytes(self._buffer[:_EDGE_BYTES])
        if self._head is not None:
            del self._buffer[:-_EDGE_BYTES]

    def _finish(self) -> bytes | Oversized:
        line = bytes(self._buffer)
        head, self._head = self._head, None
        self._buffer = bytearray()
        return line if head is None else Oversized(head, line)


class LastWords:
    """The end of what a server wrote to stderr, a few KiB, for the message that says why it died."""

    def __init__(self, limit_bytes: int = 8_192) -> None:
        self._limit = limit_bytes
        self._chunks: deque[bytes] = deque()
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        """Keeps the end of all that was fed."""
        chunk = chunk[-self._limit :]
        self._chunks.append(chunk)
        self._size += len(chunk)
        while self._size - len(self._chunks[0]) >= self._limit:
            self._size -= len(self._chunks.popleft())

    def text(self, limit: int = 300) -> str:
        """The last lines as one line of at most `limit` characters, without control characters."""
        words = b"".join(self._chunks).decode("utf-8", "replace").split()
        kept = " ".join(words)
        clean = "".join(character for character in kept if character.isprintable())
        return clean if len(clean) <= limit else f"…{clean[-limit:]}"
