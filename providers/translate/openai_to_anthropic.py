"""An OpenAI chat body as an Anthropic Messages body.

System messages are hoisted, neighbours of one role merged, all tool results of a turn put into one user message. What
Anthropic has no word for is left out and named. Formats: OpenAI `chat/completions`; Anthropic `/v1/messages`, 2023-06-01.
"""

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.provider import Json
from providers.shapes import as_list, as_object, as_objects, as_text, text_of
from providers.translate.allowed_tools import tools_and_choice
from providers.translate.anthropic_schema import structured_schema
from providers.translate.refusals import left_in_messages, parts_in

DEFAULT_MAX_TOKENS = 4096  # Anthropic requires a limit; this is the workflow language's default too
_EFFORTS: Mapping[str, str] = {"minimal": "low"}  # OpenAI's names that Anthropic lacks; "none" means: do not ask
_DATA_URI = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+);base64,(?P<data>.*)", re.DOTALL)
_PASSED = (
    "stream",
    "top_k",
    "thinking",
    "cache_control",
    "speed",
    "container",
    "inference_geo",
)  # the same on both sides
_TAKEN = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "tools",
        "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "user", "stream_options",
        "n", *_PASSED,
    }
)  # fmt: skip
_MESSAGE_KEYS = frozenset({"role", "content", "tool_calls", "tool_call_id", "refusal", "thinking_blocks"})
_HARMLESS = frozenset({"store"})  # asks OpenAI to keep or not to keep a copy: nothing of the answer is lost


def to_anthropic(model: str, body: Json) -> tuple[Json, tuple[str, ...]]:
    """The request and the names of the parameters that it could not carry. Raises: ProviderError(invalid_request)."""
    if (body.get("n") or 1) != 1:
        raise _refusal("Anthropic gives one choice: `n` has to be 1.", "n")
    given = as_objects(body.get("messages"))
    system, messages = _conversation(given)
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_MAX_TOKENS
    request: Json = {"model": model, "max_tokens": limit, "messages": messages}
    if system:
        request["system"] = system
    dropped = [key for key, value in body.items() if key not in _TAKEN | _HARMLESS and value is not None]
    for key in _PASSED:
        if body.get(key) is not None:
            request[key] = body[key]
    dropped += _sampling(body, request)
    _tools(body, request)
    dropped += _output(body, request)
    dropped += left_in_messages(given, _MESSAGE_KEYS)
    if user := as_text(body.get("user")):
        request["metadata"] = {"user_id": user}
    return request, tuple(dropped)


def _sampling(body: Json, request: Json) -> list[str]:
    """Temperature ends at 1 there, and a blank text stops nothing; newer models take one of temperature and top_p, not both.

    Raises: ProviderError for stops that are no texts: what is left of them would stop elsewhere, or nowhere.
    """
    dropped: list[str] = []
    temperature: Any = body.get("temperature")
    if temperature is not None:
        request["temperature"] = min(temperature, 1) if isinstance(temperature, (int, float)) else temperature
        if request["temperature"] != temperature:
            dropped.append("temperature")
    if body.get("top_p") is not None:
        if "temperature" in request:
            dropped.append("top_p")
        else:
            request["top_p"] = body["top_p"]
    if stop := body.get("stop"):
        stops = [stop] if isinstance(stop, str) else as_list(stop)
        if not stops or not all(isinstance(text, str) for text in stops):
            raise _refusal("`stop` has to be a text or a list of texts.", "stop")
        request["stop_sequences"] = [text for text in stops if text.strip()]
        if request["stop_sequences"] != stops:
            dropped.append("stop")
    return dropped


def _tools(body: Json, request: Json) -> None:
    offered, chosen = tools_and_choice(body)
    tools = [_tool(tool) for tool in offered]
    if not tools:
        return
    request["tools"] = tools
    choice = _tool_choice(chosen)
    if body.get("parallel_tool_calls") is False:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    if choice:
        request["tool_choice"] = choice


def _tool(tool: Json) -> Json:
    if tool.get("type", "function") != "function":
        raise _refusal(f"A tool of type `{tool.get('type')}` cannot be carried to Anthropic.", "tools")
    function = as_object(tool.get("function"))
    made: Json = {
        "name": function.get("name"),
        "input_schema": as_object(function.get("parameters")) or {"type": "object", "properties": {}},
    }
    if function.get("description"):
        made["description"] = function["description"]
    if function.get("strict") is True:
        made["strict"] = True
        made["input_schema"] = structured_schema(made["input_schema"])
    for holder in (tool, function):
        if holder.get("cache_control"):
            made["cache_control"] = holder["cache_control"]
    return made


def _tool_choice(choice: Any) -> Json | None:
    if isinstance(choice, str):
        return {"type": {"required": "any"}.get(choice, choice)}
    name = as_object(as_object(choice).get("function")).get("name")
    return {"type": "tool", "name": name} if name else None


def _output(body: Json, request: Json) -> list[str]:
    """Answer format and effort, which share one object there."""
    dropped: list[str] = []
    output: Json = {}
    wanted = as_object(body.get("response_format"))
    schema = as_object(as_object(wanted.get("json_schema")).get("schema"))
    if wanted.get("type") == "json_schema" and schema:
        output["format"] = {"type": "json_schema", "schema": structured_schema(schema)}
    elif wanted.get("type", "text") != "text":
        dropped.append("response_format")
    effort = as_text(body.get("reasoning_effort"))
    if effort and effort != "none":
        output["effort"] = _EFFORTS.get(effort, effort)
    if output:
        request["output_config"] = output
    return dropped


