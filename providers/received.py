"""What has come in of an answer so far, and about what it is worth where nobody told the usage."""

from dataclasses import replace

from engine.clock import Clock
from engine.ledger import Usage
from engine.token_estimate import BYTES_PER_TOKEN
from providers.provider import Answer, Chunk, Json
from providers.shapes import as_object, as_objects

_TEXT_KEYS = ("content", "reasoning_content", "reasoning", "refusal")


class Received:
    """What has come in of an answer so far."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.reported_picousd: int | None = None
        self.first_us: int | None = None
        self.begun = False
        self.answer: Answer | None = None
        self.first_chunk: Chunk | None = None
        self.finish_reason: str | None = None  # of a stream
        self._prompt_usage: Usage | None = None
        self._size = 0

    def whole(self, answer: Answer) -> None:
        """Note a whole answer."""
        self.begun, self.answer = True, answer
        self.usage, self.reported_picousd = answer.usage, answer.reported_cost_picousd
        if answer.native:
            self._size = answer.size
        elif answer.usage is None:
            self._size = sum(
                _size(as_object(choice.get("message"))) for choice in as_objects(answer.body.get("choices"))
            )

    def chunk(self, chunk: Chunk, clock: Clock) -> None:
        """Note a chunk of a stream; `clock` is asked at the first content alone."""
        if not self.begun:
            self.begun, self.first_chunk = True, chunk
        self.finish_reason = chunk.finish_reason or self.finish_reason
        if chunk.has_content:
            self.first_us = self.first_us or clock()
            self._size += chunk.size
            for choice in as_objects(chunk.body.get("choices")):
                self._size += _size(as_object(choice.get("delta")))
        self._prompt_usage = self._prompt_usage or chunk.prompt_usage
        if chunk.usage is not None:
            self.usage = chunk.usage
        if chunk.reported_cost_picousd is not None:
            self.reported_picousd = chunk.reported_cost_picousd

    def estimate(self, prompt_tokens: int) -> Usage:
        """About what has been used so far: the input as told, else `prompt_tokens`; the output as it came in."""
        told = self._prompt_usage or Usage(input=prompt_tokens)
        return replace(told, output=max(told.output, -(-self._size // BYTES_PER_TOKEN)))


def _size(message: Json) -> int:
    size = 0
    for key, value in message.items():  # of a stream's chunk, which has one or two
        if key in _TEXT_KEYS:
            size += len(value) if isinstance(value, str) else 0
        elif key == "tool_calls":
            functions = (as_object(call.get("function")) for call in as_objects(value))
            size += sum(len(text) for function in functions for text in function.values() if isinstance(text, str))
    return size
