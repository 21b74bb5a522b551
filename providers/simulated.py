"""A provider without a network: scripted text, delays, failures, tool calls and prices, for the demo, tests and dry runs.

It counts words as tokens, so that its bills can be checked by eye. Never a fallback for anything: it answers only to its name.
"""

import asyncio
import base64
import hashlib
import struct
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import orjson

from engine.ledger import Usage
from engine.states import ErrorClass
from providers.completions import ChunkMaker, completion, new_call_id, new_completion_id, tool_call
from providers.errors import Complaint, ProviderError, failure
from providers.provider import (
    Answer,
    Chunk,
    Json,
    ProviderConfig,
    SimulatedModel,
    SimulatedToolCall,
    SimulatedTurn,
)
from providers.shapes import as_count, as_list, as_object, as_objects, as_text, text_of

ECHO = "echo"
_DEFAULT_DIMENSIONS = 8
_MOST_DIMENSIONS = 4096


@dataclass(frozen=True, slots=True)
class _Script:
    """One answer, decided before it is sent."""

    text: str
    calls: list[Json]
    finish_reason: str
    usage: Usage
    cut: bool

    def pieces(self, chunks: int) -> list[str]:
        words = self.text.split(" ")
        words = [word + " " for word in words[:-1]] + words[-1:]
        if not chunks or chunks >= len(words):
            return words
        size = -(-len(words) // chunks)
        return ["".join(words[at : at + size]) for at in range(0, len(words), size)]


class SimulatedProvider:
    """Models from the configuration; `echo` is always there."""

    def __init__(self, config: ProviderConfig) -> None:
        self.config = config
        self._models: dict[str, SimulatedModel] = {ECHO: SimulatedModel(), **config.simulated_models}
        self._failures = {name: deque(model.fail) for name, model in self._models.items()}

    async def chat(self, model: str, body: Json) -> Answer:
        """The scripted answer after its delay. Raises: ProviderError as scripted, or for an unknown model."""
        script = await self._begin(model, body)
        if script.cut:
            raise _cut()
        message: Json = {"role": "assistant", "content": script.text if not script.calls else None}
        if script.calls:
            message["tool_calls"] = script.calls
        answer = completion(
            new_completion_id(), model, message=message, finish_reason=script.finish_reason, usage=script.usage
        )
        return Answer(answer, usage=script.usage, upstream_model=model)

    async def stream(self, model: str, body: Json) -> AsyncGenerator[Chunk, None]:
        """The same answer in pieces; a `cut` one stops half-way. Raises: ProviderError."""
        scripted = self._model(model)
        script = await self._begin(model, body)
        maker = ChunkMaker(model)
        yield maker.role()
        for index, call in enumerate(script.calls):
            yield maker.delta(tool_calls=[{"index": index, **call}])
        pieces = script.pieces(scripted.chunks) if not script.calls else []
        for number, piece in enumerate(pieces):
            if script.cut and number * 2 >= len(pieces):
                raise _cut()
            yield maker.delta(content=piece)
            await asyncio.sleep(0)
        yield maker.finish(script.finish_reason)
        yield maker.usage(script.usage)

    async def embeddings(self, model: str, body: Json) -> Answer:
        """Vectors made from a hash of each text: equal texts, equal vectors. Raises: ProviderError."""
        await self._wait_and_fail(model)
        given: Any = body.get("input")
        several = bool(as_list(given)) and not isinstance(as_list(given)[0], int)
        texts: list[Any] = as_list(given) if several else [given]
        size = min(as_count(body.get("dimensions")) or _DEFAULT_DIMENSIONS, _MOST_DIMENSIONS)
        rows = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _encoded(_vector(text, size), body.get("encoding_format")),
            }
            for index, text in enumerate(texts)
        ]
        usage = Usage(input=sum(_words(text) for text in texts))
        told = {"prompt_tokens": usage.input, "total_tokens": usage.input}
        return Answer({"object": "list", "data": rows, "model": model, "usage": told}, usage, model)

    async def list_models(self) -> list[str]:
        """The configured models and `echo`."""
        return list(self._models)

    def _model(self, model: str) -> SimulatedModel:
        if model not in self._models:
            known = ", ".join(sorted(self._models))
            raise ProviderError(
                ErrorClass.INVALID_REQUEST,
                f"The simulated provider has no model `{model}`; it has {known}.",
                status=404,
                code="model_not_found",
                param="model",
            )
        return self._models[model]

    async def _begin(self, model: str, body: Json) -> _Script:
        for name in ("max_tokens", "max_completion_tokens"):
            if body.get(name) is not None and not as_count(body[name]):
                raise _refused(f"{name} must be a whole number from 1", name)
        if body.get("n") not in (None, 1):
            raise _refused("the simulated provider gives one choice: n must be 1", "n")
        cut = await self._wait_and_fail(model)
        return _script(self._model(model), body, cut=cut)

    async def _wait_and_fail(self, model: str) -> bool:
        """True where the answer is to be cut. Raises: ProviderError as the next entry of `fail` says."""
        scripted = self._model(model)
        planned = self._failures[model]
        fault = planned.popleft() if planned else None
        if scripted.delay_s:
            await asyncio.sleep(scripted.delay_s)
        if isinstance(fault, int):
            raise failure(Complaint(f"Simulated failure {fault}."), status=fault, headers={})
        if fault == "timeout":
            raise ProviderError.unseen(ErrorClass.TIMEOUT, "Simulated: no answer in time.")
        if fault == "reset":
            raise ProviderError.unseen(ErrorClass.CONNECTION, "Simulated: the connection was reset.")
        return fault == "cut"


