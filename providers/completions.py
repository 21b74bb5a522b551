"""Builds OpenAI's chat objects for providers that speak something else. Format: OpenAI's `chat.completion` and its chunk."""

import secrets
import time
from typing import Any

from engine.ledger import Usage
from providers.provider import Chunk, Json
from providers.usage import usage_to_openai


def new_completion_id() -> str:
    """An id as OpenAI shapes them."""
    return f"chatcmpl-{secrets.token_hex(12)}"


def new_call_id() -> str:
    """An id for a tool call whose upstream gives none."""
    return f"call_{secrets.token_hex(12)}"


def completion(identity: str, model: str, *, message: Json, finish_reason: str, usage: Usage | None) -> Json:
    """A whole answer with one choice; `usage` is left out where it is not known."""
    body: Json = {
        "id": identity,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}],
    }
    if usage is not None:
        body["usage"] = usage_to_openai(usage)
    return body


def tool_call(identity: str, name: str, arguments: str) -> Json:
    """A function call in a message; `arguments` is JSON text."""
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


class ChunkMaker:
    """Makes the chunks of one answer: the same id, model and time in each, as clients require."""

    def __init__(self, model: str, identity: str | None = None) -> None:
        self._frame: Json = {
            "id": identity or new_completion_id(),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }

    def role(self, dropped: tuple[str, ...] = ()) -> Chunk:
        """The opening chunk, without content."""
        return Chunk(self._body({"role": "assistant", "content": ""}, None), dropped=dropped)

    def delta(self, **delta: Any) -> Chunk:
        """A chunk with content of some kind: text, reasoning or tool calls."""
        return Chunk(self._body(delta, None), has_content=True)

    def finish(self, reason: str) -> Chunk:
        """The chunk that ends the choice."""
        return Chunk(self._body({}, reason), finish_reason=reason)

    def usage(self, usage: Usage) -> Chunk:
        """The chunk without choices that tells the usage."""
        body: Json = {**self._frame, "choices": [], "usage": usage_to_openai(usage)}
        return Chunk(body, usage=usage, usage_only=True)

    def _body(self, delta: Json, finish_reason: str | None) -> Json:
        choice: Json = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._frame, "choices": [choice]}
