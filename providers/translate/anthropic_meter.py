"""Reads as much of an Anthropic answer as booking and failover need, and leaves the answer itself as it is.

For requests that came in Anthropic's dialect and went out in it. Format: Anthropic `/v1/messages` and its events.
"""

from collections.abc import Iterator
from typing import Any

from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.provider import Chunk, Json
from providers.shapes import as_object, as_objects, as_text
from providers.translate.anthropic_to_openai import finish_reason, usage_of

_EMPTY_AT_START = frozenset({"text", "thinking"})


def content_size(message: Json) -> int:
    """Bytes of content in a whole message."""
    return sum(_size(block) for block in as_objects(message.get("content")))


class EventMeter:
    """Makes each event a chunk, notes the usage, and knows whether the message is whole."""

    def __init__(self) -> None:
        self._told: Json = {}  # usage so far: later events are cumulative and may leave counts out
        self._output_told = False  # the count in message_start is only the first tokens
        self._stop: Json = {"type": "message_stop"}
        self.finished = False
        self.done = False

    def event(self, body: Json) -> Iterator[Chunk]:
        """The chunk for one event, the last one excepted. Raises: ProviderError where the event is none."""
        match body.get("type"):
            case "message_start":
                self._note(as_object(body.get("message")).get("usage"))
                yield Chunk(body, native=True, prompt_usage=usage_of(self._told))
            case "content_block_start":
                size = _size(as_object(body.get("content_block")))
                kind = as_text(as_object(body.get("content_block")).get("type"))
                yield Chunk(body, native=True, has_content=kind not in _EMPTY_AT_START or size > 0, size=size)
            case "content_block_delta":
                yield Chunk(body, native=True, has_content=True, size=_size(as_object(body.get("delta"))))
            case "message_delta":
                yield self._message_delta(body)
            case "message_stop":
                self._stop = body
                self.done = True
            case str():
                yield Chunk(body, native=True)
            case _:
                raise ProviderError.unseen(ErrorClass.SERVER_ERROR, "The upstream sent an event without a type.")

    def usage_chunk(self) -> Iterator[Chunk]:
        """The event that ends the message; the upstream's own where it sent one."""
        usage = usage_of(self._told) if self._output_told else None
        yield Chunk(self._stop, native=True, usage=usage, usage_only=True)

    def _message_delta(self, body: Json) -> Chunk:
        told = as_object(body.get("usage"))
        self._note(told)
        self._output_told = self._output_told or "output_tokens" in told
        reason: Any = as_object(body.get("delta")).get("stop_reason")
        if not reason:
            return Chunk(body, native=True)
        self.finished = True
        return Chunk(body, native=True, finish_reason=finish_reason(reason))

    def _note(self, told: Any) -> None:
        self._told.update({key: value for key, value in as_object(told).items() if value is not None})


def _size(value: Any) -> int:
    """Bytes of the texts in a block or delta, its type aside."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_size, value))  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
    return sum(_size(inner) for key, inner in as_object(value).items() if key not in ("type", "id"))
