"""`POST /v1/chat/completions`: OpenAI's contract, synchronous, straight to the provider and never through the queue."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from api.answer_cache import Question
from api.answers import Whole
from api.asgi import Scope, data_frames
from api.errors import HttpError, Problem
from engine.ledger import Usage
from providers.provider import Chunk, Json, client_wants_usage
from providers.usage import usage_to_openai


@dataclass(slots=True)
class ChatConversation:
    """One request to `/v1/chat/completions`."""

    body: Json
    _frame: Json | None = None
    _usage: Json | None = None

    farewell = b"data: [DONE]\n\n"

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
    def request(self) -> Json:
        """The body: chat is the language in the middle."""
        return self.body

    @property
    def chat(self) -> Json:
        """The body."""
        return self.body

    @property
    def question(self) -> Question:
        """The body."""
        return Question("chat", self.body, streamed=self.streamed)

    def whole(self, answer: Whole) -> Json:
        """The completion, with what was booked where its upstream told no usage."""
        body = answer.body
        if body.get("usage") is None and answer.usage is not None:
            body = {**body, "usage": usage_to_openai(answer.usage)}
        return {**body, "aigateway": answer.summary}

    def chunk(self, chunk: Chunk) -> Iterable[Json]:
        """The chunk; the one that tells the usage waits for the booking."""
        if chunk.usage_only:
            self._usage = chunk.body
            return ()
        self._frame = self._frame or chunk.body
        return (chunk.body,)

    def end(self, usage: Usage | None, summary: Json) -> Iterable[Json]:
        """The chunk without choices, where the client asked for usage; an upstream that sends none leaves it to be made of what was booked."""
        if not client_wants_usage(self.body):
            return ()
        told: Json | None = self._usage
        if told is None and usage is not None and self._frame is not None:
            told = {**self._frame, "choices": [], "usage": usage_to_openai(usage)}
        return () if told is None else ({**told, "aigateway": summary},)

    def failure(self, problem: Problem) -> Iterable[Json]:
        """The error, and no `[DONE]`."""
        return (problem.body,)

    def frames(self, events: Iterable[Json]) -> bytes:
        """`data:` frames."""
        return data_frames(events)


def begin_chat(body: Json, _scope: Scope) -> ChatConversation:
    """A checked request. Raises: HttpError that names what is wrong."""
    check_chat_body(body)
    return ChatConversation(body)


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
