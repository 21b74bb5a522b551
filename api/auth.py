"""The outermost layer: gives every request its id, its log context and its last error answer, and asks for a key where one is needed.

Plain ASGI: Starlette's BaseHTTPMiddleware makes several tasks a request (research on gateways: seven objects each).
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable

import structlog

from api.anthropic_errors import shaped
from api.asgi import App, Message, Receive, Scope, Send, check_body_headers, send_problem
from api.browsers import headers_for_pages, is_preflight, send_preflight
from api.errors import HttpError, Problem, internal_problem, problem_of
from api.key_ring import KeyRing, carries_credentials
from api.origin import check_origin
from api.request_spans import begin_span, end_span
from engine.api_keys import ApiKey
from engine.errors import AIGatewayError, Forbidden
from engine.tracing import Span, Tracer, trace_id

log = structlog.get_logger(__name__)
_LEVELS = logging.getLogger(__name__)  # asked first: a line that nobody wants would cost as much as many another part

_HOW_TO_SHOW_ONE = "send it as `Authorization: Bearer agw-…` or `x-api-key`; `aigateway keys create NAME` makes one"
_OPEN_PATHS = frozenset({"/", "/health", "/ready"})


class Gate:
    """Wraps the whole application. `hot` finds what answers a request past the application's own layers, where there is something."""

    def __init__(
        self,
        app: App,
        keys: KeyRing,
        *,
        hot: Callable[[Scope], App | None],
        keys_required: bool,
        metrics_open: bool,
        on_loopback: bool,
    ) -> None:
        self._app = app
        self._hot = hot
        self._keys = keys
        self._keys_required = keys_required
        self._on_loopback = on_loopback
        self.tracer: Tracer | None = None  # set where requests are traced
        self._open = _OPEN_PATHS | {"/metrics"} if metrics_open else _OPEN_PATHS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"{random.getrandbits(128):032x}"
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        answer = _Answer(send, request_id, scope)
        log_context = structlog.contextvars.bind_contextvars(request_id=request_id)
        span = None if self.tracer is None else self._begin_span(self.tracer, scope)
        hot = self._hot(scope)
        started = time.perf_counter()
        try:
            if is_preflight(scope):
                await send_preflight(scope, answer.send)
            else:
                await self._admit(scope, answer)
                await (hot or self._app)(_as_get(scope), receive, answer.send)
        except Exception as error:  # noqa: BLE001 - API top: no traceback reaches a user
            await answer.fail(error)
        except asyncio.CancelledError:  # the server ends, and has waited long enough for this one
            await answer.fail(HttpError(503, "shutting_down", "this server is shutting down; ask again"))
        finally:
            if _LEVELS.isEnabledFor(logging.INFO):
                elapsed_ms = round((time.perf_counter() - started) * 1000, 3)
                tell = log.debug if scope["path"] in self._open else log.info
                tell("request", action="http", path=scope["path"], status=answer.status, ms=elapsed_ms)
            if span is not None:
                end_span(span, scope, answer.status, hot=hot is not None and "route" not in scope)
            structlog.contextvars.reset_contextvars(**log_context)

    def _begin_span(self, tracer: Tracer, scope: Scope) -> Span | None:
        span = begin_span(tracer, scope)
        if span is not None:
            scope["state"]["span"] = span
            structlog.contextvars.bind_contextvars(trace_id=trace_id(span))
        return span

    async def _admit(self, scope: Scope, answer: "_Answer") -> None:
        """Who asks, and whether they may. Raises: HttpError."""
        key = None
        if scope["path"] not in self._open:
            key = scope["state"]["key"] = await self._key_of(scope)
            scope["state"]["key_id"] = None if key is None else key.id
        if key is None and not self._keys_required:
            check_origin(scope, on_loopback=self._on_loopback)
        answer.more_headers = headers_for_pages(scope)
        check_body_headers(scope)

    async def _key_of(self, scope: Scope) -> ApiKey | None:
        """The request's key. Where none is needed, one that nobody made is ignored: clients insist on sending something."""
        key = await self._keys.of_request(scope["headers"])
        if key is not None and key.revoked_us is not None:
            raise HttpError(401, "invalid_api_key", f"the API key {key.prefix}… ({key.name}) was revoked")
        if key is None and self._keys_required:
            if carries_credentials(scope["headers"]):
                raise HttpError(401, "invalid_api_key", "there is no such API key")
            raise HttpError(401, "invalid_api_key", f"an API key is needed: {_HOW_TO_SHOW_ONE}")
        return key


def check_author(key: ApiKey | None) -> None:
    """Whether a caller may store and delete workflows: what they do is granted to every key that may use them. Raises: Forbidden."""
    if key is not None and not key.admin and key.limits.allowed_models is not None:
        message = (
            f"the API key {key.prefix}… ({key.name}) may use some models only, and a workflow may use any: "
            "changing one needs a key made with `admin`, or one without allowed_models"
        )
        raise Forbidden("admin_key_required", message)


def _as_get(scope: Scope) -> Scope:
    """HEAD is answered as GET, and the server leaves the body out; without `Accept`, so that no stream of events begins."""
    if scope["method"] != "HEAD":
        return scope
    headers = [header for header in scope["headers"] if header[0] != b"accept"]
    return {**scope, "method": "GET", "headers": headers}


def check_admin(key: ApiKey | None) -> None:
    """Whether a caller may make and revoke keys and set budgets; without a key, only where none is needed. Raises: Forbidden."""
    if key is not None and not key.admin:
        message = f"the API key {key.prefix}… ({key.name}) may not do this; it needs a key made with `admin`"
        raise Forbidden("admin_key_required", message)


class _Answer:
    """Adds the request id to whatever is sent, and remembers whether something was."""

    def __init__(self, send: Send, request_id: str, scope: Scope) -> None:
        self._send = send
        self._request_id = request_id
        self._scope = scope
        self._header = (b"x-request-id", request_id.encode())
        self.more_headers: tuple[tuple[bytes, bytes], ...] = ()
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), self._header, *self.more_headers]}
        await self._send(message)

    async def fail(self, error: Exception) -> None:
        known = isinstance(error, AIGatewayError)
        if not known:
            log.error("request failed", action="http", exc_info=error)
        if self.status is None:
            problem = problem_of(error) if known else internal_problem()
            if problem.status == 401:
                self._challenge(problem)
            await send_problem(self.send, shaped(problem, self._scope["path"], self._request_id))

    def _challenge(self, problem: Problem) -> None:
        """A browser asks its user for a password where it is told Basic: the key, under any user name."""
        browser = any(name == b"sec-fetch-mode" for name, _ in self._scope["headers"])
        problem.headers["www-authenticate"] = 'Basic realm="aigateway", charset="UTF-8"' if browser else "Bearer"
