"""A body of OpenAI's `/v1/responses` as OpenAI chat. Stateless: nothing is kept here that a later request could refer to.

What asks for state, or for tools that run at OpenAI, is refused; parameters that chat has no word for are left out and named.
Formats: OpenAI's API reference, `responses` and `chat/completions`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from providers.provider import Json, ProviderType
from providers.shapes import as_list, as_object, as_objects, as_text
from providers.translate.refusals import refused
from providers.translate.responses_in_items import Items
from providers.translate.thoughts import with_thoughts_for
from providers.wording import Wording

_SAME = (
    "temperature", "top_p", "stream", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "prompt_cache_options", "service_tier",
)  # fmt: skip
_TAKEN = frozenset(
    {
        "model", "input", "instructions", "max_output_tokens", "tools", "tool_choice", "parallel_tool_calls", "text",
        "reasoning", "include", "metadata", "store", "stream_options", "top_logprobs", "truncation", *_SAME,
    }
)  # fmt: skip
_STATEFUL: Mapping[str, str] = {
    "previous_response_id": "no response is kept here; send the whole conversation as `input`",
    "conversation": "no conversation is kept here; send it as `input`",
    "prompt": "no prompt template is kept here; send `instructions` and `input`",
    "background": "no response is kept here to be fetched later; a run of a workflow is kept (POST /v1/runs)",
}
_TOOLS: Mapping[str, tuple[str, ...]] = {  # what is carried besides the name
    "function": ("description", "parameters", "strict"),
    "custom": ("description", "format"),
}
_LOGPROBS = "message.output_text.logprobs"
_ENCRYPTED = "reasoning.encrypted_content"
_REASONING_KEYS = frozenset(
    {"effort", "summary", "generate_summary"}
)  # thoughts that there are always come as a summary


@dataclass(frozen=True, slots=True)
class ChatOfResponses:
    """A request as chat, with what was thought before under both names that chat has for it."""

    body: Json
    dropped: tuple[str, ...]

    def worded(self, target: ProviderType) -> Wording:
        """The request for a provider of type `target`, which may refuse earlier thoughts."""
        messages, lost = with_thoughts_for(target, self.body["messages"])
        dropped = (*self.dropped, "input.reasoning") if lost else self.dropped
        return Wording({**self.body, "messages": messages}, tuple(dict.fromkeys(dropped)))


def from_responses(body: Json) -> ChatOfResponses:
    """The request. Raises: ProviderError(invalid_request) that names what cannot be carried."""
    for key, reason in _STATEFUL.items():
        if body.get(key):
            raise refused(key, reason)
    dropped = [key for key, value in body.items() if key not in _TAKEN and key not in _STATEFUL and value is not None]
    if body.get("store") is True:
        dropped.append("store")
    if body.get("truncation") == "auto":
        dropped.append("truncation")
    request: Json = {"model": body.get("model"), "messages": Items(dropped).messages(body)}
    if body.get("max_output_tokens") is not None:
        request["max_completion_tokens"] = body["max_output_tokens"]
    for key in _SAME:
        if body.get(key) is not None:
            request[key] = body[key]
    _tools(body, request, dropped)
    _text(as_object(body.get("text")), request, dropped)
    _reasoning(as_object(body.get("reasoning")), request, dropped)
    _include(body, request, dropped)
    return ChatOfResponses(request, tuple(dict.fromkeys(dropped)))


def _tools(body: Json, request: Json, dropped: list[str]) -> None:
    tools = [_tool(tool, at, dropped) for at, tool in enumerate(as_objects(body.get("tools")))]
    choice: Any = body.get("tool_choice")
    if as_object(choice).get("type") == "allowed_tools":
        allowed = {as_text(each.get("name")) for each in as_objects(choice.get("tools"))}
        tools = [tool for tool in tools if as_text(tool[tool["type"]]["name"]) in allowed]
        choice = choice.get("mode") or "auto"
    if not tools:
        return
    request["tools"] = tools
    if isinstance(choice, str):
        request["tool_choice"] = choice
    elif choice is not None:
        wanted = as_object(choice)
        kind = as_text(wanted.get("type"))
        if kind not in _TOOLS:
            raise refused("tool_choice", f"a choice of type `{kind}` is not known here; function and custom tools are")
        request["tool_choice"] = {"type": kind, kind: {"name": wanted.get("name")}}
    if body.get("parallel_tool_calls") is not None:
        request["parallel_tool_calls"] = body["parallel_tool_calls"]


def _tool(tool: Json, at: int, dropped: list[str]) -> Json:
    kind = as_text(tool.get("type"))
    if kind not in _TOOLS:
        raise refused(
            f"tools[{at}]",
            f"a tool of type `{kind}` runs at OpenAI and is not known here; function and custom tools are",
        )
    made: Json = {"name": tool.get("name")}
    for key in _TOOLS[kind]:
        if tool.get(key) is not None:
            made[key] = tool[key]
    taken = ("type", "name", *_TOOLS[kind])
    dropped += [f"tools.{key}" for key, value in tool.items() if key not in taken and value]
    grammar = as_object(made.get("format"))
    if grammar.get("type") == "grammar":  # chat has a frame around it
        rules = {key: value for key, value in grammar.items() if key != "type"}
        made["format"] = {"type": "grammar", "grammar": rules}
    return {"type": kind, kind: made}


def _text(text: Json, request: Json, dropped: list[str]) -> None:
    dropped += [f"text.{key}" for key, value in text.items() if key not in ("format", "verbosity") and value]
    wanted = as_object(text.get("format"))
    if wanted.get("type") == "json_schema":
        schema = {key: value for key, value in wanted.items() if key != "type" and value is not None}
        request["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif wanted.get("type") == "json_object":
        request["response_format"] = {"type": "json_object"}
    elif wanted.get("type", "text") != "text":
        dropped.append("text.format")
    if text.get("verbosity") is not None:
        request["verbosity"] = text["verbosity"]


def _reasoning(reasoning: Json, request: Json, dropped: list[str]) -> None:
    if effort := as_text(reasoning.get("effort")):
        request["reasoning_effort"] = effort
    dropped += [f"reasoning.{key}" for key, value in reasoning.items() if key not in _REASONING_KEYS and value]


def _include(body: Json, request: Json, dropped: list[str]) -> None:
    """What the answer shall have besides; signed thoughts always come along where an upstream gives them."""
    included = as_list(body.get("include"))
    dropped += [f"include.{each}" for each in included if each not in (_LOGPROBS, _ENCRYPTED)]
    if _LOGPROBS in included or body.get("top_logprobs") is not None:
        request["logprobs"] = True
    if body.get("top_logprobs") is not None:
        request["top_logprobs"] = body["top_logprobs"]
