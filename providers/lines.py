"""Cuts a stream of bytes into lines, whatever the pieces it arrives in. Used for event streams and for NDJSON."""

import re

MAX_LINE_BYTES = 16 * 1024 * 1024

_LINE_END = re.compile(rb"\r\n|\n|\r")


class LineTooLong(ValueError):
    """A line grew past MAX_LINE_BYTES: the upstream does not speak lines."""


class LineBuffer:
    """Holds at most one unfinished line. LF, CRLF and CR end a line, as in the event stream format."""

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._pieces: list[
            bytes
        ] = []  # an unfinished line in the pieces it came in: joining each time would be quadratic
        self._size = 0
        self._max = max_line_bytes

    @property
    def holds(self) -> bool:
        """Whether there is an unfinished line."""
        return bool(self._pieces)

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their ends. Raises: LineTooLong."""
        if b"\n" not in data and b"\r" not in data and not self._ends_with_cr():
            self._keep(data)
            return []
        data = b"".join((*self._pieces, data))
        held = b""
        if data.endswith(b"\r"):  # it may be the first half of a CRLF
            data, held = data[:-1], b"\r"
        lines = _LINE_END.split(data) if b"\r" in data else data.split(b"\n")
        self._pieces, self._size = [], 0
        self._keep(lines.pop() + held)
        return lines

    def close(self) -> bytes:
        """What is left when the stream has ended: a last line without its end, or nothing."""
        rest = b"".join(self._pieces)
        self._pieces, self._size = [], 0
        return rest.rstrip(b"\r")

    def _ends_with_cr(self) -> bool:
        return bool(self._pieces) and self._pieces[-1].endswith(b"\r")

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._max:
            raise LineTooLong(f"a line of more than {self._max} bytes")
        if data:
            self._pieces.append(data)
