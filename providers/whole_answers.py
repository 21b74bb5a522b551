"""A streamed chat completion as a whole one, and a whole one as its chunks. Format: OpenAI's `chat.completion` and its chunk."""

from collections.abc import Iterable, Iterator
from typing import Any

from providers.provider import Chunk, Json
from providers.shapes import as_count, as_list, as_object, as_objects, as_text

_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")  # what comes in pieces
_GIVEN = {"function": "arguments", "custom": "input"}  # what a call of either kind is given
_FRAME = ("id", "created", "model", "system_fingerprint", "service_tier")


def to_whole(chunks: Iterable[Json]) -> Json:
    """The completion that the bodies of a whole stream told, the one that tells the usage included."""
    whole: Json = {"object": "chat.completion"}
    choices: dict[int, Json] = {}
    for body in chunks:
        whole |= {key: body[key] for key in _FRAME if body.get(key) is not None}
        if body.get("usage") is not None:
            whole["usage"] = body["usage"]
        for told in as_objects(body.get("choices")):
            index = as_count(told.get("index")) or 0
            _add(choices.setdefault(index, _empty(index)), told)
    return {**whole, "choices": [_settled(choices[index]) for index in sorted(choices)]}


def _empty(index: int) -> Json:
    message = {"role": "assistant", "content": None}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": None}


def _add(choice: Json, told: Json) -> None:
    message: Json = choice["message"]
    for key, value in as_object(told.get("delta")).items():
        if key == "tool_calls":
            _add_calls(message.setdefault("tool_calls", []), as_objects(value))
        elif key in _TEXTS and isinstance(value, str):
            message[key] = as_text(message.get(key)) + value
        elif isinstance(value, list):
            message[key] = as_list(message.get(key)) + value
        elif value is not None:
            message[key] = value
    for key, value in as_object(told.get("logprobs")).items():
        if isinstance(value, list):
            known = as_object(choice["logprobs"])
            choice["logprobs"] = {**known, key: as_list(known.get(key)) + value}
    choice["finish_reason"] = told.get("finish_reason") or choice["finish_reason"]
    if not message["content"] and message.get("tool_calls"):
        message["content"] = None


def _add_calls(calls: list[Json], told: list[Json]) -> None:
    """Each call keeps its number until all is told: numbers come from upstream, and may be any."""
    for piece in told:
        index = as_count(piece.get("index")) or 0
        call: Json | None = next((known for known in calls if known["index"] == index), None)
        if call is None:
            call = {"type": "function", "index": index}
            calls.append(call)
        for key, value in piece.items():
            if key in _GIVEN:
                given: Json = call.setdefault(key, {"name": "", _GIVEN[key]: ""})
                for name, text in as_object(value).items():
                    if isinstance(text, str):
                        given[name] = as_text(given.get(name)) + text
            elif key != "index" and value is not None:
                call[key] = value


def _settled(choice: Json) -> Json:
    """A choice of which all is told."""
    calls: list[Json] = choice["message"].get("tool_calls", [])
    calls.sort(key=lambda call: call["index"])
    for call in calls:
        del call["index"]
    return choice


def to_chunks(whole: Json) -> Iterator[Chunk]:
    """The chunks that tell a completion: role, reasoning, content, calls one after another, finish; the usage last."""
    frame: Json = {key: whole[key] for key in _FRAME if key in whole} | {"object": "chat.completion.chunk"}
    for choice in as_objects(whole.get("choices")):
        index, message = choice.get("index", 0), as_object(choice.get("message"))
        logprobs: Any = choice.get("logprobs")
        for at, delta in enumerate(_deltas(message)):
            told: Json = {
                "index": index,
                "delta": delta,
                "logprobs": logprobs if at == 1 else None,
                "finish_reason": None,
            }
            yield Chunk({**frame, "choices": [told]}, has_content=at > 0)
        end: Json = {"index": index, "delta": {}, "logprobs": None, "finish_reason": choice.get("finish_reason")}
        yield Chunk({**frame, "choices": [end]}, finish_reason=choice.get("finish_reason"))
    if whole.get("usage") is not None:
        yield Chunk({**frame, "choices": [], "usage": whole["usage"]}, usage_only=True)


def _deltas(message: Json) -> Iterator[Json]:
    yield {"role": "assistant", "content": ""}
    rest = {key: value for key, value in message.items() if key not in ("role", "content", "tool_calls") and value}
    if message.get("content"):
        yield {**rest, "content": message["content"]}
    elif rest:
        yield rest
    for index, call in enumerate(as_objects(message.get("tool_calls"))):
        yield {"tool_calls": [{"index": index, **call}]}
