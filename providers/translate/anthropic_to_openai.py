"""An Anthropic message, whole or streamed, as OpenAI's chat completion. Format: Anthropic `/v1/messages` and its events.

Signed thinking travels twice: its text as `reasoning_content`, the blocks themselves as `thinking_blocks`, which a client
hands back unread with the tool results.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from engine.ledger import Usage
from engine.states import ErrorClass
from providers.completions import ChunkMaker, completion, tool_call
from providers.errors import ProviderError
from providers.provider import Chunk, Json
from providers.shapes import as_count, as_object, as_objects, as_text, told_count

_FINISH: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # the turn is not over: anything but "stop"
    "refusal": "content_filter",
}
_THINKING = ("thinking", "redacted_thinking")


def from_anthropic(message: Json) -> tuple[Json, Usage | None]:
    """The whole answer and its usage."""
    blocks = as_objects(message.get("content"))
    made: Json = {"role": "assistant", "content": _joined(blocks, "text")}
    if reasoning := _joined(blocks, "thinking"):
        made["reasoning_content"] = reasoning
    if thinking := [block for block in blocks if block.get("type") in _THINKING]:
        made["thinking_blocks"] = thinking
    calls = [
        tool_call(as_text(block.get("id")), as_text(block.get("name")), orjson.dumps(block.get("input") or {}).decode())
        for block in blocks
        if block.get("type") == "tool_use"
    ]
    if calls:
        made["tool_calls"] = calls
        made["content"] = made["content"] or None
    usage = usage_of(as_object(message.get("usage")))
    body = completion(
        as_text(message.get("id")),
        as_text(message.get("model")),
        message=made,
        finish_reason=finish_reason(message.get("stop_reason")),
        usage=usage,
    )
    return body, usage


def finish_reason(stop_reason: Any) -> str:
    """OpenAI's word; an unknown reason is `stop`, since clients fail on words they do not know."""
    return _FINISH.get(as_text(stop_reason), "stop")


def usage_of(told: Json) -> Usage | None:
    """Anthropic's counts, which are disjoint already (`input_tokens` excludes the cache); None where they make no sense."""
    given, output = told_count(told, "input_tokens"), told_count(told, "output_tokens")
    if told.get("input_tokens") is None or given is None or output is None:
        return None
    written = as_count(told.get("cache_creation_input_tokens")) or 0
    for_an_hour = as_count(as_object(told.get("cache_creation")).get("ephemeral_1h_input_tokens")) or 0
    usage = Usage(
        input=given,
        cache_read=as_count(told.get("cache_read_input_tokens")) or 0,
        cache_write=max(0, written - for_an_hour),
        cache_write_1h=for_an_hour,
        output=output,
        reasoning=as_count(as_object(told.get("output_tokens_details")).get("thinking_tokens")) or 0,
    )
    return usage if usage.total_tokens else None


class MessageReader:
    """Turns Anthropic's stream events into chunks and knows whether the message is whole."""

    def __init__(self, model: str, dropped: tuple[str, ...]) -> None:
        self._model = model
        self._dropped = dropped
        self._maker = ChunkMaker(model)
        self._told: Json = {}  # usage so far: later events are cumulative and may leave counts out
        self._output_told = False  # the count in message_start is only the first tokens
        self._blocks: dict[int, Json] = {}
        self._calls = 0
        self.finished = False
        self.done = False

    @property
    def told_usage(self) -> Usage | None:
        """What has been told so far: on a cut stream at least the input."""
        return usage_of(self._told)

    def event(self, body: Json) -> Iterator[Chunk]:
        """The chunks for one event; unknown events and pings give none. Raises: ProviderError where it makes no sense."""
        index = as_count(body.get("index")) or 0
        match body.get("type"):
            case "message_start":
                yield self._start(as_object(body.get("message")))
            case "content_block_start":
                yield from self._block_start(index, as_object(body.get("content_block")))
            case "content_block_delta":
                yield from self._delta(index, as_object(body.get("delta")))
            case "content_block_stop":
                yield from self._block_stop(index)
            case "message_delta":
                yield from self._message_delta(body)
            case "message_stop":
                self.done = True
            case _:
                return

    def usage_chunk(self) -> Iterator[Chunk]:
        """The last chunk, where the usage was told; for the end of the stream, which need not have a message_stop."""
        usage = self.told_usage
        if usage is not None and self._output_told:
            yield self._maker.usage(usage)

    def _start(self, message: Json) -> Chunk:
        self._note_usage(message.get("usage"))
        self._maker = ChunkMaker(as_text(message.get("model")) or self._model, as_text(message.get("id")) or None)
        return replace(self._maker.role(self._dropped), prompt_usage=self.told_usage)

    def _block_start(self, index: int, block: Json) -> Iterator[Chunk]:
        self._blocks[index] = {**block, "_call": self._calls, "_json": False}
        if block.get("type") == "tool_use":
            call = tool_call(as_text(block.get("id")), as_text(block.get("name")), "")
            yield self._maker.delta(tool_calls=[{"index": self._calls, **call}])
            self._calls += 1
        elif text := as_text(block.get("text")):
            yield self._maker.delta(content=text)

    def _delta(self, index: int, delta: Json) -> Iterator[Chunk]:
        block = self._blocks.get(index)
        if block is None:
            raise ProviderError.unseen(ErrorClass.SERVER_ERROR, "The upstream sent content for a block it never began.")
        match delta.get("type"):
            case "text_delta":
                yield self._maker.delta(content=as_text(delta.get("text")))
            case "input_json_delta":
                if fragment := as_text(delta.get("partial_json")):
                    block["_json"] = True
                    yield self._arguments(block, fragment)
            case "thinking_delta":
                text = as_text(delta.get("thinking"))
                block["thinking"] = as_text(block.get("thinking")) + text
                yield self._maker.delta(reasoning_content=text)
            case "signature_delta":
                block["signature"] = as_text(block.get("signature")) + as_text(delta.get("signature"))
            case _:
                return

    def _block_stop(self, index: int) -> Iterator[Chunk]:
        block = self._blocks.pop(index, None) or {}
        if block.get("type") == "tool_use" and not block["_json"]:
            yield self._arguments(block, orjson.dumps(block.get("input") or {}).decode())
        elif block.get("type") in _THINKING:
            kept = {key: value for key, value in block.items() if not key.startswith("_")}
            yield self._maker.delta(thinking_blocks=[kept])

    def _arguments(self, block: Json, fragment: str) -> Chunk:
        return self._maker.delta(tool_calls=[{"index": block["_call"], "function": {"arguments": fragment}}])

    def _message_delta(self, body: Json) -> Iterator[Chunk]:
        self._note_usage(body.get("usage"))
        self._output_told = self._output_told or "output_tokens" in as_object(body.get("usage"))
        if reason := as_object(body.get("delta")).get("stop_reason"):
            self.finished = True
            yield self._maker.finish(finish_reason(reason))

    def _note_usage(self, told: Any) -> None:
        self._told.update({key: value for key, value in as_object(told).items() if value is not None})


def _joined(blocks: list[Json], kind: str) -> str:
    return "".join(as_text(block.get(kind)) for block in blocks if block.get("type") == kind)
