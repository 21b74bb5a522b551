"""OpenAI's chat completion as a Responses object. Format: OpenAI's API reference, `responses`."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from engine.ledger import Usage
from providers.provider import Json
from providers.shapes import as_list, as_object, as_objects, as_text, text_of
from providers.translate.reasoning_seal import sealed

_ECHOED = (
    "instructions", "max_output_tokens", "max_tool_calls", "metadata", "temperature", "top_p", "user", "service_tier",
    "safety_identifier", "prompt_cache_key", "top_logprobs",
)  # fmt: skip


def new_id(prefix: str) -> str:
    """An id as OpenAI shapes them: `resp`, `msg`, `rs`, `fc`."""
    return f"{prefix}_{secrets.token_hex(16)}"


def response_frame(body: Json, model: str) -> Json:
    """The object before there is any output; it repeats what was asked, as OpenAI's does. `store` tells that it is not kept."""
    reasoning = as_object(body.get("reasoning"))
    parallel: Any = body.get("parallel_tool_calls")
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "parallel_tool_calls": True if parallel is None else parallel,
        "previous_response_id": None,
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "store": False,
        "text": {"format": {"type": "text"}, **as_object(body.get("text"))},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": as_list(body.get("tools")),
        "truncation": "disabled",
        "usage": None,
        **{key: body.get(key) for key in _ECHOED},
        "metadata": as_object(body.get("metadata")),
    }


def to_response(completion: Json, body: Json, model: str, usage: Usage | None) -> Json:
    """The whole answer. `usage` is what was booked."""
    choices = as_objects(completion.get("choices"))
    choice: Json = choices[0] if choices else {}
    frame = response_frame(body, as_text(completion.get("model")) or model)
    return ended(frame, _output(choice), choice.get("finish_reason"), usage)


def ended(frame: Json, output: list[Json], finish_reason: Any, usage: Usage | None) -> Json:
    """The object at its end: `completed`, or `incomplete` with the reason."""
    reason = incomplete_reason(finish_reason)
    return {
        **frame,
        "status": "incomplete" if reason else "completed",
        "completed_at": None if reason else int(time.time()),
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "usage": usage_to_responses(usage or Usage()),
    }


def incomplete_reason(finish_reason: Any) -> str | None:
    """Why an answer is not complete; None where it is."""
    return {"length": "max_output_tokens", "content_filter": "content_filter"}.get(as_text(finish_reason))


def usage_to_responses(usage: Usage) -> Json:
    """The ledger's buckets in OpenAI's words: `input_tokens` includes the cached ones."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_writes},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total_tokens,
    }


def text_part(text: str, logprobs: list[Json], annotations: Sequence[Json] = ()) -> Json:
    """A text in a message."""
    return {"type": "output_text", "text": text, "annotations": list(annotations), "logprobs": logprobs}


def annotations_in(message: Json) -> list[Json]:
    """What a text refers to: chat has a frame around each that the Responses dialect has not."""
    return [
        {key: value for key, value in told.items() if key != "url_citation"} | as_object(told.get("url_citation"))
        for told in as_objects(message.get("annotations"))
    ]


def reasoning_item(identity: str, text: str, blocks: list[Json]) -> Json:
    """A reasoning item that is complete; signed blocks ride along for the way back."""
    summary = [{"type": "summary_text", "text": text}] if text else []
    item: Json = {"id": identity, "type": "reasoning", "summary": summary}
    if blocks:
        item["encrypted_content"] = sealed(blocks)
    return item


def _output(choice: Json) -> list[Json]:
    message = as_object(choice.get("message"))
    status = "incomplete" if incomplete_reason(choice.get("finish_reason")) else "completed"
    items: list[Json] = []
    thoughts = as_text(message.get("reasoning_content")) or as_text(message.get("reasoning"))
    blocks = as_objects(message.get("thinking_blocks"))
    if thoughts or blocks:
        items.append(reasoning_item(new_id("rs"), thoughts, blocks))
    parts: list[Json] = []
    if text := text_of(message.get("content")):
        logprobs = as_objects(as_object(choice.get("logprobs")).get("content"))
        parts.append(text_part(text, logprobs, annotations_in(message)))
    if refusal := as_text(message.get("refusal")):
        parts.append({"type": "refusal", "refusal": refusal})
    if parts:
        items.append({"id": new_id("msg"), "type": "message", "status": status, "role": "assistant", "content": parts})
    items += [_call(call) for call in as_objects(message.get("tool_calls"))]
    return items


def call_item(call: Json) -> Json:
    """A call of a function or of a custom tool, as it stands before anything is told of what it is given."""
    custom = as_object(call.get("custom"))
    kind, prefix, key = ("custom_tool_call", "ctc", "input") if custom else ("function_call", "fc", "arguments")
    name = as_text((custom or as_object(call.get("function"))).get("name"))
    item: Json = {"id": new_id(prefix), "type": kind, "status": "in_progress", key: ""}
    return {**item, "call_id": as_text(call.get("id")), "name": name}


def _call(call: Json) -> Json:
    custom = as_object(call.get("custom"))
    given = {"input": as_text(custom.get("input"))} if custom else {}
    arguments = {} if custom else {"arguments": as_text(as_object(call.get("function")).get("arguments"))}
    return {**call_item(call), **given, **arguments, "status": "completed"}
