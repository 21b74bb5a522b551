"""The `http` step: one request to an address that the definition names, guarded as webhooks are, its answer bounded in size."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from engine.errors import UserError
from engine.expressions import render
from engine.ports import Failed, Job, Outcome, Succeeded
from engine.states import ErrorClass
from engine.values import is_object, type_name
from worker.outbound import GuardedTarget, Refused, resolve

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


class HttpExecutor:
    """engine.ports.StepExecutor for `http`. Holds the connections of one process."""

    def __init__(self, *, allow_private_networks: bool) -> None:
        self._allow_private_networks = allow_private_networks
        self._client: httpx2.AsyncClient | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def execute(self, job: Job) -> Outcome:
        """A request that may have been done already is not sent again unless it is repeatable or the step says so."""
        fields = job.step.fields
        method: str = fields.get("method", "GET")
        again = job.step.retry is not None or method in _REPEATABLE
        try:
            async with asyncio.timeout(job.step.timeout_s or DEFAULT_TIMEOUT_S):
                allow = self._allow_private_networks
                target = await resolve(_text(fields, "url", job), allow_private_networks=allow, param="url")
                answer = await self._send(method, target, fields, job)
        except Refused as error:
            return Failed(ErrorClass.INVALID_REQUEST, error.message, final=True)
        except TimeoutError:
            limit_s = job.step.timeout_s or DEFAULT_TIMEOUT_S
            return Failed(ErrorClass.TIMEOUT, f"no answer within {limit_s:g} s", final=not again)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            return Failed(ErrorClass.CONNECTION, f"not connected: {error}"[:500])
        except httpx2.HTTPError as error:
            return Failed(ErrorClass.CONNECTION, f"{type(error).__name__}: {error}"[:500], final=not again)
        return _judged(answer, fields.get("expect_status"), again)

    async def _send(self, method: str, target: GuardedTarget, fields: Mapping[str, Any], job: Job) -> _Answer:
        if self._client is None:
            # Not the environment's proxies, and no redirect: the guard checked this address and no other.
            self._client = httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=None)
        content, headers = _content(fields, job)
        async with self._client.stream(
            method,
            target.url,
            headers={**headers, "host": target.host},
            content=content,
            extensions={"sni_hostname": target.name},
        ) as response:
            body = bytearray()
            async for part in response.aiter_bytes():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    raise UserError("answer_too_large", f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
            return _Answer(response.status_code, dict(response.headers), _body(response, bytes(body)))


def _text(fields: Mapping[str, Any], name: str, job: Job) -> str:
    value = render(fields[name], job.scope)
    if not isinstance(value, str):
        raise UserError("invalid_value", f"{name} has to be text, not {type_name(value)}")
    return value


def _content(fields: Mapping[str, Any], job: Job) -> tuple[bytes | None, dict[str, str]]:
    """The request's body and headers, rendered. Raises: ExpressionError, UserError."""
    given: Any = render(dict(fields.get("headers", {})), job.scope)
    if not is_object(given) or not all(isinstance(value, str | int | float) for value in given.values()):
        raise UserError("invalid_value", "headers has to be an object of texts")
    headers = {str(name).lower(): str(value) for name, value in given.items()}
    if any(mark in part for pair in headers.items() for part in pair for mark in "\r\n\0"):
        raise UserError("invalid_value", "a header holds a line break")
    headers.setdefault("user-agent", "aigateway")
    if "json" in fields:
        headers.setdefault("content-type", "application/json")
        return json.dumps(render(fields["json"], job.scope), ensure_ascii=False).encode(), headers
    return (_text(fields, "body", job).encode() if "body" in fields else None), headers


def _body(response: httpx2.Response, body: bytes) -> Any:
    """Data where the answer says that it is JSON and it is, else text."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return json.loads(body)
        except ValueError:
            pass
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
