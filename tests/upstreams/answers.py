"""What an upstream answers: decided by the prompt alone, so that a test can know it beforehand. One word is one token.

Directives anywhere in the last user text: `[words 30]`, `[think 5]`, `[cached 10]`, `[cache_write 10]`, `[cache_write_1h 10]`,
`[marker abc]`, `[turns 3]`; `use tool NAME` or `use tool NAME with {json}` where a tool of that name is offered, several times for
parallel calls.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from upstreams.control import Tokens

IMAGE_TOKENS = 85
_NUMBER = re.compile(r"\[(words|think|cached|cache_write_1h|cache_write|turns) (\d+)\]")
_MARKER = re.compile(r"\[marker ([\w.:-]+)\]")
_USE_TOOL = re.compile(r"use tool ([\w./-]+)(?: with (\{.*?\})(?=\s|$|\.))?", re.DOTALL)


@dataclass(frozen=True)
class Prompt:
    """A request in words that all dialects share."""

    last_user_text: str
    words: int
    after_tools: str | None = None  # the results, where the last message brings them
    answers: int = 0  # that the conversation holds already
    tools: Sequence[str] = ()
    must_call: str | None = None  # a tool's name, or "*" for any
    may_call: bool = True
    limit: int | None = None
    stops: Sequence[str] = ()
    schema: Any = None
    thinks: bool = True


@dataclass
class Reply:
    """What is sent back."""

    words: list[str]
    thinking: list[str]
    calls: list[tuple[str, dict[str, Any]]]
    finish: str  # stop | length | tool_calls
    tokens: Tokens = field(default_factory=Tokens)

    @property
    def text(self) -> str:
        return "".join(self.words)


def marker_in(text: str) -> str | None:
    found = _MARKER.search(text)
    return found[1] if found else None


def count_words(*texts: str) -> int:
    return sum(len(text.split()) for text in texts)


def reply_to(prompt: Prompt) -> Reply:
    numbers = {name: int(value) for name, value in _NUMBER.findall(prompt.last_user_text)}
    calls = _calls(prompt, turns=numbers.get("turns", 1))
    text = "" if calls else _text(prompt, numbers)
    for stop in filter(None, prompt.stops):
        text = text.split(stop)[0]
    words = re.findall(r"\S+\s*", text)
    finish = "tool_calls" if calls else "stop"
    if prompt.limit is not None and len(words) > prompt.limit:
        words, finish = words[: prompt.limit], "length"
    thinking = [f"thought{number} " for number in range(numbers.get("think", 0))] if prompt.thinks else []
    read = min(numbers.get("cached", 0), prompt.words)
    written = min(numbers.get("cache_write", 0), prompt.words - read)
    for_an_hour = min(numbers.get("cache_write_1h", 0), prompt.words - read - written)
    tokens = Tokens(prompt.words - read - written - for_an_hour, read, written, cache_write_1h=for_an_hour)
    return Reply(words, thinking, calls, finish, tokens)


def _text(prompt: Prompt, numbers: dict[str, int]) -> str:
    if prompt.schema is not None:
        return json.dumps(instance_of(prompt.schema))
    if "words" in numbers:
        return " ".join(f"w{number}" for number in range(numbers["words"]))
    if prompt.after_tools is not None:
        return f"The tool said: {prompt.after_tools}"
    return f"Answer to: {prompt.last_user_text}"


def _calls(prompt: Prompt, *, turns: int) -> list[tuple[str, dict[str, Any]]]:
    over = prompt.after_tools is not None and prompt.answers >= turns
    if not prompt.may_call or over or not prompt.tools:
        return []
    asked = [
        (name.rstrip("."), json.loads(arguments or "{}"))
        for name, arguments in _USE_TOOL.findall(prompt.last_user_text)
    ]
    calls = [call for call in asked if call[0] in prompt.tools]
    if not calls and prompt.must_call:
        calls = [(prompt.tools[0] if prompt.must_call == "*" else prompt.must_call, {})]
    return calls


def instance_of(schema: Any) -> Any:
    """The plainest value that a JSON Schema allows."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return instance_of(schema[key][0])
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object" or "properties" in schema:
        return {name: instance_of(inner) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [instance_of(schema.get("items", {"type": "string"}))] * max(1, schema.get("minItems", 1))
    return {
        "integer": schema.get("minimum", 1),
        "number": schema.get("minimum", 1.5),
        "boolean": True,
        "null": None,
    }.get(kind, "text")
