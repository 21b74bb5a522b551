"""The outermost layer: gives every request its id, its log context and its last error answer, and asks for a key where one is needed.

Plain ASGI: Starlette's BaseHTTPMiddleware makes several tasks a request (research on gateways: seven objects each).
"""

import time
from uuid import uuid4

import structlog

from api.anthropic_errors import shaped
from api.asgi import App, Message, Receive, Scope, Send, send_problem
from api.errors import HttpError, internal_problem, problem_of
from engine.errors import AIGatewayError

log = structlog.get_logger(__name__)

_OPEN_PATHS = frozenset({"/", "/health", "/ready"})


class Gate:
    """Wraps the whole application."""

    def __init__(self, app: App, *, keys_required: bool, metrics_open: bool) -> None:
        self._app = app
        self._keys_required = keys_required
        self._open = _OPEN_PATHS | {"/metrics"} if metrics_open else _OPEN_PATHS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, request_id, scope["path"])
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = time.perf_counter()
        try:
            if self._keys_required and scope["path"] not in self._open:
                raise HttpError(401, "invalid_api_key", "this address needs an API key, and none has been created yet")
            await self._app(scope, receive, answer.send)
        except Exception as error:  # noqa: BLE001 - API top: no traceback reaches a user
            await answer.fail(error)
        finally:
            elapsed_ms = round((time.perf_counter() - started) * 1000, 3)
            tell = log.debug if scope["path"] in self._open else log.info
            tell("request", action="http", path=scope["path"], status=answer.status, ms=elapsed_ms)
            structlog.contextvars.clear_contextvars()


class _Answer:
    """Adds the request id to whatever is sent, and remembers whether something was."""

    def __init__(self, send: Send, request_id: str, path: str) -> None:
        self._send = send
        self._request_id = request_id
        self._path = path
        self._header = (b"x-request-id", request_id.encode())
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), self._header]}
        await self._send(message)

    async def fail(self, error: Exception) -> None:
        known = isinstance(error, AIGatewayError)
        if not known:
            log.error("request failed", action="http", exc_info=error)
        if self.status is None:
            problem = problem_of(error) if known else internal_problem()
            await send_problem(self.send, shaped(problem, self._path, self._request_id))
