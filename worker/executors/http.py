"""The `http` step: one request to an address that the definition names, guarded as webhooks are, its answer bounded in size."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx2

from engine.clock import new_id, now_us
from engine.depth import MAX_DEPTH, is_too_deep
from engine.errors import UserError
from engine.expressions import render
from engine.free_calls import free_call
from engine.keys import HTTP
from engine.ledger import CallKind, Intent
from engine.plain_values import accepted, given_mistake, not_of_type
from engine.ports import Failed, Job, Outcome, Succeeded
from engine.states import ErrorClass
from worker.outbound import GuardedTarget, Refused, resolve
from worker.rules import Rules

DEFAULT_TIMEOUT_S = 30.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
_SHOWN = 300  # characters of an unexpected answer in the error message
_REPEATABLE = {"GET", "HEAD", "PUT", "DELETE"}
_NOT_DONE = {429, 503}  # the server says that it has not done it
_CLASSES = {
    401: ErrorClass.AUTH,
    403: ErrorClass.AUTH,
    408: ErrorClass.TIMEOUT,
    429: ErrorClass.RATE_LIMIT,
    503: ErrorClass.OVERLOADED,
}


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class _Asked:
    method: str
    target: GuardedTarget
    headers: dict[str, str]
    content: bytes | None


class HttpExecutor:
    """engine.ports.StepExecutor for `http`. Holds the connections of one process."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._client: httpx2.AsyncClient | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def execute(self, job: Job) -> Outcome:
        """A request that may have been done already is not sent again unless it is repeatable or the step says so."""
        method: str = job.step.fields.get("method", "GET")
        again = job.step.retry is not None or method in _REPEATABLE
        limit_s = job.step.timeout_s or DEFAULT_TIMEOUT_S
        try:
            async with asyncio.timeout(limit_s):
                url, allow = _text(job.step.fields, "url", job), self._rules.allow_private_networks
                target = await resolve(url, allow_private_networks=allow, param="url")
        except Refused as error:
            return Failed(ErrorClass.INVALID_REQUEST, error.message, final=True)
        except TimeoutError:
            return Failed(ErrorClass.TIMEOUT, f"the address was not found within {limit_s:g} s")
        content, headers = _content(job.step.fields, job)
        intent = _intent(job, method, target)
        asked = _Asked(method, target, headers, content)
        # By the conventions for HTTP clients, but for the whole URL: what it asks for may be secret.
        attributes = {"http.request.method": method, "server.address": target.name}
        async with free_call(job.book, intent, name=method, kind="client", attributes=attributes) as booked:
            outcome = await self._ask(asked, job.step.fields.get("expect_status"), again, limit_s)
            if isinstance(outcome, Failed):
                booked.failed(outcome.error_class, outcome.message)
        return outcome

    async def _ask(self, asked: _Asked, expected: Any, again: bool, limit_s: float) -> Outcome:
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._send(asked)
        except TimeoutError:
            return Failed(ErrorClass.TIMEOUT, f"no answer within {limit_s:g} s", final=not again)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            return Failed(ErrorClass.CONNECTION, f"not connected: {error}"[:500])
        except httpx2.HTTPError as error:
            return Failed(ErrorClass.CONNECTION, f"{type(error).__name__}: {error}"[:500], final=not again)
        return _judged(answer, expected, again)

    async def _send(self, asked: _Asked) -> _Answer:
        if self._client is None:
            # Not the environment's proxies, and no redirect: the guard checked this address and no other.
            self._client = httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=None)
        target = asked.target
        async with self._client.stream(
            asked.method,
            target.url,
            headers={**asked.headers, "host": target.host},
            content=asked.content,
            extensions={"sni_hostname": target.name},
        ) as response:
            body = bytearray()
            async for part in response.aiter_bytes():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    raise UserError("answer_too_large", f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
            return _Answer(response.status_code, dict(response.headers), _body(response, bytes(body)))


def _intent(job: Job, method: str, target: GuardedTarget) -> Intent:
    """A request costs nothing here, and is booked like any other call: its row tells what was sent where, and when."""
    return Intent(
        id=new_id(),
        scope=job.call_scope,
        kind=CallKind.HTTP,
        provider="http",
        model=f"{method} {target.name}"[:200],
        requested_model=f"{method} {target.name}"[:200],
        streamed=False,
        at_us=now_us(),
        reserve_picousd=0,
    )


def _text(fields: Mapping[str, Any], name: str, job: Job) -> Any:
    """The text of a key; None for a body that is null. Raises: ExpressionError, UserError."""
    value = render(fields[name], job.scope)
    message = given_mistake(name, HTTP.keys[name], fields[name], value)
    if message is not None:
        raise UserError("invalid_value", message)
    return value


def _content(fields: Mapping[str, Any], job: Job) -> tuple[bytes | None, dict[str, str]]:
    """The request's body and headers, rendered. Raises: ExpressionError, UserError."""
    given: Any = accepted(HTTP.keys, fields, {"headers": render(fields.get("headers"), job.scope)}).get("headers", {})
    for name, value in given.items():
        if not isinstance(value, str | int | float):
            raise UserError("invalid_value", f"headers: {name} {not_of_type('text', value)}")
    headers = {str(name).lower(): str(value) for name, value in given.items()}
    if any(mark in part for pair in headers.items() for part in pair for mark in "\r\n\0"):
        raise UserError("invalid_value", "a header holds a line break")
    headers.setdefault("user-agent", "aigateway")
    if "json" in fields:
        headers.setdefault("content-type", "application/json")
        return json.dumps(render(fields["json"], job.scope), ensure_ascii=False).encode(), headers
    body = _text(fields, "body", job) if "body" in fields else None
    return None if body is None else body.encode(), headers


def _read(body: bytes) -> Any:
    """How deep Python itself reads depends on its release."""
    try:
        value = json.loads(body)
    except RecursionError:
        value = None
    else:
        if not is_too_deep(value):
            return value
    raise UserError("answer_too_deep", f"the answer is nested too deeply: {MAX_DEPTH} levels are the limit")


def _body(response: httpx2.Response, body: bytes) -> Any:
    """Data where the answer says that it is JSON and it is, else text. Raises: UserError for what is nested too deeply to be read."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        with suppress(ValueError):
            return _read(body)
    return body.decode(response.charset_encoding or "utf-8", errors="replace")


def _judged(answer: _Answer, expected: Any, again: bool) -> Outcome:
    status = answer.status
    if status in expected if expected else 200 <= status < 300:
        return Succeeded({"status": status, "headers": answer.headers, "body": answer.body})
    shown = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
    message = f"HTTP {status}: {shown[:_SHOWN]}".rstrip(": ")
    fallback = ErrorClass.SERVER_ERROR if status >= 500 else ErrorClass.INVALID_REQUEST
    final = (status < 500 and status not in (408, 429)) or not (again or status in _NOT_DONE)
    return Failed(_CLASSES.get(status, fallback), message, _retry_after_s(answer.headers), final=final)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    told = headers.get("retry-after", "")
    return float(told) if told.isascii() and told.isdecimal() else None
