"""`POST /v1/chat/completions`: OpenAI's contract, synchronous, straight to the provider and never through the queue.

A plain ASGI endpoint: through FastAPI a request costs about half as much again (docs/architecture.md).
"""

import time
from collections.abc import Awaitable
from dataclasses import dataclass

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
from api.call_headers import answer_headers, answer_summary, failed_headers, stream_headers, stream_summary
from api.errors import HttpError, problem_of
from api.services import ChatBook, Services
from engine.errors import AIGatewayError
from engine.ledger import CallScope
from providers.errors import ProviderError
from providers.provider import Json, client_wants_usage
from providers.streams import OpenStream


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
                telling = self._stream(opening, body, started, send)
                await unless_disconnected(telling, receive, cancel=self._cancels)
                return
            answering = failover.complete(route, body, scope=call_scope, book=book)
            done = await unless_disconnected(answering, receive, cancel=self._cancels)
            if done is not None:
                answer = {**done.answer.body, "aigateway": answer_summary(done)}
                await send_json(send, 200, answer, answer_headers(done, started))
        except AIGatewayError as error:
            problem = problem_of(error)
            problem.headers.update(failed_headers(error))
            await send_problem(send, problem)

    @property
    def _cancels(self) -> bool:
        return self.services.on_client_disconnect == "cancel"

    async def _stream(self, opening: Awaitable[OpenStream], body: Json, started: float, send: Send) -> None:
        """Open the stream and pass its chunks on; a failure in the middle is told in band, never hidden behind a clean end.

        One piece of work, so that a client that leaves while the stream is being opened leaves no open stream behind.
        """
        async with await opening as stream:
            await start_events(send, stream_headers(stream, started))
            await self._send_chunks(stream, send, wants_usage=client_wants_usage(body))

    async def _send_chunks(self, stream: OpenStream, send: Send, *, wants_usage: bool) -> None:
        try:
            async for chunk in stream:
                if not chunk.usage_only:
                    await send_event(send, chunk.body)
                elif wants_usage:
                    await send_event(send, {**chunk.body, "aigateway": stream_summary(stream)})
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
