"""The chunks of a chat completion as Anthropic's stream events, in its order: blocks one after another, each begun and ended.

The last two events wait for the end of the stream: they tell the usage, which is booked by then. Format: Anthropic's streaming
events of `/v1/messages`.
"""

from collections.abc import Iterator
from typing import Any

from engine.ledger import Usage
from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.provider import Chunk, Json
from providers.shapes import as_count, as_object, as_objects, as_text
from providers.translate.anthropic_in_answer import new_message_id, stop_reason, usage_to_anthropic

_STARTS: dict[str, Json] = {
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "text": {"type": "text", "text": ""},
}


class EventWriter:
    """Makes the events of one message."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._index = -1  # of the block that was begun last
        self._open: str | int | None = None  # what is open: `thinking`, `text`, or the number of a tool call
        self._calls: set[int] = set()
        self._finish_reason: Any = None

    def start(self, prompt_usage: Usage | None = None) -> Json:
        """The first event. Most upstreams tell the size of the prompt at the end only: then the last event has it."""
        message: Json = {
            "id": new_message_id(),
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_to_anthropic(prompt_usage or Usage()),
        }
        return {"type": "message_start", "message": message}

    def chunk(self, chunk: Chunk) -> Iterator[Json]:
        """The events for one chunk. Raises: ProviderError for what cannot be put into blocks that follow each other."""
        for choice in as_objects(chunk.body.get("choices")):
            delta = as_object(choice.get("delta"))
            if thought := as_text(delta.get("reasoning_content")) or as_text(delta.get("reasoning")):
                yield from self._part("thinking", {"type": "thinking_delta", "thinking": thought})
            if text := as_text(delta.get("content")) or as_text(delta.get("refusal")):
                yield from self._part("text", {"type": "text_delta", "text": text})
            for call in as_objects(delta.get("tool_calls")):
                yield from self._call(call)
            self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def end(self, usage: Usage | None) -> Iterator[Json]:
        """The last events. `usage` is what was booked."""
        yield from self._close()
        reason = stop_reason(self._finish_reason, calls=bool(self._calls))
        delta: Json = {"stop_reason": reason, "stop_sequence": None}
        yield {"type": "message_delta", "delta": delta, "usage": usage_to_anthropic(usage or Usage())}
        yield {"type": "message_stop"}

    def _part(self, kind: str, delta: Json) -> Iterator[Json]:
        if self._open != kind:
            yield from self._begin(kind, _STARTS[kind])
        yield {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _call(self, call: Json) -> Iterator[Json]:
        number = as_count(call.get("index")) or 0
        function = as_object(call.get("function"))
        if number not in self._calls:
            self._calls.add(number)
            name = as_text(function.get("name"))
            yield from self._begin(
                number, {"type": "tool_use", "id": as_text(call.get("id")), "name": name, "input": {}}
            )
        elif self._open != number:
            raise ProviderError.unseen(ErrorClass.SERVER_ERROR, "The upstream mixed up the pieces of its tool calls.")
        if fragment := as_text(function.get("arguments")):
            delta = {"type": "input_json_delta", "partial_json": fragment}
            yield {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _begin(self, what: str | int, block: Json) -> Iterator[Json]:
        yield from self._close()
        self._index += 1
        self._open = what
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _close(self) -> Iterator[Json]:
        if self._open is not None:
            self._open = None
            yield {"type": "content_block_stop", "index": self._index}
