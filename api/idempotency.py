"""`Idempotency-Key` on the hot routes: the same key and body from the same caller give the same answer again, for a day.

It records what goes over the wire, so it knows no dialect. What is kept is what an upstream or a workflow answered: a whole
answer, or a refusal that would be the same again. A request with a key is answered to its end though its client may have
left: the client will come back for it. While the first is under way, the same request waits for its answer.
"""

import asyncio
import hashlib
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import orjson
import structlog

from api.anthropic_errors import shaped
from api.asgi import App, Message, Receive, Scope, Send, encode_headers, is_broken, read_body, send_problem
from api.errors import HttpError, problem_of
from api.services import Services
from engine.clock import now_us
from engine.errors import AIGatewayError, Conflict, RetryableError, UserError
from engine.kept_answers import (
    MOST_BYTES,
    Claim,
    KeptAnswer,
    Mine,
    UnderWay,
    claim,
    digest_of,
    keep_answer,
    release_answer,
)

log = structlog.get_logger(__name__)

LONGEST_WAIT_S = 300.0
_LOOK_S = 0.25
_KEEP_FOR_S = 10.0  # a database that does not take an answer now may take it soon
_MOST_CHARACTERS = 255
_PASSES = frozenset({401, 402, 403, 408, 409, 425, 429})  # refusals that a later request may not meet again


