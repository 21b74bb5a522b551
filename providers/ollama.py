"""Ollama's native API: `/api/chat` in NDJSON, `/api/embed`, `/api/tags`. Needs no key; one can be set for a proxy before it."""

import base64
import struct
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import orjson

from engine.ledger import Usage
from engine.states import ErrorClass
from providers.errors import ProviderError, complaint_in, failure
from providers.http import HttpClient, let_end, read_pieces
from providers.json_text import parse
from providers.lines import LineBuffer, LineTooLong
from providers.provider import Answer, Chunk, Json, ProviderConfig
from providers.shapes import as_count, as_list, as_object, as_objects, as_text
from providers.translate.ollama_to_openai import LineReader, from_ollama
from providers.translate.openai_to_ollama import to_ollama


class OllamaProvider:
    """One Ollama server."""

    def __init__(self, config: ProviderConfig, http: HttpClient) -> None:
        self.config = config
        self._http = http
        self._headers = {"Authorization": f"Bearer {config.api_key}"} if config.api_key else {}
        self._headers.update(config.headers)

    async def chat(self, model: str, body: Json) -> Answer:
        """One whole answer. Raises: ProviderError."""
        request, dropped = to_ollama(model, body, stream=False)
        told = await self._fetch("POST", "/api/chat", request)
        if told.get("done") is not True or not isinstance(told.get("message"), dict):
            raise ProviderError.unseen(ErrorClass.SERVER_ERROR, "The upstream's answer is not done.")
        answer, usage = from_ollama(told, model)
        return Answer(answer, usage, as_text(told.get("model")) or model, dropped=dropped)

    async def stream(self, model: str, body: Json) -> AsyncGenerator[Chunk, None]:
        """One answer in chunks. Raises: ProviderError, also where the stream ends before its last line."""
        request, dropped = to_ollama(model, body, stream=True)
        response = await self._http.send(
            "POST",
            f"{self.config.url}/api/chat",
            headers=self._headers,
            payload=request,
            connect_s=self.config.timeouts.connect_s,
        )
        reader = LineReader(model, dropped)
        try:
            async for line in _lines(response):
                for chunk in reader.line(_decoded(line)):
                    yield chunk
                if reader.finished:
                    await let_end(response)
                    return
            raise ProviderError.unseen(ErrorClass.CONNECTION, "The upstream's stream ended before the answer did.")
        finally:
            response.release()

    async def embeddings(self, model: str, body: Json) -> Answer:
        """Vectors for `input`, which has to be text. Raises: ProviderError."""
        request: Json = {"model": model, "input": body.get("input")}
        if body.get("dimensions") is not None:
            request["dimensions"] = body["dimensions"]
        told = await self._fetch("POST", "/api/embed", request)
        rows = [
            {"object": "embedding", "index": index, "embedding": _encoded(as_list(vector), body.get("encoding_format"))}
            for index, vector in enumerate(as_list(told.get("embeddings")))
        ]
        if not rows:
            raise ProviderError.unseen(ErrorClass.SERVER_ERROR, "The upstream's answer has no embeddings.")
        count = as_count(told.get("prompt_eval_count"))
        answer: Json = {"object": "list", "data": rows, "model": as_text(told.get("model")) or model}
        answer["usage"] = {"prompt_tokens": count or 0, "total_tokens": count or 0}
        return Answer(answer, None if count is None else Usage(input=count), answer["model"])

    async def list_models(self) -> list[str]:
        """The names at `GET /api/tags`, most recently changed first. Raises: ProviderError."""
        told = await self._fetch("GET", "/api/tags", None)
        return [row["name"] for row in as_objects(told.get("models")) if isinstance(row.get("name"), str)]

    async def _fetch(self, method: str, path: str, payload: Json | None) -> Json:
        body: Any = await self._http.fetch(
            method,
            f"{self.config.url}{path}",
            headers=self._headers,
            payload=payload,
            connect_s=self.config.timeouts.connect_s,
        )
        return as_object(body)


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    buffer = LineBuffer()
    async for piece in read_pieces(response):
        try:
            lines = buffer.feed(piece)
        except LineTooLong as error:
            raise ProviderError.unseen(ErrorClass.SERVER_ERROR, f"The upstream sent {error}.") from error
        for line in lines:
            if line:
                yield line
    if last := buffer.close():
        yield last


def _decoded(line: bytes) -> Json:
    try:
        body: Any = parse(line)
    except orjson.JSONDecodeError as error:
        raise ProviderError.unseen(ErrorClass.SERVER_ERROR, "The upstream sent a malformed line.") from error
    if complaint := complaint_in(body):
        error = failure(complaint, status=None, headers={})
        error.maybe_billed = True
        raise error
    return as_object(body)


def _encoded(vector: list[Any], encoding: Any) -> list[Any] | str:
    if encoding != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
