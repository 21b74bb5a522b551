"""OpenAI's chat completion as an Anthropic message. Format: Anthropic `/v1/messages`.

Thinking that comes from elsewhere carries no signature, so its `signature` is empty; Anthropic would refuse such a block, and
`without_unsigned` takes it out again where the conversation goes on there.
"""

import secrets
from collections.abc import Mapping
from typing import Any

import orjson

from engine.ledger import Usage
from providers.provider import Json
from providers.shapes import as_list, as_object, as_objects, as_text, text_of

_STOPS: Mapping[str, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def new_message_id() -> str:
    """An id as Anthropic shapes them."""
    return f"msg_{secrets.token_hex(12)}"


def to_message(completion: Json, model: str, usage: Usage | None) -> Json:
    """The whole message. `usage` is what was booked."""
    choices = as_objects(completion.get("choices"))
    choice: Json = choices[0] if choices else {}
    blocks = _blocks(as_object(choice.get("message")))
    calls = any(block["type"] == "tool_use" for block in blocks)
    return {
        "id": new_message_id(),
        "type": "message",
        "role": "assistant",
        "model": as_text(completion.get("model")) or model,
        "content": blocks,
        "stop_reason": stop_reason(choice.get("finish_reason"), calls=calls),
        "stop_sequence": None,
        "usage": usage_to_anthropic(usage or Usage()),
    }


def stop_reason(finish_reason: Any, *, calls: bool) -> str:
    """Anthropic's word. Some vendors say `stop` after tool calls; a client would not run them then."""
    reason = _STOPS.get(as_text(finish_reason), "end_turn")
    return "tool_use" if calls and reason == "end_turn" else reason


def usage_to_anthropic(usage: Usage) -> Json:
    """The ledger's buckets, which are Anthropic's: `input_tokens` is without the cache."""
    told: Json = {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_writes,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
    }
    if usage.cache_write_1h:
        told["cache_creation"] = {
            "ephemeral_5m_input_tokens": usage.cache_write,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        }
    if usage.reasoning:
        told["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return told


def tool_input(arguments: str) -> Json:
    """The arguments of a call as an object; text that is none is kept under a name, so that nothing is lost."""
    try:
        given: Any = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        given = None
    return as_object(given) if isinstance(given, dict) else {"_arguments": arguments}  # pyright: ignore[reportUnknownArgumentType]


def without_unsigned(body: Json) -> tuple[Json, bool]:
    """The request without thinking that did not come from Anthropic, and whether there was any. `body` is not changed."""
    messages = as_list(body.get("messages"))
    if not any(_unsigned(block) for message in as_objects(messages) for block in as_objects(message.get("content"))):
        return body, False
    kept = [turn for message in messages if (turn := _signed_turn(message)) is not None]
    return {**body, "messages": kept}, True


def _signed_turn(message: Any) -> Any:
    """The turn without unsigned thinking; None where nothing else was in it."""
    content = as_list(as_object(message).get("content"))
    kept = [block for block in content if not _unsigned(block)]
    if len(kept) == len(content):
        return message
    return {**as_object(message), "content": kept} if kept else None


def _unsigned(block: Any) -> bool:
    fields = as_object(block)
    return fields.get("type") == "thinking" and not fields.get("signature")


def _blocks(message: Json) -> list[Json]:
    blocks: list[Json] = []
    if thoughts := as_text(message.get("reasoning_content")) or as_text(message.get("reasoning")):
        blocks.append({"type": "thinking", "thinking": thoughts, "signature": ""})
    if text := text_of(message.get("content")) or as_text(message.get("refusal")):
        blocks.append({"type": "text", "text": text})
    for call in as_objects(message.get("tool_calls")):
        function = as_object(call.get("function"))
        name, arguments = as_text(function.get("name")), as_text(function.get("arguments"))
        blocks.append({"type": "tool_use", "id": as_text(call.get("id")), "name": name, "input": tool_input(arguments)})
    return blocks
