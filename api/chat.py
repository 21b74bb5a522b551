"""`POST /v1/chat/completions`: OpenAI's contract, synchronous, straight to the provider and never through the queue.

A plain ASGI endpoint: through FastAPI a request costs about half as much again (docs/architecture.md).
"""

import time
from dataclasses import dataclass
from typing import Any

import structlog

from api.asgi import (
    Receive,
    Scope,
    Send,
    end_events,
    read_json_object,
    send_event,
    send_json,
    send_problem,
    start_events,
    unless_disconnected,
)
from api.errors import HttpError, problem_of
from api.metrics import observe_overhead
from api.services import ChatBook, Services
from engine.errors import AIGatewayError
from engine.ledger import CallScope, CostSource
from engine.money import to_usd, usd_text
from providers.errors import ProviderError
from providers.failover import Completed
from providers.provider import AttemptInfo, Json, client_wants_usage
from providers.streams import OpenStream

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ChatEndpoint:
    """The ASGI application of the route."""

    services: Services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        request_id: str = scope["state"]["request_id"]
        try:
            body = await read_json_object(receive)
            check_chat_body(body)
            route = await self.services.router.resolve(body["model"])
            call_scope = CallScope(request_id=request_id, key_id=scope["state"].get("key_id"))
            book = ChatBook(self.services)
            failover = self.services.failover
            if body.get("stream"):
                opening = failover.stream(route, body, scope=call_scope, book=book)
                stream = await unless_disconnected(opening, receive, cancel=self._cancels)
                if stream is not None:
                    await self._stream(stream, body, started, receive, send)
                return
            answering = failover.complete(route, body, scope=call_scope, book=book)
            done = await unless_disconnected(answering, receive, cancel=self._cancels)
            if done is not None:
                await send_json(send, 200, _answer(done), _headers(done, started))
        except AIGatewayError as error:
            problem = problem_of(error)
            problem.headers.update(_failed_headers(error))
            await send_problem(send, problem)

    @property
    def _cancels(self) -> bool:
        return self.services.on_client_disconnect == "cancel"

    async def _stream(self, stream: OpenStream, body: Json, started: float, receive: Receive, send: Send) -> None:
        """Pass the chunks on; a failure in the middle is told in band, never hidden behind a clean end."""
        async with stream:
            await start_events(send, _stream_headers(stream, started))
            sending = self._send_chunks(stream, send, wants_usage=client_wants_usage(body))
            await unless_disconnected(sending, receive, cancel=self._cancels)

    async def _send_chunks(self, stream: OpenStream, send: Send, *, wants_usage: bool) -> None:
        try:
            async for chunk in stream:
                if not chunk.usage_only:
                    await send_event(send, chunk.body)
                elif wants_usage:
                    await send_event(send, {**chunk.body, "aigateway": _stream_summary(stream)})
        except ProviderError as error:
            await send_event(send, problem_of(error).body)
            await end_events(send)
            return
        await end_events(send, b"data: [DONE]\n\n")


def check_chat_body(body: Json) -> None:
    """What must be there to route the request; the rest is the upstream's to judge. Raises: HttpError."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise HttpError(400, "missing_required_parameter", "model must be the name of a model", param="model")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise HttpError(400, "missing_required_parameter", "messages must be a list of messages", param="messages")
    for number, message in enumerate(messages):  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):  # pyright: ignore
            param = f"messages[{number}]"
            raise HttpError(400, "invalid_type", f"{param} must be an object with a role", param=param)
    if not isinstance(body.get("stream", False), bool | None):
        raise HttpError(400, "invalid_type", "stream must be true or false", param="stream")


def _answer(done: Completed) -> Json:
    return {**done.answer.body, "aigateway": _summary(done)}


def _summary(done: Completed) -> Json:
    return {
        "cost_usd": None if done.cost_picousd is None else to_usd(done.cost_picousd),
        "cost_source": done.cost_source.value,
        "latency_ms": done.latency_us / 1000,
        "provider": done.provider,
        "model": done.model,
        "attempts": [_attempt(attempt) for attempt in done.attempts],
    }


def _stream_summary(stream: OpenStream) -> Json:
    return {
        "cost_usd": None if stream.cost_picousd is None else to_usd(stream.cost_picousd),
        "cost_source": stream.cost_source.value,
        "latency_ms": sum(attempt.latency_us for attempt in stream.attempts) / 1000,
        "provider": stream.provider,
        "model": stream.model,
        "attempts": [_attempt(attempt) for attempt in stream.attempts],
    }


def _attempt(attempt: AttemptInfo) -> Json:
    return {
        "id": attempt.id,
        "provider": attempt.provider,
        "model": attempt.model,
        "success": attempt.success,
        "latency_ms": attempt.latency_us / 1000,
        "cost_usd": None if attempt.cost_picousd is None else to_usd(attempt.cost_picousd),
        "status_code": attempt.status_code,
        "error_class": attempt.error_class.value if attempt.error_class else None,
        "error": attempt.error,
    }


def _headers(done: Completed, started: float) -> dict[str, str]:
    cost = (
        "unknown"
        if done.cost_source is CostSource.UNKNOWN or done.cost_picousd is None
        else usd_text(done.cost_picousd)
    )
    return {
        "x-aigateway-cost-usd": cost,
        "x-aigateway-overhead-ms": _overhead_ms(started, done.latency_us, done.provider, done.model),
        **_origin(done.provider, done.model, len(done.attempts), done.answer.dropped),
    }


def _stream_headers(stream: OpenStream, started: float) -> dict[str, str]:
    """What is known at the start: this call is under way, so it counts as an attempt."""
    waited_us = sum(attempt.latency_us for attempt in stream.attempts) + (stream.ttft_us or 0)
    return {
        "x-aigateway-overhead-ms": _overhead_ms(started, waited_us, stream.provider, stream.model),
        **_origin(stream.provider, stream.model, len(stream.attempts) + 1, stream.dropped),
    }


def _overhead_ms(started: float, upstream_us: int, provider: str, model: str) -> str:
    """What this process added to the upstream's own time; also observed in the metrics."""
    seconds = max(0.0, time.perf_counter() - started - upstream_us / 1_000_000)
    observe_overhead(seconds, provider, model)
    return f"{seconds * 1000:.3f}"


def _origin(provider: str, model: str, attempts: int, dropped: tuple[str, ...]) -> dict[str, str]:
    headers = {
        "x-aigateway-provider": provider,
        "x-aigateway-model": model,
        "x-aigateway-attempts": str(attempts),
    }
    return headers | {"x-aigateway-dropped": ", ".join(dropped)} if dropped else headers


def _failed_headers(error: AIGatewayError) -> dict[str, Any]:
    if not isinstance(error, ProviderError) or error.provider is None:
        return {}
    known = [attempt.cost_picousd for attempt in error.attempts]
    cost = "unknown" if None in known else usd_text(sum(cost or 0 for cost in known))
    origin = _origin(error.provider, error.model or "", len(error.attempts), ())
    return {"x-aigateway-cost-usd": cost, **origin}
