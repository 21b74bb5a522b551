"""`POST /v1/embeddings`: OpenAI's contract, vectors as floats or base64, straight to the provider. Plain ASGI like `api.chat`."""

import time
from dataclasses import dataclass
from typing import Any

from api.asgi import Receive, Scope, Send, read_json_object, send_json, send_problem, unless_disconnected
from api.call_headers import answer_headers, answer_summary, failed_headers
from api.errors import HttpError, problem_of
from api.limit_headers import standing_headers
from api.services import ChatBook, Services
from engine.errors import AIGatewayError
from engine.ledger import CallScope
from providers.provider import Json
from providers.shapes import as_count, as_list, as_text

_ENCODINGS = (None, "float", "base64")


@dataclass(frozen=True, slots=True)
class EmbeddingsEndpoint:
    """The ASGI application of the route."""

    services: Services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        try:
            body = await read_json_object(receive)
            check_embeddings_body(body)
            route = await self.services.router.resolve(body["model"])
            call_scope = CallScope(
                request_id=scope["state"]["request_id"],
                key_id=scope["state"].get("key_id"),
                span=scope["state"].get("span"),
            )
            given = {key: value for key, value in body.items() if value is not None}  # some servers choke on a null
            book = ChatBook(self.services)
            answering = self.services.failover.embeddings(route, given, scope=call_scope, book=book)
            cancels = self.services.on_client_disconnect == "cancel"
            done = await unless_disconnected(answering, receive, cancel=cancels)
            if done is not None:
                answer = {**done.answer.body, "aigateway": answer_summary(done)}
                headers = answer_headers(done, started) | standing_headers(book.standings)
                await send_json(send, 200, answer, headers)
        except AIGatewayError as error:
            problem = problem_of(error)
            problem.headers.update(failed_headers(error))
            await send_problem(send, problem)


def check_embeddings_body(body: Json) -> None:
    """A model and something to embed; the rest is the upstream's to judge. Raises: HttpError."""
    if not as_text(body.get("model")):
        raise HttpError(400, "missing_required_parameter", "model must be the name of a model", param="model")
    if not _is_input(body.get("input")):
        words = "input must be a text, a list of texts, a list of tokens or a list of token lists, and not empty"
        raise HttpError(400, "invalid_type", words, param="input")
    if body.get("encoding_format") not in _ENCODINGS:
        raise HttpError(400, "invalid_value", "encoding_format must be float or base64", param="encoding_format")
    dimensions: Any = body.get("dimensions")
    if dimensions is not None and not as_count(dimensions):
        raise HttpError(400, "invalid_type", "dimensions must be a whole number from 1 on", param="dimensions")


def _is_input(given: Any) -> bool:
    if isinstance(given, str):
        return given != ""
    entries = as_list(given)
    if not entries:
        return False
    if isinstance(entries[0], list):
        return all(as_list(entry) and _are_tokens(as_list(entry)) for entry in entries)
    return all(isinstance(entry, str) for entry in entries) or _are_tokens(entries)


def _are_tokens(entries: list[Any]) -> bool:
    return all(as_count(entry) is not None for entry in entries)
