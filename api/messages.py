"""`POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's contract, over any provider.

A provider of type anthropic gets the body as it came and its answer goes back as it came; every other gets it as OpenAI chat.
Both versions of the API are taken; of a version's own rules, those about parameters are the upstream's to judge.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from api.answer_cache import Question
from api.answers import Whole
from api.anthropic_errors import anthropic_error
from api.asgi import (
    Scope,
    named_frames,
)
from api.conversations import read_headers
from api.errors import HttpError, Problem
from api.token_counts import Counting
from engine.ledger import Usage
from providers.provider import Chunk, Json, ProviderType
from providers.shapes import as_count, as_list, as_objects, as_text
from providers.translate.anthropic_in import from_messages
from providers.translate.anthropic_in_answer import to_message, without_unsigned
from providers.translate.anthropic_in_events import EventWriter
from providers.wording import Request, Wording

VERSIONS = ("2023-06-01", "2026-10-21")
_PASSED_HEADERS = ("anthropic-version", "anthropic-beta")


@dataclass(slots=True)
class MessagesConversation:
    """One request to `/v1/messages`."""

    body: Json
    passed_headers: Mapping[str, str]
    request_id: str
    _writer: EventWriter | None = None
    _stop: Json | None = None

    farewell = b""

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
        """Native for Anthropic, chat for all others."""
        return Request(self.body, self._word)

    @property
    def own_headers(self) -> Mapping[str, str]:
        """Anthropic's client reads the request's id here."""
        return {"request-id": self.request_id}

    @property
    def chat(self) -> Json:
        """As chat, for whoever is no provider."""
        return from_messages(self.body, "simulated").body

    @property
    def question(self) -> Question:
        """The body as it came, with the headers that go along with it."""
        return Question("messages", self.body, self.passed_headers, self.streamed)

    def whole(self, answer: Whole) -> Json:
        """The message: Anthropic's own as it is, or one made of the completion."""
        message = answer.body if answer.native else to_message(answer.body, answer.model, answer.usage)
        return {**message, "aigateway": answer.summary}

    def chunk(self, chunk: Chunk) -> Iterator[Json]:
        """The events for one chunk; the one that ends the message waits for the booking."""
        if chunk.native:
            if chunk.usage_only:
                self._stop = chunk.body
            else:
                yield chunk.body
            return
        if self._writer is None:
            self._writer = EventWriter(as_text(chunk.body.get("model")) or self.model)
            yield self._writer.start(chunk.prompt_usage)
        yield from self._writer.chunk(chunk)

    def end(self, usage: Usage | None, summary: Json) -> Iterator[Json]:
        """The last events; message_stop tells the cost."""
        last = (self._stop,) if self._stop else self._writer.end(usage) if self._writer else ()
        for event in last:
            yield {**event, "aigateway": summary} if event["type"] == "message_stop" else event

    def failure(self, problem: Problem) -> Iterator[Json]:
        """An `error` event, and no message_stop."""
        yield anthropic_error(problem, self.request_id)

    def frames(self, events: Iterable[Json]) -> bytes:
        """Frames with the event's name."""
        return named_frames(events)

    def _word(self, target: ProviderType) -> Wording:
        if target != "anthropic":
            return from_messages(self.body, target)
        body, unsigned = without_unsigned(self.body)
        return Wording(body, ("thinking",) if unsigned else (), native=True, headers=self.passed_headers)


def begin_messages(body: Json, scope: Scope) -> MessagesConversation:
    """A checked request. Raises: HttpError that names what is wrong."""
    check_messages_body(body)
    return MessagesConversation(body, _passed(read_headers(scope)), scope["state"]["request_id"])


def begin_count_tokens(body: Json, scope: Scope) -> Counting:
    """A checked question for the size of a prompt. Raises: HttpError that names what is wrong."""
    check_messages_body(body, counting=True)
    headers = _passed(read_headers(scope))
    return Counting(
        request=Request(body, lambda _: _native(body, headers)),
        by=frozenset({"anthropic"}),
        told=lambda tokens: {"input_tokens": tokens},
        headers={"request-id": scope["state"]["request_id"]},
    )


def _native(body: Json, headers: Mapping[str, str]) -> Wording:
    return Wording(without_unsigned(body)[0], native=True, headers=headers)


def check_messages_body(body: Json, *, counting: bool = False) -> None:
    """What has to be there to route and to translate the request; the rest is the upstream's to judge. Raises: HttpError."""
    if not as_text(body.get("model")):
        raise _invalid("model", "the name of a model is required")
    if not counting and as_count(body.get("max_tokens")) is None:
        raise _invalid("max_tokens", "a whole number is required")
    if not isinstance(body.get("stream", False), bool | None):
        raise _invalid("stream", "has to be true or false")
    _check_texts(body.get("system"), "system")
    _check_objects(body.get("tools", []), "tools")
    messages: Any = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _invalid("messages", "a list of at least one message is required")
    _check_objects(messages, "messages")  # pyright: ignore[reportUnknownArgumentType]
    for at, message in enumerate(as_objects(messages)):
        if not as_text(message.get("role")):
            raise _invalid(f"messages.{at}.role", "a role is required")
        if message.get("content") is None:
            raise _invalid(f"messages.{at}.content", "a text or a list of blocks is required")
        _check_texts(message["content"], f"messages.{at}.content")


def _check_texts(content: Any, path: str) -> None:
    """A text, or a list of blocks."""
    if content is not None and not isinstance(content, str):
        _check_objects(content, path)


def _check_objects(values: Any, path: str) -> None:
    if not isinstance(values, list):
        raise _invalid(path, "has to be a list")
    for at, value in enumerate(as_list(values)):  # pyright: ignore[reportUnknownArgumentType]
        if not isinstance(value, dict):
            raise _invalid(f"{path}.{at}", "has to be an object")


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that go along to Anthropic; without a version the provider's own is sent. Raises: HttpError."""
    version = headers.get("anthropic-version")
    if version is not None and version not in VERSIONS:
        raise _invalid("anthropic-version", f"`{version}` is not a valid version; {' and '.join(VERSIONS)} are")
    return {name: headers[name] for name in _PASSED_HEADERS if name in headers}


def _invalid(path: str, message: str) -> HttpError:
    return HttpError(400, "invalid_request", f"{path}: {message}", param=path)
