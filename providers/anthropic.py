"""Anthropic's Messages API.

The version is pinned to 2023-06-01: later ones refuse `temperature`, `top_p` and `top_k`, which OpenAI's clients send, and
the old one still takes them along with everything else that is sent here. The key goes as `x-api-key`. A request that came
in this dialect is passed on as it came, under the version that its client asked for.
"""

from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any, Protocol

import orjson

from engine.states import ErrorClass
from providers.errors import ProviderError, complaint_in, failure
from providers.http import HttpClient, decoded, let_end, read_pieces
from providers.json_text import parse
from providers.lines import LineTooLong
from providers.provider import Answer, Chunk, Json, ProviderConfig
from providers.shapes import as_count, as_object, as_objects, as_text
from providers.sse import Event, EventParser
from providers.translate.anthropic_meter import EventMeter, content_size
from providers.translate.anthropic_to_openai import MessageReader, from_anthropic, usage_of
from providers.translate.openai_to_anthropic import to_anthropic
from providers.wording import Wording

VERSION = "2023-06-01"
_LISTED = 1000
_COUNTED = frozenset({"messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control"})


class EventReader(Protocol):
    """Makes chunks of events and knows whether the message is whole."""

    finished: bool
    done: bool

    def event(self, body: Json) -> Iterator[Chunk]:
        """The chunks for one event."""
        ...

    def usage_chunk(self) -> Iterator[Chunk]:
        """What comes last."""
        ...


class AnthropicProvider:
    """One upstream that speaks Anthropic's dialect."""

    def __init__(self, config: ProviderConfig, http: HttpClient) -> None:
        self.config = config
        self._http = http
        self._headers = {"anthropic-version": VERSION}
        if config.api_key:
            self._headers["x-api-key"] = config.api_key
        self._headers.update(config.headers)

    async def chat(self, model: str, body: Json) -> Answer:
        """One whole answer. Raises: ProviderError."""
        request, dropped = to_anthropic(model, {key: value for key, value in body.items() if key != "stream"})
        message = await self._message(request, {})
        answer, usage = from_anthropic(message)
        return Answer(answer, usage, as_text(message.get("model")) or model, dropped=dropped)

    def stream(self, model: str, body: Json) -> AsyncGenerator[Chunk, None]:
        """One answer in chunks. Raises: ProviderError, also where the stream ends without a stop reason."""
        request, dropped = to_anthropic(model, {**body, "stream": True})
        return self._events(request, {}, MessageReader(model, dropped))

    async def answer_native(self, model: str, wording: Wording) -> Answer:
        """One whole message as the upstream gave it. Raises: ProviderError."""
        message = await self._message({**wording.body, "model": model}, wording.headers)
        usage = usage_of(as_object(message.get("usage")))
        told = as_text(message.get("model")) or model
        return Answer(message, usage, told, native=True, size=content_size(message))

    def stream_native(self, model: str, wording: Wording) -> AsyncGenerator[Chunk, None]:
        """The upstream's events, one a chunk. Raises: ProviderError, also where the stream ends without a stop reason."""
        return self._events({**wording.body, "model": model, "stream": True}, wording.headers, EventMeter())

    async def count_tokens(self, model: str, wording: Wording) -> int:
        """The size of a prompt, native or chat, which the upstream counts free of charge. Raises: ProviderError."""
        prompt = wording.body
        if not wording.native:
            asked, _ = to_anthropic(model, prompt)
            prompt = {key: value for key, value in asked.items() if key in _COUNTED}
        counted: Any = await self._http.fetch(
            "POST",
            f"{self.config.url}/v1/messages/count_tokens",
            headers={**self._headers, **wording.headers},
            payload={**prompt, "model": model},
            connect_s=self.config.timeouts.connect_s,
        )
        tokens = as_count(as_object(counted).get("input_tokens"))
        if tokens is None:
            raise ProviderError.unseen(ErrorClass.SERVER_ERROR, "The upstream's answer is no token count.")
        return tokens

    async def _message(self, request: Json, headers: Mapping[str, str]) -> Json:
        message: Any = await self._http.fetch(
            "POST",
            f"{self.config.url}/v1/messages",
            headers={**self._headers, **headers},
            payload=request,
            connect_s=self.config.timeouts.connect_s,
        )
        message = as_object(message)
        if message.get("type") != "message" or not isinstance(message.get("content"), list):
            raise ProviderError.unseen(ErrorClass.SERVER_ERROR, "The upstream's answer is no message.")
        return message

    async def _events(
        self, request: Json, headers: Mapping[str, str], reader: EventReader
    ) -> AsyncGenerator[Chunk, None]:
        response = await self._http.send(
            "POST",
            f"{self.config.url}/v1/messages",
            headers={**self._headers, **headers},
            payload=request,
            connect_s=self.config.timeouts.connect_s,
        )
        parser = EventParser()
        try:
            async for piece in read_pieces(response):
                for chunk in _chunks(parser, reader, piece):
                    yield chunk
                if reader.done:
                    await let_end(response)
                    break
            for chunk in _rest(parser, reader):
                yield chunk
        except ProviderError:
            if not reader.finished:  # what is lost after the stop reason is no part of the answer
                raise
        finally:
            response.release()
        for chunk in reader.usage_chunk():
            yield chunk

    async def embeddings(self, model: str, body: Json) -> Answer:
        """Raises: ProviderError always; Anthropic has no embeddings."""
        raise ProviderError(
            ErrorClass.INVALID_REQUEST,
            f"Anthropic has no embeddings; `{model}` cannot give them.",
            status=400,
            code="unsupported_endpoint",
            param="model",
        )

    async def list_models(self) -> list[str]:
        """The ids at `GET /v1/models`. Raises: ProviderError."""
        body: Any = await self._http.fetch(
            "GET",
            f"{self.config.url}/v1/models?limit={_LISTED}",
            headers=self._headers,
            connect_s=self.config.timeouts.connect_s,
        )
        return [row["id"] for row in as_objects(as_object(body).get("data")) if isinstance(row.get("id"), str)]


def _chunks(parser: EventParser, reader: EventReader, piece: bytes) -> Iterator[Chunk]:
    try:
        events = parser.feed(piece)
    except LineTooLong as error:
        raise ProviderError.unseen(ErrorClass.SERVER_ERROR, f"The upstream sent {error}.") from error
    for event in events:
        yield from reader.event(_decoded(event))


def _rest(parser: EventParser, reader: EventReader) -> Iterator[Chunk]:
    """What the end of the stream completes. Raises: ProviderError where the message is not whole."""
    if parser.json:
        decoded(parser.json)  # an error with status 200
    for event in () if reader.done else parser.close():
        yield from reader.event(_decoded(event))
    if not reader.finished:
        raise ProviderError.unseen(ErrorClass.CONNECTION, "The upstream's stream ended before the answer did.")


def _decoded(event: Event) -> Json:
    try:
        body: Any = parse(event.data)
    except orjson.JSONDecodeError as error:
        raise ProviderError.unseen(ErrorClass.SERVER_ERROR, "The upstream sent a malformed event.") from error
    if complaint := complaint_in(body):
        error = failure(complaint, status=None, headers={})
        error.maybe_billed = True
        raise error
    return as_object(body)