def _conversation(messages: list[Json]) -> tuple[str | list[Json], list[Json]]:
    system: list[Json] = []
    turns: list[Json] = []
    for message in messages:
        role = as_text(message.get("role"))
        if role in ("system", "developer"):
            system += _parts(message.get("content"), _text_part)
        elif role in ("user", "assistant", "tool"):
            _add(turns, "assistant" if role == "assistant" else "user", _BLOCKS[role](message))
        else:
            raise _refusal(f"A message with the role `{role}` cannot be carried to Anthropic.", "messages")
    if turns and turns[-1]["role"] == "assistant":
        _trim(turns[-1]["content"])
    plain = len(system) == 1 and set(system[0]) == {"type", "text"}
    return (system[0]["text"] if plain else system), turns


def _add(turns: list[Json], role: str, blocks: list[Json]) -> None:
    """Append blocks to the last turn where it has the same role; an empty message has no place there."""
    if not blocks:
        return
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    else:
        turns.append({"role": role, "content": blocks})


def _trim(blocks: list[Json]) -> None:
    """A prefill must not end in white space there."""
    if blocks[-1]["type"] == "text":
        blocks[-1]["text"] = blocks[-1]["text"].rstrip()
        if not blocks[-1]["text"] and len(blocks) > 1:
            blocks.pop()


def _user(message: Json) -> list[Json]:
    return _parts(message.get("content"), _user_part)


def _assistant(message: Json) -> list[Json]:
    for key in ("function_call", "audio"):
        if message.get(key):
            raise _refusal(f"The `{key}` of an assistant's message cannot be carried to Anthropic.", "messages")
    blocks = [dict(block) for block in as_objects(message.get("thinking_blocks"))]  # signed: returned as they came
    blocks += _parts(message.get("content"), _text_part)
    if refusal := as_text(message.get("refusal")):
        blocks.append({"type": "text", "text": refusal})
    blocks += [_call(call) for call in as_objects(message.get("tool_calls"))]
    return blocks


def _call(call: Json) -> Json:
    custom, function = as_object(call.get("custom")), as_object(call.get("function"))
    given = {"input": as_text(custom.get("input"))} if custom else _arguments(function)
    return {"type": "tool_use", "id": call.get("id"), "name": (custom or function).get("name"), "input": given}


def _arguments(function: Json) -> Json:
    try:
        arguments: Any = orjson.loads(as_text(function.get("arguments")) or "{}")
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise _refusal("The `arguments` of a tool call have to be a JSON object.", "messages")
    return as_object(arguments)  # pyright: ignore[reportUnknownArgumentType]


def _tool_result(message: Json) -> list[Json]:
    content = message.get("content")
    result: Json = {"type": "tool_result", "tool_use_id": message.get("tool_call_id")}
    blocks = _parts(content, _user_part)
    if blocks:
        result["content"] = text_of(content) if isinstance(content, str) else blocks
    return [result]


def _parts(content: Any, convert: Callable[[Json], Json | None]) -> list[Json]:
    """Content as blocks; empty texts, which Anthropic refuses, are left out. Raises: ProviderError for what is no content."""
    blocks: list[Json] = []
    for part in parts_in(content, "messages"):
        if block := convert(part):
            if part.get("cache_control"):
                block["cache_control"] = part["cache_control"]
            blocks.append(block)
    return blocks


def _text_part(part: Json) -> Json | None:
    if part.get("type", "text") not in ("text", "refusal"):
        raise _refusal(f"A content part of type `{part.get('type')}` can be a user's alone.", "messages")
    text = as_text(part.get("text")) or as_text(part.get("refusal"))
    return {"type": "text", "text": text} if text else None


def _user_part(part: Json) -> Json | None:
    match part.get("type"):
        case "text":
            return _text_part(part)
        case "image_url":
            return {"type": "image", "source": _source(as_text(as_object(part.get("image_url")).get("url")))}
        case "file":
            file = as_object(part.get("file"))
            block: Json = {"type": "document", "source": _document(as_text(file.get("file_data")))}
            return {**block, "title": file["filename"]} if as_text(file.get("filename")) else block
        case kind:
            raise _refusal(f"A content part of type `{kind}` cannot be carried to Anthropic.", "messages")


def _document(url: str) -> Json:
    """Texts go as text there: base64 is for PDFs alone."""
    source = _source(url)
    if not as_text(source.get("media_type")).startswith("text/"):
        return source
    try:
        return {"type": "text", "media_type": "text/plain", "data": base64.b64decode(source["data"]).decode()}
    except ValueError:
        raise _refusal("A text file has to be UTF-8 in base64.", "messages") from None


def _source(url: str) -> Json:
    if found := _DATA_URI.fullmatch(url):
        return {"type": "base64", "media_type": found["type"], "data": found["data"]}
    if url.startswith(("https://", "http://")):
        return {"type": "url", "url": url}
    raise _refusal("A picture or file has to be a base64 data URI or an http(s) URL.", "messages")


def _refusal(message: str, param: str) -> ProviderError:
    return ProviderError(ErrorClass.INVALID_REQUEST, message, status=400, code="unsupported_value", param=param)


_BLOCKS: Mapping[str, Callable[[Json], list[Json]]] = {"user": _user, "assistant": _assistant, "tool": _tool_result}
