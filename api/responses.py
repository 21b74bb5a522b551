"""`POST /v1/responses`: OpenAI's Responses contract over any provider, stateless: no response is kept, `store` is always false."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from api.answer_cache import Question
from api.answers import Whole
from api.asgi import Scope, named_frames
from api.errors import HttpError, Problem
from api.token_counts import Counting
from engine.ledger import Usage
from providers.provider import Chunk, Json, ProviderType
from providers.shapes import as_list, as_text
from providers.translate.responses_in import ChatOfResponses, from_responses
from providers.translate.responses_in_answer import response_frame, to_response
from providers.translate.responses_in_events import EventWriter
from providers.wording import Request, Wording


@dataclass(slots=True)
class ResponsesConversation:
    """One request to `/v1/responses`."""

    body: Json
    worded: ChatOfResponses
    _writer: EventWriter | None = None

    farewell = b""

    @property
    def own_headers(self) -> Mapping[str, str]:
        """None."""
        return {}

    @property
    def model(self) -> str:
        """The name that the client wrote."""
        return self.body["model"]

    @property
    def streamed(self) -> bool:
        """Whether the client wants events."""
        return bool(self.body.get("stream"))

    @property
    def request(self) -> Request:
        """Chat, for every provider."""
        return Request(self.worded.body, self.worded.worded)

    @property
    def chat(self) -> Json:
        """As chat, for whoever is no provider."""
        return self.worded.body

    @property
    def question(self) -> Question:
        """The chat that it comes to."""
        return Question("chat", self.worded.body, streamed=self.streamed)

    def whole(self, answer: Whole) -> Json:
        """The response object."""
        return {**to_response(answer.body, self.body, answer.model, answer.usage), "aigateway": answer.summary}

    def chunk(self, chunk: Chunk) -> Iterator[Json]:
        """The events for one chunk."""
        if self._writer is None:
            model = as_text(chunk.body.get("model")) or self.model
            self._writer = EventWriter(response_frame(self.body, model))
            yield from self._writer.start()
        yield from self._writer.chunk(chunk)

    def end(self, usage: Usage | None, summary: Json) -> Iterator[Json]:
        """The last events; the response tells the cost."""
        if self._writer:
            yield from self._writer.end(usage, aigateway=summary)

    def failure(self, problem: Problem) -> Iterator[Json]:
        """`response.failed`, and nothing after it."""
        writer = self._writer or EventWriter(response_frame(self.body, self.model))
        code = "rate_limit_exceeded" if problem.status == 429 else "server_error"
        yield from writer.failure(code, problem.body["error"]["message"])

    def frames(self, events: Iterable[Json]) -> bytes:
        """Frames with the event's name."""
        return named_frames(events)


def begin_responses(body: Json, _scope: Scope) -> ResponsesConversation:
    """A checked request. Raises: HttpError and ProviderError that name what is wrong."""
    check_responses_body(body)
    return ResponsesConversation(body, from_responses(body))


def begin_input_tokens(body: Json, _scope: Scope) -> Counting:
    """A checked question for the size of a prompt. Raises: HttpError and ProviderError that name what is wrong."""
    check_responses_body(body)
    worded = from_responses(body)
    return Counting(
        request=Request(body, lambda target: _countable(body, worded, target)),
        by=frozenset({"openai", "anthropic"}),
        told=lambda tokens: {"object": "response.input_tokens", "input_tokens": tokens},
    )


def _countable(body: Json, worded: ChatOfResponses, target: ProviderType) -> Wording:
    """OpenAI counts the request as it is here, every other as what it would be sent."""
    return Wording(body, native=True) if target == "openai" else worded.worded(target)


def check_responses_body(body: Json) -> None:
    """What has to be there to route and to translate the request; the rest is the upstream's to judge. Raises: HttpError."""
    if not as_text(body.get("model")):
        raise HttpError(400, "missing_required_parameter", "model must be the name of a model", param="model")
    given: Any = body.get("input")
    if not as_text(given):
        if not isinstance(given, list) or not given:
            words = "input must be a text or a list of items, and not empty"
            raise HttpError(400, "missing_required_parameter", words, param="input")
        _check_objects(given, "input")  # pyright: ignore[reportUnknownArgumentType]
    if not isinstance(body.get("instructions", ""), str | None):
        raise HttpError(400, "invalid_type", "instructions must be a text", param="instructions")
    for key in ("stream", "store", "background", "parallel_tool_calls"):
        if not isinstance(body.get(key, False), bool | None):
            raise HttpError(400, "invalid_type", f"{key} must be true or false", param=key)
    if body.get("tools") is not None:
        _check_objects(body["tools"], "tools")


def _check_objects(values: Any, name: str) -> None:
    if not isinstance(values, list):
        raise HttpError(400, "invalid_type", f"{name} must be a list", param=name)
    for at, value in enumerate(as_list(values)):  # pyright: ignore[reportUnknownArgumentType]
        if not isinstance(value, dict):
            param = f"{name}[{at}]"
            raise HttpError(400, "invalid_type", f"{param} must be an object", param=param)
