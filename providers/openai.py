"""OpenAI's chat completions and embeddings, and every vendor that speaks them (vLLM, OpenRouter, Gemini, llama.cpp ...).

Same dialect on both sides: keys that are not known here pass, in their order, and no null is invented. What is changed:
the model name, the name of the token limit, and that a stream is always asked for its usage.
Format: OpenAI's API reference, `chat/completions`, `embeddings`, `models`.
"""

import re
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import orjson

from engine.states import ErrorClass
from providers.content_parts import settle_content
from providers.errors import ProviderError, complaint_in, failure
from providers.http import HttpClient, decoded, let_end, read_pieces
from providers.json_text import parse
from providers.lines import LineTooLong
from providers.provider import Answer, Chunk, Json, ProviderConfig, client_wants_usage
from providers.shapes import as_count, as_object, as_objects, as_text
from providers.sse import Event, EventParser
from providers.tool_calls import CallPieces, settle_calls
from providers.usage import reported_cost_picousd, usage_from_openai
from providers.whole_answers import to_chunks
from providers.wording import Wording

# o-series and gpt-5 on refuse `max_tokens`; older models and other vendors' servers may know nothing else.
_NEW_LIMIT_MODELS = re.compile(r"(^|/)(o\d|gpt-([5-9]|\d\d)|codex-|chatgpt-)")
_COUNTED = frozenset(
    {"input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "truncation"}
)
_OTHER_CONTENT_KEYS = ("tool_calls", "reasoning_content", "reasoning", "refusal", "function_call", "audio")


class OpenAIProvider:
    """One upstream that speaks OpenAI's dialect."""

    def __init__(self, config: ProviderConfig, http: HttpClient) -> None:
        self.config = config
        self._http = http
        self._headers = {"Authorization": f"Bearer {config.api_key}"} if config.api_key else {}
        self._headers.update(config.headers)

    async def chat(self, model: str, body: Json) -> Answer:
        """One whole answer. Raises: ProviderError."""
        payload = {key: value for key, value in body.items() if key not in ("stream", "stream_options")}
        answer = await self._post("/chat/completions", self._fit(payload, model))
        return _answer(_checked(answer), model)

    async def stream(self, model: str, body: Json) -> AsyncGenerator[Chunk, None]:
        """One answer in chunks. Raises: ProviderError, also where the stream ends without a finish_reason."""
        options = {**as_object(body.get("stream_options")), "include_usage": True}
        payload = self._fit({**body, "stream": True, "stream_options": options}, model)
        timeouts = self.config.timeouts
        response = await self._http.send(
            "POST",
            f"{self.config.url}/chat/completions",
            headers=self._headers,
            payload=payload,
            connect_s=timeouts.connect_s,
        )
        reader = ChunkReader(keep_null_usage=client_wants_usage(body))
        try:
            async for piece in read_pieces(response):
                for chunk in reader.feed(piece):
                    yield chunk
                if reader.done:
                    await let_end(response)
                    break
            for chunk in reader.close():
                yield chunk
        except ProviderError:
            if not reader.finished:  # what is lost after the finish_reason is no part of the answer
                raise
        finally:
            response.release()

    async def embeddings(self, model: str, body: Json) -> Answer:
        """Vectors for `input`, in the encoding that was asked for. Raises: ProviderError."""
        answer = await self._post("/embeddings", {**body, "model": model})
        if not isinstance(answer.get("data"), list):
            raise ProviderError.unseen(ErrorClass.SERVER_ERROR, "The upstream's answer has no embeddings.")
        return _answer(answer, model)

    async def count_tokens(self, model: str, wording: Wording) -> int:
        """The size of a prompt in the Responses dialect, counted free of charge by OpenAI and who else has that route. Raises: ProviderError."""
        prompt = {key: value for key, value in wording.body.items() if key in _COUNTED}
        answer = await self._post("/responses/input_tokens", {**prompt, "model": model})
        tokens = as_count(answer.get("input_tokens"))
        if tokens is None:
            words = "The upstream does not count tokens: its answer is none."
            raise ProviderError(ErrorClass.INVALID_REQUEST, words, status=501)
        return tokens

    async def list_models(self) -> list[str]:
        """The ids at `GET /models`. Raises: ProviderError."""
        body: Any = await self._http.fetch(
            "GET", f"{self.config.url}/models", headers=self._headers, connect_s=self.config.timeouts.connect_s
        )
        rows = as_objects(as_object(body).get("data"))
        return [row["id"] for row in rows if isinstance(row.get("id"), str)]

    async def _post(self, path: str, payload: Json) -> Json:
        body: Any = await self._http.fetch(
            "POST",
            f"{self.config.url}{path}",
            headers=self._headers,
            payload=payload,
            connect_s=self.config.timeouts.connect_s,
        )
        if not isinstance(body, dict):
            raise ProviderError.unseen(ErrorClass.SERVER_ERROR, "The upstream's answer is no JSON object.")
        return as_object(body)  # pyright: ignore[reportUnknownArgumentType]

    def _fit(self, payload: Json, model: str) -> Json:
        payload["model"] = model
        if payload.get("tools") == []:  # some clients send it; OpenAI refuses it, and what goes with it
            for key in ("tools", "tool_choice", "parallel_tool_calls"):
                payload.pop(key, None)
        official = self.config.url.startswith("https://api.openai.com")
        new_name = official or _NEW_LIMIT_MODELS.search(model) is not None
        return name_token_limit(payload, "max_completion_tokens" if new_name else "max_tokens")


class ChunkReader:
    """Turns the bytes of an OpenAI event stream into chunks and knows whether the answer is whole.

    Asking for usage makes OpenAI put `usage: null` on every other chunk: a caller who did not ask does not get to see it.
    """

    def __init__(self, *, keep_null_usage: bool = False) -> None:
        self._keep_null_usage = keep_null_usage
        self._events = EventParser()
        self._begun: set[int] = set()
        self._told: set[int] = set()
        self._calls: dict[int, CallPieces] = {}  # by choice
        self.done = False

    @property
    def finished(self) -> bool:
        """Every choice that was begun has told its finish_reason."""
        return bool(self._begun) and self._begun <= self._told

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """The chunks that `data` completes. Raises: ProviderError for malformed chunks and in-band errors."""
        try:
            events = self._events.feed(data)
        except LineTooLong as error:
            raise ProviderError.unseen(ErrorClass.SERVER_ERROR, f"The upstream sent {error}.") from error
        return self._chunks(events)

    def close(self) -> Iterator[Chunk]:
        """What the end of the stream completes. Raises: ProviderError where the answer is not whole.

        A server that does not stream has sent all of it at once.
        """
        if raw := self._events.json:
            yield from _as_chunks(_answer(_checked(as_object(decoded(raw))), ""))
            return
        yield from self._chunks(self._events.close())
        if not self.finished:
            raise ProviderError.unseen(ErrorClass.CONNECTION, "The upstream's stream ended before the answer did.")

    def _chunks(self, events: list[Event]) -> Iterator[Chunk]:
        last = len(events) - 1
        for number, event in enumerate(events):
            if self.done:
                return
            if event.data.strip() == b"[DONE]":
                self.done = True
            else:
                yield self._chunk(event, followed=number < last)

    def _chunk(self, event: Event, *, followed: bool) -> Chunk:
        try:
            body: Any = parse(event.data)
        except orjson.JSONDecodeError as error:
            raise ProviderError.unseen(ErrorClass.SERVER_ERROR, "The upstream sent a malformed chunk.") from error
        if not isinstance(body, dict):
            raise ProviderError.unseen(ErrorClass.SERVER_ERROR, "The upstream sent a chunk that is no object.")
        body = as_object(body)  # pyright: ignore[reportUnknownArgumentType]
        if "error" in body and (complaint := complaint_in(body)):
            error = failure(complaint, status=None, headers={})
            error.maybe_billed = True
            raise error
        return self._read(body, followed=followed)

    def _read(self, body: Json, *, followed: bool) -> Chunk:
        has_content, finish_reason = False, None
        choices = as_objects(body.get("choices"))
        for choice in choices:
            index = as_count(choice.get("index")) or 0
            delta = as_object(choice.get("delta"))
            if isinstance(delta.get("content"), list):
                settle_content(delta)
            has_content = has_content or bool(delta.get("content")) or any(map(delta.get, _OTHER_CONTENT_KEYS))
            if "tool_calls" in delta:
                self._calls.setdefault(index, CallPieces()).settle(as_objects(delta["tool_calls"]))
            self._begun.add(index)
            if reason := as_text(choice.get("finish_reason")):
                finish_reason = _no_error(reason, choice)
                self._told.add(index)
        told: Any = body.get("usage")
        if told is None:
            if not self._keep_null_usage:
                body.pop("usage", None)
            return Chunk(body, has_content=has_content, finish_reason=finish_reason, followed=followed)
        return Chunk(
            body,
            has_content=has_content,
            finish_reason=finish_reason,
            usage=usage_from_openai(told),
            usage_only=not choices,
            reported_cost_picousd=reported_cost_picousd(told),
            followed=followed,
        )


def name_token_limit(payload: Json, name: str) -> Json:
    """`payload` with its token limit under `name` alone, in its place; `max_completion_tokens` wins where both are given."""
    given = [key for key in ("max_completion_tokens", "max_tokens") if payload.get(key) is not None]
    if not given or given == [name]:
        return payload
    limit = payload[given[0]]
    renamed: Json = {}
    for key, value in payload.items():
        if key in ("max_completion_tokens", "max_tokens"):
            renamed[name] = limit
        else:
            renamed[key] = value
    return renamed


def _checked(body: Json) -> Json:
    """A completion whose choices are whole. Raises: ProviderError."""
    choices = as_objects(body.get("choices"))
    if not choices:
        raise ProviderError.unseen(ErrorClass.SERVER_ERROR, "The upstream's answer has no choices.")
    for choice in choices:
        _no_error(as_text(choice.get("finish_reason")), choice)
        if not isinstance(choice.get("message"), dict):
            raise ProviderError.unseen(ErrorClass.SERVER_ERROR, "The upstream's answer has a choice without a message.")
        settle_content(choice["message"])
        settle_calls(choice["message"])
    return body


def _no_error(finish_reason: str, choice: Json) -> str:
    """OpenRouter ends a choice that broke with the reason `error`. Raises: ProviderError for that."""
    if finish_reason != "error":
        return finish_reason
    told = as_text(as_object(choice.get("error")).get("message"))
    message = f"The upstream broke its answer off with an error. {told}".rstrip()
    raise ProviderError.unseen(ErrorClass.SERVER_ERROR, message)


def _as_chunks(answer: Answer) -> Iterator[Chunk]:
    for chunk in to_chunks(answer.body):
        if chunk.usage_only:
            chunk.usage, chunk.reported_cost_picousd = answer.usage, answer.reported_cost_picousd
        yield chunk


def _answer(body: Json, model: str) -> Answer:
    told: Any = body.get("usage")
    upstream_model: Any = body.get("model")
    return Answer(
        body,
        usage=usage_from_openai(told),
        upstream_model=upstream_model if isinstance(upstream_model, str) else model,
        reported_cost_picousd=reported_cost_picousd(told),
    )
