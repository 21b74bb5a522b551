"""An OpenAI chat body as a body of Ollama's native `/api/chat` (its `/v1` breaks tool calls and sets sampling defaults).

What Ollama has no word for is left out and named. Format: Ollama's API reference, `POST /api/chat`.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.provider import Json
from providers.shapes import as_list, as_object, as_objects, as_text, text_of
from providers.translate.allowed_tools import tools_and_choice
from providers.translate.refusals import left_in_messages, parts_in

_OPTIONS: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "top_k": "top_k",
    "min_p": "min_p",
    "num_ctx": "num_ctx",
    "repeat_penalty": "repeat_penalty",
}
_LIMITS = ("max_completion_tokens", "max_tokens")
_PASSED = ("keep_alive", "think", "logprobs", "top_logprobs")  # the same on both sides
_TAKEN = frozenset(
    {
        "model", "messages", "stop", *_LIMITS, "tools", "tool_choice", "response_format",
        "reasoning_effort", "stream", "stream_options", "n", "options", *_OPTIONS, *_PASSED,
    }
)  # fmt: skip
_MESSAGE_KEYS = frozenset({"role", "content", "tool_calls", "tool_call_id", "refusal", "reasoning_content"})
_HARMLESS = frozenset({"store", "user", "parallel_tool_calls"})  # nothing of the answer is lost without them
_TAKES_LEVELS = re.compile(r"(^|/)gpt-oss")  # other thinking models know on and off alone
_DATA_URI = re.compile(r"data:[^;,]*;base64,(?P<data>.*)", re.DOTALL)


def to_ollama(model: str, body: Json, *, stream: bool) -> tuple[Json, tuple[str, ...]]:
    """The request and the names of the parameters that it could not carry. Raises: ProviderError(invalid_request)."""
    if (body.get("n") or 1) != 1:
        raise _refusal("Ollama gives one choice: `n` has to be 1.", "n")
    given = as_objects(body.get("messages"))
    request: Json = {"model": model, "messages": _messages(given), "stream": stream}
    if options := _options(body):
        request["options"] = options
    for key in _PASSED:
        if body.get(key) is not None:
            request[key] = body[key]
    dropped = [key for key, value in body.items() if key not in _TAKEN | _HARMLESS and value is not None]
    dropped += _tools(body, request)
    dropped += _format(body, request)
    dropped += left_in_messages(given, _MESSAGE_KEYS)
    if any(part.get("cache_control") for message in given for part in as_objects(message.get("content"))):
        dropped.append("cache_control")
    if effort := as_text(body.get("reasoning_effort")):
        levels = effort != "none" and _TAKES_LEVELS.search(model) is not None
        request["think"] = {"minimal": "low"}.get(effort, effort) if levels else effort != "none"
    return request, tuple(dropped)


def _options(body: Json) -> Json:
    """Raises: ProviderError for a value of the wrong type, which Ollama would answer as a failure of its own."""
    for key in (*_OPTIONS, *_LIMITS):
        value: Any = body.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise _refusal(f"`{key}` has to be a number.", key)
    options: Json = {name: body[key] for key, name in _OPTIONS.items() if body.get(key) is not None}
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit:
        options["num_predict"] = limit
    if stop := body.get("stop"):
        stops = [stop] if isinstance(stop, str) else as_list(stop)
        if not stops or not all(isinstance(text, str) for text in stops):
            raise _refusal("`stop` has to be a text or a list of texts.", "stop")
        options["stop"] = stops
    return {**options, **as_object(body.get("options"))}


def _tools(body: Json, request: Json) -> list[str]:
    """Ollama has no tool_choice; `none` is kept by offering no tools, anything stricter than `auto` cannot be."""
    tools, choice = tools_and_choice(body)
    for tool in tools:
        if tool.get("type", "function") != "function":
            raise _refusal(f"A tool of type `{tool.get('type')}` cannot be carried to Ollama.", "tools")
    if tools and choice != "none":
        request["tools"] = tools
    return ["tool_choice"] if choice not in (None, "auto", "none") else []


def _format(body: Json, request: Json) -> list[str]:
    wanted = as_object(body.get("response_format"))
    if wanted.get("type") == "json_object":
        request["format"] = "json"
    elif wanted.get("type") == "json_schema":
        request["format"] = as_object(as_object(wanted.get("json_schema")).get("schema")) or "json"
    elif wanted.get("type", "text") != "text":
        return ["response_format"]
    return []


def _messages(messages: list[Json]) -> list[Json]:
    names: dict[str, str] = {}  # a tool's answer names its tool there, not only the call
    made: list[Json] = []
    for message in messages:
        role = as_text(message.get("role"))
        for key in ("function_call", "audio"):
            if message.get(key):
                raise _refusal(f"The `{key}` of an assistant's message cannot be carried to Ollama.", "messages")
        parts_in(message.get("content"), "messages")
        text = text_of(message.get("content")) or as_text(message.get("refusal"))
        turn: Json = {"role": "system" if role == "developer" else role, "content": text}
        if images := _images(message.get("content")):
            turn["images"] = images
        if reasoning := as_text(message.get("reasoning_content")):
            turn["thinking"] = reasoning
        if calls := as_objects(message.get("tool_calls")):
            turn["tool_calls"] = [_call(call, names) for call in calls]
        if role == "tool":
            call_id = as_text(message.get("tool_call_id"))
            turn["tool_call_id"] = call_id
            turn["tool_name"] = names.get(call_id) or as_text(message.get("name"))
        made.append(turn)
    return made


def _call(call: Json, names: dict[str, str]) -> Json:
    custom, function = as_object(call.get("custom")), as_object(call.get("function"))
    identity, name = as_text(call.get("id")), as_text((custom or function).get("name"))
    names[identity] = name
    if custom:
        return {"id": identity, "function": {"name": name, "arguments": {"input": as_text(custom.get("input"))}}}
    try:
        arguments: Any = orjson.loads(as_text(function.get("arguments")) or "{}")
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise _refusal("The `arguments` of a tool call have to be a JSON object.", "messages")
    return {"id": identity, "function": {"name": name, "arguments": arguments}}


def _images(content: Any) -> list[str]:
    images: list[str] = []
    for part in as_objects(content):
        kind = part.get("type")
        if kind == "image_url":
            found = _DATA_URI.fullmatch(as_text(as_object(part.get("image_url")).get("url")))
            if found is None:
                raise _refusal("Ollama takes pictures as base64 data URIs only, not by URL.", "messages")
            images.append(found["data"])
        elif kind not in ("text", "refusal"):
            raise _refusal(f"A content part of type `{kind}` cannot be carried to Ollama.", "messages")
    return images


def _refusal(message: str, param: str) -> ProviderError:
    return ProviderError(ErrorClass.INVALID_REQUEST, message, status=400, code="unsupported_value", param=param)
