"""`POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's contract, over any provider.

A provider of type anthropic gets the body as it came and its answer goes back as it came; every other gets it as OpenAI chat.
Both versions of the API are taken; of a version's own rules, those about parameters are the upstream's to judge.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from api.anthropic_errors import anthropic_error, shaped
from api.asgi import Receive, Scope, Send, read_json_object, send_json, send_problem, unless_disconnected
from api.call_headers import answer_summary, stream_summary
from api.conversations import read_headers
from api.errors import HttpError, Problem, problem_of
from api.services import Services
from engine.errors import AIGatewayError
from providers.failover import Completed
from providers.provider import Chunk, Json, ProviderType
from providers.routing import Candidate
from providers.shapes import as_count, as_text
from providers.streams import OpenStream
from providers.timers import whole
from providers.translate.anthropic_in import from_messages
from providers.translate.anthropic_in_answer import to_message, without_unsigned
from providers.translate.anthropic_in_events import EventWriter
from providers.usage import estimate_prompt_tokens
from providers.wording import Request, TokenCounter, Wording

VERSIONS = ("2023-06-01", "2026-10-21")
_PASSED_HEADERS = ("anthropic-version", "anthropic-beta")


@dataclass(slots=True)
class MessagesConversation:
    """One request to `/v1/messages`."""

    body: Json
    headers: Mapping[str, str]
    request_id: str
    _writer: EventWriter | None = None
    _stop: Json | None = field(default=None)

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

    def whole(self, done: Completed) -> Json:
        """The message: Anthropic's own as it is, or one made of the completion."""
        answer = done.answer
        message = answer.body if answer.native else to_message(answer.body, done.model, done.usage)
        return {**message, "aigateway": answer_summary(done)}

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

    def end(self, stream: OpenStream) -> Iterator[Json]:
        """The last events; message_stop tells the cost."""
        last = iter(self._writer.end(stream.usage)) if self._writer else iter(())
        for event in last if self._stop is None else (self._stop,):
            yield {**event, "aigateway": stream_summary(stream)} if event["type"] == "message_stop" else event

    def failure(self, problem: Problem) -> Iterator[Json]:
        """An `error` event, and no message_stop."""
        yield anthropic_error(problem, self.request_id)

    def _word(self, target: ProviderType) -> Wording:
        if target != "anthropic":
            return from_messages(self.body, target)
        body, unsigned = without_unsigned(self.body)
        return Wording(body, ("thinking",) if unsigned else (), native=True, headers=self.headers)


def begin_messages(body: Json, headers: Mapping[str, str], request_id: str) -> MessagesConversation:
    """A checked request. Raises: HttpError that names what is wrong."""
    check_messages_body(body)
    return MessagesConversation(body, _passed(headers), request_id)


@dataclass(frozen=True, slots=True)
class CountTokensEndpoint:
    """The ASGI application of `/v1/messages/count_tokens`: counted by an upstream that can, estimated for every other."""

    services: Services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. It is free and no model is called, so nothing is booked."""
        started = time.perf_counter()
        request_id: str = scope["state"]["request_id"]
        try:
            body = await read_json_object(receive)
            check_messages_body(body, counting=True)
            headers = _passed(read_headers(scope))
            route = await self.services.router.resolve(body["model"])
            counting = _count(route.candidates[0], body, headers)
            counted = await unless_disconnected(counting, receive, cancel=True)
            if counted is not None:
                tokens, source = counted
                told = {"x-aigateway-token-source": source, "request-id": request_id}
                told["x-aigateway-overhead-ms"] = f"{(time.perf_counter() - started) * 1000:.3f}"
                await send_json(send, 200, {"input_tokens": tokens}, told)
        except AIGatewayError as error:
            await send_problem(send, shaped(problem_of(error), scope["path"], request_id))