def last_user_text(body: Json) -> str:
    """The text of the last user message, its text parts joined."""
    for message in reversed(as_objects(body.get("messages"))):
        if message.get("role") == "user":
            return text_of(message.get("content"))
    return ""


def _script(model: SimulatedModel, body: Json, *, cut: bool) -> _Script:
    turn = _turn(model, body)
    text = turn.reply if turn.reply is not None else last_user_text(body)
    calls = [tool_call(new_call_id(), call.name, _arguments(call)) for call in turn.tool_calls]
    words = text.split(" ") if text and not calls else []
    limit: Any = body.get("max_completion_tokens") or body.get("max_tokens")
    reason = "tool_calls" if calls else "stop"
    if isinstance(limit, int) and limit < len(words):
        words, reason = words[:limit], "length"
    text = " ".join(words)
    prompt = model.tokens_in if model.tokens_in is not None else _words(body.get("messages"))
    output = sum(_words(call["function"]["arguments"]) for call in calls) if calls else len(words)
    if model.tokens_out is not None:
        output = model.tokens_out
    return _Script(text, calls, reason, Usage(input=prompt, output=output), cut)


def _refused(message: str, param: str) -> ProviderError:
    return ProviderError(ErrorClass.INVALID_REQUEST, message, status=400, code="invalid_value", param=param)


def _turn(model: SimulatedModel, body: Json) -> SimulatedTurn:
    """What is answered now: it follows from the conversation alone, so that any process gives the same."""
    messages = as_objects(body.get("messages"))
    if model.script:
        answers = sum(message.get("role") == "assistant" for message in messages)
        return model.script[min(answers, len(model.script) - 1)]
    if messages and messages[-1].get("role") == "tool":  # the tools have answered: now comes the text
        return SimulatedTurn(model.reply)
    offered = {as_text(as_object(tool.get("function")).get("name")) for tool in as_objects(body.get("tools"))}
    return SimulatedTurn(model.reply, tuple(call for call in model.tool_calls if call.name in offered))


def _arguments(call: SimulatedToolCall) -> str:
    return call.arguments if isinstance(call.arguments, str) else orjson.dumps(dict(call.arguments)).decode()


def _words(value: Any) -> int:
    """Words in a text, in a list of texts, or in a list of messages; a token counts as one."""
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, dict):
        return len(text_of(as_object(value).get("content")).split())  # pyright: ignore[reportUnknownArgumentType]
    return 1 if isinstance(value, int) else sum(map(_words, as_list(value)))


def _vector(text: Any, size: int) -> list[float]:
    raw = hashlib.shake_256(orjson.dumps(text)).digest(size * 2)
    return [value / 32768 for value in struct.unpack(f"<{size}h", raw)]


def _encoded(vector: list[float], encoding: Any) -> list[float] | str:
    if encoding != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _cut() -> ProviderError:
    return ProviderError.unseen(ErrorClass.CONNECTION, "Simulated: the answer was cut off.")
