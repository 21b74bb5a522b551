"""An answer of Ollama's `/api/chat`, whole or line by line, as OpenAI's chat completion. Format: Ollama's API reference."""

from collections.abc import Iterator
from typing import Any

import orjson

from engine.ledger import Usage
from providers.completions import ChunkMaker, completion, new_call_id, new_completion_id, tool_call
from providers.provider import Chunk, Json
from providers.shapes import as_object, as_objects, as_text, told_count


def from_ollama(answer: Json, model: str) -> tuple[Json, Usage | None]:
    """The whole answer and its usage."""
    told = as_object(answer.get("message"))
    message: Json = {"role": "assistant", "content": as_text(told.get("content"))}
    if thinking := as_text(told.get("thinking")):
        message["reasoning_content"] = thinking
    calls = [_call(call) for call in as_objects(told.get("tool_calls"))]
    if calls:
        message["tool_calls"] = calls
        message["content"] = message["content"] or None
    usage = usage_of(answer)
    body = completion(
        new_completion_id(),
        as_text(answer.get("model")) or model,
        message=message,
        finish_reason=_finish_reason(answer, calls=bool(calls)),
        usage=usage,
    )
    body["choices"][0]["logprobs"] = _logprobs(answer)
    return body, usage


def usage_of(answer: Json) -> Usage | None:
    """The counts of a last line. Ollama leaves a count of 0 out (a cached prompt), so one of the two is enough."""
    given, output = told_count(answer, "prompt_eval_count"), told_count(answer, "eval_count")
    if given is None or output is None or not given + output:
        return None
    return Usage(input=given, output=output)


class LineReader:
    """Turns the lines of a stream into chunks and knows whether the answer is whole."""

    def __init__(self, model: str, dropped: tuple[str, ...]) -> None:
        self._model = model
        self._dropped = dropped
        self._maker: ChunkMaker | None = None
        self._calls = 0
        self.finished = False

    def line(self, body: Json) -> Iterator[Chunk]:
        """The chunks for one line."""
        if self._maker is None:
            self._maker = ChunkMaker(as_text(body.get("model")) or self._model)
            yield self._maker.role(self._dropped)
        message = as_object(body.get("message"))
        if thinking := as_text(message.get("thinking")):
            yield self._maker.delta(reasoning_content=thinking)
        if text := as_text(message.get("content")):
            chunk = self._maker.delta(content=text)
            chunk.body["choices"][0]["logprobs"] = _logprobs(body)
            yield chunk
        for call in as_objects(message.get("tool_calls")):
            yield self._maker.delta(tool_calls=[{"index": self._calls, **_call(call)}])
            self._calls += 1
        if body.get("done") is True:
            self.finished = True
            yield self._maker.finish(_finish_reason(body, calls=self._calls > 0))
            if usage := usage_of(body):
                yield self._maker.usage(usage)


def _logprobs(told: Json) -> Json | None:
    """Ollama's list is what OpenAI has under `content`."""
    tokens = as_objects(told.get("logprobs"))
    return {"content": tokens, "refusal": None} if tokens else None


def _call(call: Json) -> Json:
    function = as_object(call.get("function"))
    arguments: Any = function.get("arguments")
    text = arguments if isinstance(arguments, str) else orjson.dumps(arguments or {}).decode()
    return tool_call(as_text(call.get("id")) or new_call_id(), as_text(function.get("name")), text)


def _finish_reason(answer: Json, *, calls: bool) -> str:
    if calls:
        return "tool_calls"
    return "length" if answer.get("done_reason") == "length" else "stop"