@dataclass(frozen=True, slots=True)
class Idempotent:
    """Wraps a hot route. `under_way` is what this process answers now, by the digest of its key; all its routes share one."""

    services: Services
    app: App
    under_way: dict[str, asyncio.Event] = field(default_factory=dict[str, asyncio.Event])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; one without a key as if this were not here."""
        key = next((value for name, value in scope["headers"] if name == b"idempotency-key"), None)
        if key is None:
            await self.app(scope, receive, send)
            return
        try:
            body = await read_body(receive)
            asked = self._claim_of(scope, key.decode("latin-1"), body)
            kept = await self._turn(asked)
            if kept is None:
                await self._answer(scope, body, asked, send)
            else:
                await _replay(kept, send)
        except AIGatewayError as error:
            await send_problem(send, shaped(problem_of(error), scope["path"], scope["state"]["request_id"]))

    def _claim_of(self, scope: Scope, key: str, body: bytes) -> Claim:
        if not 0 < len(key) <= _MOST_CHARACTERS:
            message = f"Idempotency-Key must have 1 to {_MOST_CHARACTERS} characters"
            raise UserError("invalid_parameter", message, param="Idempotency-Key")
        state = scope["state"]
        fingerprint = hashlib.sha256(scope["path"].encode() + b"\n" + _canonical(body)).hexdigest()
        return Claim(digest_of(state.get("key_id"), key), fingerprint, self.services.process_id, state["request_id"])

    async def _turn(self, asked: Claim) -> KeptAnswer | None:
        """The answer that is there already; None where this request is the one to be answered, until `_leave`.

        Raises: Conflict, HttpError.
        """
        deadline = monotonic() + LONGEST_WAIT_S
        dead: str | None = None
        while True:
            await self._wait_here(asked.digest, deadline)
            found = await self._try(asked, dead)
            match found:
                case Mine():
                    return None
                case KeptAnswer():
                    return found
                case Conflict():
                    raise found
                case UnderWay():
                    dead = self._dead_owner(found)
            if dead is None:
                _check_patience(deadline)
                await asyncio.sleep(_LOOK_S)

    async def _wait_here(self, digest: str, deadline: float) -> None:
        """Wait for a request that this process answers."""
        while (event := self.under_way.get(digest)) is not None:
            _check_patience(deadline)
            try:
                async with asyncio.timeout(deadline - monotonic()):
                    await event.wait()
            except TimeoutError:
                continue

    async def _try(self, asked: Claim, dead: str | None) -> Mine | KeptAnswer | UnderWay | Conflict:
        self.under_way[asked.digest] = asyncio.Event()
        found = None
        try:
            found = await self.services.database.write(lambda tx: claim(tx, asked, now_us(), dead))
            return found
        finally:
            if not isinstance(found, Mine):
                self._leave(asked.digest)

    def _leave(self, digest: str) -> None:
        self.under_way.pop(digest).set()

    def _dead_owner(self, other: UnderWay) -> str | None:
        """The owner of a claim that nobody works on: its process is dead, or is this one and has lost sight of it."""
        if other.owner == self.services.process_id:
            return other.owner
        return None if self.services.lives({"id": other.owner, "host": other.host}) else other.owner

    async def _answer(self, scope: Scope, body: bytes, asked: Claim, send: Send) -> None:
        recorder = _Recorder(self.services, asked, send)
        scope["state"]["run_key"] = f"chat-{asked.digest}"
        try:
            await self.app(scope, _once(body), recorder.send)
        finally:
            if not recorder.kept:
                await asyncio.shield(asyncio.ensure_future(self._release(asked)))
            self._leave(asked.digest)

    async def _release(self, asked: Claim) -> None:
        try:
            await self.services.database.write(lambda tx: release_answer(tx, asked))
        except AIGatewayError as error:  # the claim of a process that does not know it any more is taken over
            log.warning("claim not given up", action="idempotency", error=error.message)


class _Recorder:
    """Passes an answer on and keeps it: before its last byte is sent, so that who has seen it whole gets it again."""

    def __init__(self, services: Services, asked: Claim, send: Send) -> None:
        self._services = services
        self._asked = asked
        self._send = send
        self._start: Message = {}
        self._started = False
        self._parts: list[bytes] = []
        self._size = 0
        self.kept = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._size += len(message.get("body", b""))
        if self._size <= MOST_BYTES:
            self._parts.append(message.get("body", b""))
        if not message.get("more_body", False) and not is_broken(message) and _lasts(self._start):
            await self._keep()
        if not self._started:
            self._started = True
            await self._send(self._start)
        await self._send(message)

    async def _keep(self) -> None:
        body = b"".join(self._parts) if self._size <= MOST_BYTES else None
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._start["headers"]]
        status = self._start["status"]
        deadline = monotonic() + _KEEP_FOR_S
        while not self.kept:
            try:
                await self._services.database.write(
                    lambda tx: keep_answer(tx, self._asked, status, headers, body, now_us())
                )
                self.kept = True
            except RetryableError as error:  # safe to repeat
                if monotonic() >= deadline:  # the answer is there and paid for: it is told, and not again
                    log.warning("answer not kept", action="idempotency", error=error.message)
                    return
                await asyncio.sleep(_LOOK_S)


def _lasts(start: Message) -> bool:
    """Whether the same request would meet the same answer again."""
    status: int = start["status"]
    if 200 <= status < 300:
        return True
    asked = any(name == b"x-aigateway-provider" for name, _ in start["headers"])
    return asked and 400 <= status < 500 and status not in _PASSES


async def _replay(kept: KeptAnswer, send: Send) -> None:
    """The answer as it was, and what it costs now. Raises: HttpError for one that was not kept."""
    if kept.body is None:
        raise HttpError(
            409,
            "answer_not_kept",
            f"the answer to this request was larger than the {MOST_BYTES // 1024 // 1024} MiB that are kept; it was request "
            f"{kept.request_id}. Another Idempotency-Key asks again",
            param="Idempotency-Key",
        )
    headers = dict(kept.headers) | {
        "x-aigateway-replayed": "true",
        "x-aigateway-original-request-id": kept.request_id,
        "x-aigateway-cost-usd": "0",
    }
    await send({"type": "http.response.start", "status": kept.status, "headers": encode_headers(headers)})
    await send({"type": "http.response.body", "body": kept.body})


def _check_patience(deadline: float) -> None:
    if monotonic() >= deadline:
        message = "a request with this Idempotency-Key is still under way; its answer will be there under the same key"
        headers = {"retry-after": "5", "x-should-retry": "true"}
        raise HttpError(409, "idempotency_key_in_use", message, param="Idempotency-Key", headers=headers)


def _once(body: bytes) -> Receive:
    """The body, and then no sign that the client has left."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    return receive


def _canonical(body: bytes) -> bytes:
    """Equal for bodies that say the same; a body that the route will refuse (no JSON, nested too deeply) is as it came."""
    try:
        value: Any = orjson.loads(body)
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return body
