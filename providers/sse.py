"""Reads server-sent events (WHATWG HTML §9.2) piece by piece: comments, several data lines, any line end, cut UTF-8.

A body that begins like JSON is no event stream: its bytes are kept for whoever asked (errors come so, with status 200).
"""

from dataclasses import dataclass

from providers.lines import MAX_LINE_BYTES, LineBuffer, LineTooLong

_DATA = b"data: "
_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class Event:
    """One event: its type (`message` where none was named) and its data lines joined by LF, still encoded."""

    type: str
    data: bytes


class EventParser:
    """Feed it bytes, get events. Holds one unfinished event of bounded size; ids and retry hints are not kept."""

    def __init__(self, max_event_bytes: int = MAX_LINE_BYTES) -> None:
        self._lines = LineBuffer(max_event_bytes)
        self._max = max_event_bytes
        self._type = "message"
        self._data: list[bytes] = []
        self._size = 0
        self._first = True
        self._json: list[bytes] = []

    @property
    def json(self) -> bytes:
        """The body as far as it has come, where it is JSON and no event stream; else nothing."""
        return b"".join(self._json)

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes. Raises: LineTooLong where an event grows past its bound."""
        if self._is_one_event(data):
            self._first = False
            return [Event("message", data[len(_DATA) : -2])]
        if self._json or (
            self._first and not self._lines.holds and data.removeprefix(_BOM).lstrip().startswith((b"{", b"["))
        ):
            self._keep(data)
            return []
        events: list[Event] = []
        for line in self._lines.feed(data):
            if self._first:
                line, self._first = line.removeprefix(_BOM), False
            if line:
                self._field(line)
            elif event := self._dispatch():
                events.append(event)
        return events

    def close(self) -> list[Event]:
        """The last event of a stream that ended without its blank line (some upstreams' `[DONE]`), or nothing."""
        if line := self._lines.close():
            self._field(line)
        event = self._dispatch()
        return [event] if event else []

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._max:
            raise LineTooLong(f"an answer of more than {self._max} bytes")
        self._json.append(data)

    def _is_one_event(self, data: bytes) -> bool:
        """Whether it is one event in one line, with nothing of another before it: what most upstreams send most of the time."""
        return (
            data.startswith(_DATA)
            and data.endswith(b"\n\n")
            and data.find(b"\n") == len(data) - 2
            and b"\r" not in data
            and self._type == "message"
            and not self._data
            and not self._lines.holds
            and len(data) <= self._max
        )

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size += len(value)
            if self._size > self._max:
                raise LineTooLong(f"an event of more than {self._max} bytes")
            self._data.append(value)
        elif name == b"event":
            self._type = value.decode("utf-8", "replace")

    def _dispatch(self) -> Event | None:
        event = Event(self._type, b"\n".join(self._data)) if self._data else None
        self._type, self._data, self._size = "message", [], 0
        return event
