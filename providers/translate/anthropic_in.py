"""A body of Anthropic's `/v1/messages` as OpenAI chat, for a provider that does not speak Anthropic's dialect.

Parameters that have no word there are left out and named; content that has none is refused, since an answer without it would
be an answer to another question. Formats: Anthropic `/v1/messages`, 2023-06-01 and 2026-10-21; OpenAI `chat/completions`.
"""

from collections.abc import Mapping
from typing import Any

from providers.provider import Json, ProviderType
from providers.shapes import as_count, as_list, as_object, as_objects, as_text
from providers.translate.anthropic_in_turns import Turns
from providers.translate.refusals import refused
from providers.wording import Wording

WIDE: frozenset[ProviderType] = frozenset({"ollama", "simulated"})  # they know more words than OpenAI's own API
_PASSED = ("temperature", "top_p", "stream")
_TAKEN = frozenset(
    {
        "model", "messages", "system", "max_tokens", "stop_sequences", "metadata", "tools", "tool_choice", "top_k",
        "thinking", "output_config", "service_tier", *_PASSED,
    }
)  # fmt: skip
_CHOICES: Mapping[str, str] = {"any": "required", "auto": "auto", "none": "none"}
_EFFORTS = ((2_048, "low"), (16_384, "medium"))  # thinking budgets up to which; above: high
_TOOL_KEYS = frozenset({"type", "name", "description", "input_schema", "strict", "cache_control"})
_OUTPUT_KEYS = frozenset({"effort", "format"})
_THINKING_KEYS = frozenset({"type", "budget_tokens"})
_MOST_STOPS = 4  # OpenAI takes no more


def from_messages(body: Json, target: ProviderType) -> Wording:
    """The request for a provider of type `target`. Raises: ProviderError(invalid_request) for content it cannot carry."""
    dropped = [key for key, value in body.items() if key not in _TAKEN and value is not None]
    turns = Turns(dropped, reasoning=target in WIDE)
    request: Json = {"model": body.get("model"), "messages": turns.of(body), "max_tokens": body.get("max_tokens")}
    for key in _PASSED:
        if body.get(key) is not None:
            request[key] = body[key]
    _sampling(body, request, dropped, wide=target in WIDE)
    _tools(body, request, dropped)
    _thinking(body, request, dropped, wide=target in WIDE)
    _output(body, request)
    dropped += [f"output_config.{key}" for key in as_object(body.get("output_config")) if key not in _OUTPUT_KEYS]
    dropped += [f"thinking.{key}" for key in as_object(body.get("thinking")) if key not in _THINKING_KEYS]
    return Wording(request, tuple(dict.fromkeys(dropped)))


def _sampling(body: Json, request: Json, dropped: list[str], *, wide: bool) -> None:
    if body.get("top_k") is not None:
        if wide:
            request["top_k"] = body["top_k"]
        else:
            dropped.append("top_k")
    stops = as_list(body.get("stop_sequences"))
    if stops:
        request["stop"] = stops if wide else stops[:_MOST_STOPS]
        if len(request["stop"]) < len(stops):
            dropped.append("stop_sequences")
    metadata = as_object(body.get("metadata"))
    if user := as_text(metadata.get("user_id")):
        request["user"] = user
    dropped += [f"metadata.{key}" for key in metadata if key != "user_id"]
    if body.get("service_tier") == "standard_only":
        dropped.append("service_tier")


def _tools(body: Json, request: Json, dropped: list[str]) -> None:
    tools = as_objects(body.get("tools"))
    if not tools:
        return
    request["tools"] = [_tool(tool, at, dropped) for at, tool in enumerate(tools)]
    choice = as_object(body.get("tool_choice"))
    kind = as_text(choice.get("type"))
    if kind == "tool":
        request["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif kind:
        request["tool_choice"] = _CHOICES.get(kind, kind)
    if choice.get("disable_parallel_tool_use") is True:
        request["parallel_tool_calls"] = False


def _tool(tool: Json, at: int, dropped: list[str]) -> Json:
    kind = tool.get("type") or "custom"
    if kind != "custom":
        raise refused(
            f"tools.{at}", f"a tool of type `{kind}` runs at Anthropic and cannot be carried to another provider"
        )
    dropped += [f"tools.{key}" for key in tool if key not in _TOOL_KEYS]
    if tool.get("cache_control"):
        dropped.append("cache_control")
    function: Json = {"name": tool.get("name")}
    if tool.get("description"):
        function["description"] = tool["description"]
    function["parameters"] = as_object(tool.get("input_schema")) or {"type": "object", "properties": {}}
    if tool.get("strict") is True:
        function["strict"] = True
    return {"type": "function", "function": function}


def _thinking(body: Json, request: Json, dropped: list[str], *, wide: bool) -> None:
    """How much to think: an effort by name is the same word; a budget becomes the nearest effort; adaptive is the default."""
    thinking = as_object(body.get("thinking"))
    effort = as_text(as_object(body.get("output_config")).get("effort"))
    match thinking.get("type"):
        case "enabled":
            budget = as_count(thinking.get("budget_tokens")) or 0
            effort = effort or next((name for most, name in _EFFORTS if budget <= most), "high")
            dropped.append("thinking.budget_tokens")
        case "disabled":
            if wide:
                effort = "none"
            else:
                dropped.append("thinking")  # no word that every model of that dialect takes
        case _:
            pass
    if effort:
        request["reasoning_effort"] = effort


def _output(body: Json, request: Json) -> None:
    wanted = as_object(as_object(body.get("output_config")).get("format"))
    schema = as_object(wanted.get("schema"))
    if wanted.get("type") == "json_schema" and schema:
        format_: Json = {"name": "answer", "schema": schema}
        if _is_strict(schema):
            format_["strict"] = True
        request["response_format"] = {"type": "json_schema", "json_schema": format_}


def _is_strict(schema: Any) -> bool:
    """Whether OpenAI takes the schema as a strict one: no further properties anywhere, and all of them required."""
    fields = as_object(schema)
    if not fields:
        return True
    if fields.get("type") == "object" or "properties" in fields:
        names = set(as_object(fields.get("properties")))
        if (
            fields.get("additionalProperties") is not False
            or {as_text(name) for name in as_list(fields.get("required"))} != names
        ):
            return False
    inner = [*as_object(fields.get("properties")).values(), *as_object(fields.get("$defs")).values()]
    return all(map(_is_strict, [*inner, fields.get("items"), *as_list(fields.get("anyOf"))]))
