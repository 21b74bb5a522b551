"""The chunks of a chat completion as the Responses API's events: numbered, item after item, each begun, filled and ended.

The last event waits for the end of the stream: it tells the usage, which is booked by then. Format: OpenAI's API reference,
`responses` streaming events.
"""

from collections.abc import Iterator
from typing import Any

from engine.ledger import Usage
from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.provider import Chunk, Json
from providers.shapes import as_count, as_object, as_objects, as_text
from providers.translate.responses_in_answer import (
    annotations_in,
    call_item,
    ended,
    incomplete_reason,
    new_id,
    reasoning_item,
    text_part,
)

_TOLD_BY = {
    "function_call": "response.function_call_arguments",
    "custom_tool_call": "response.custom_tool_call_input",
}


class EventWriter:
    """Makes the events of one response. `frame` is the object as it stands at the start."""

    def __init__(self, frame: Json) -> None:
        self._frame = frame
        self._number = 0
        self._done: list[Json] = []  # finished items
        self._open: str | int | None = None  # what is open: `reasoning`, `message`, or the number of a call
        self._item: Json = {}
        self._part: str | None = None  # of an open message: `output_text` or `refusal`
        self._pieces: list[str] = []  # of what is being written: a part's text, thoughts or arguments
        self._logprobs: list[Json] = []
        self._annotations: list[Json] = []
        self._thinking: list[Json] = []
        self._calls: set[int] = set()
        self._finish_reason: Any = None

    def start(self) -> Iterator[Json]:
        """The first events."""
        yield self._event("response.created", response=self._frame)
        yield self._event("response.in_progress", response=self._frame)

    def chunk(self, chunk: Chunk) -> Iterator[Json]:
        """The events for one chunk. Raises: ProviderError for what cannot be put into items that follow each other."""
        for choice in as_objects(chunk.body.get("choices")):
            delta = as_object(choice.get("delta"))
            thought = as_text(delta.get("reasoning_content")) or as_text(delta.get("reasoning"))
            if thought or delta.get("thinking_blocks"):
                yield from self._reason(thought, as_objects(delta.get("thinking_blocks")))
            if text := as_text(delta.get("content")):
                yield from self._text(text, as_objects(as_object(choice.get("logprobs")).get("content")))
            if "annotations" in delta:
                yield from self._annotate(annotations_in(delta))
            if refusal := as_text(delta.get("refusal")):
                yield from self._refuse(refusal)
            for call in as_objects(delta.get("tool_calls")):
                yield from self._call(call)
            self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def end(self, usage: Usage | None, **more: Any) -> Iterator[Json]:
        """The last events; `more` goes into the response object. `usage` is what was booked."""
        yield from self._close("incomplete" if incomplete_reason(self._finish_reason) else "completed")
        response = {**ended(self._frame, self._done, self._finish_reason, usage), **more}
        yield self._event(f"response.{response['status']}", response=response)

    def failure(self, code: str, message: str) -> Iterator[Json]:
        """The event that ends a response whose upstream failed: what is open stays open."""
        response = {**self._frame, "status": "failed", "output": self._done}
        response["error"] = {"code": code, "message": message}
        yield self._event("response.failed", response=response)

    def _reason(self, thought: str, blocks: list[Json]) -> Iterator[Json]:
        if self._open != "reasoning":
            yield from self._begin("reasoning", {"id": new_id("rs"), "type": "reasoning", "summary": []})
        self._thinking += blocks
        if not thought:
            return
        if not self._pieces:
            yield self._within("response.reasoning_summary_part.added", summary_index=0, part=_summary(""))
        self._pieces.append(thought)
        yield self._within("response.reasoning_summary_text.delta", summary_index=0, delta=thought)

    def _text(self, text: str, logprobs: list[Json]) -> Iterator[Json]:
        yield from self._begin_part("output_text", text_part("", []))
        self._pieces.append(text)
        self._logprobs += logprobs
        yield self._within("response.output_text.delta", **self._at(), delta=text, logprobs=logprobs)

    def _annotate(self, annotations: list[Json]) -> Iterator[Json]:
        if not annotations:
            return
        yield from self._begin_part("output_text", text_part("", []))
        for annotation in annotations:
            at = {**self._at(), "annotation_index": len(self._annotations)}
            self._annotations.append(annotation)
            yield self._within("response.output_text.annotation.added", **at, annotation=annotation)

    def _refuse(self, text: str) -> Iterator[Json]:
        yield from self._begin_part("refusal", {"type": "refusal", "refusal": ""})
        self._pieces.append(text)
        yield self._within("response.refusal.delta", **self._at(), delta=text)

    def _call(self, call: Json) -> Iterator[Json]:
        number = as_count(call.get("index")) or 0
        if number not in self._calls:
            self._calls.add(number)
            yield from self._begin(number, call_item(call))
        elif self._open != number:
            raise ProviderError.unseen(ErrorClass.SERVER_ERROR, "The upstream mixed up the pieces of its tool calls.")
        custom = as_object(call.get("custom"))
        fragment = as_text(custom.get("input")) or as_text(as_object(call.get("function")).get("arguments"))
        if fragment:
            self._pieces.append(fragment)
            yield self._within(f"{_TOLD_BY[self._item['type']]}.delta", delta=fragment)

    def _begin(self, what: str | int, item: Json) -> Iterator[Json]:
        yield from self._close("completed")
        self._open, self._item = what, item
        yield self._event("response.output_item.added", output_index=len(self._done), item=item)

    def _begin_part(self, kind: str, part: Json) -> Iterator[Json]:
        if self._open != "message":
            item: Json = {
                "id": new_id("msg"),
                "type": "message",
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
            yield from self._begin("message", item)
        if self._part != kind:
            yield from self._close_part()
            self._part = kind
            yield self._within("response.content_part.added", **self._at(), part=part)

    def _close(self, status: str) -> Iterator[Json]:
        """End the open item, if there is one."""
        match self._open:
            case None:
                return
            case "message":
                yield from self._close_part()
                self._item = {**self._item, "status": status}
            case "reasoning":
                yield from self._close_reasoning()
            case _:
                yield self._close_call(status)
        yield self._event("response.output_item.done", output_index=len(self._done), item=self._item)
        self._done.append(self._item)
        self._open, self._item, self._pieces = None, {}, []

    def _close_part(self) -> Iterator[Json]:
        text = "".join(self._pieces)
        match self._part:
            case "output_text":
                part = text_part(text, self._logprobs, self._annotations)
                yield self._within("response.output_text.done", **self._at(), text=text, logprobs=self._logprobs)
            case "refusal":
                part = {"type": "refusal", "refusal": text}
                yield self._within("response.refusal.done", **self._at(), refusal=text)
            case _:
                return
        yield self._within("response.content_part.done", **self._at(), part=part)
        self._item = {**self._item, "content": [*self._item["content"], part]}
        self._part, self._pieces, self._logprobs, self._annotations = None, [], [], []

    def _close_call(self, status: str) -> Json:
        given = "".join(self._pieces)
        kind = self._item["type"]
        told = {"input": given} if kind == "custom_tool_call" else {"arguments": given}
        self._item = {**self._item, **told, "status": status}
        named = {} if kind == "custom_tool_call" else {"name": self._item["name"]}
        return self._within(f"{_TOLD_BY[kind]}.done", **told, **named)

    def _close_reasoning(self) -> Iterator[Json]:
        text = "".join(self._pieces)
        if text:
            yield self._within("response.reasoning_summary_text.done", summary_index=0, text=text)
            yield self._within("response.reasoning_summary_part.done", summary_index=0, part=_summary(text))
        self._item = reasoning_item(self._item["id"], text, self._thinking)
        self._thinking = []

    def _at(self) -> Json:
        return {"content_index": len(self._item["content"])}

    def _within(self, kind: str, **fields: Any) -> Json:
        """An event about the open item."""
        return self._event(kind, item_id=self._item["id"], output_index=len(self._done), **fields)

    def _event(self, kind: str, **fields: Any) -> Json:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return event


def _summary(text: str) -> Json:
    return {"type": "summary_text", "text": text}
