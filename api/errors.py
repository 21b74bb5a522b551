"""Errors as HTTP: one table from codes to statuses, one shape for every body (contract §3).

Nothing is raised here but `HttpError`, for what only HTTP knows (a body too large, a method that is not allowed).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from api.limit_headers import exceeded_headers
from engine.errors import (
    AIGatewayError,
    BudgetExceeded,
    Conflict,
    Forbidden,
    LimitExceeded,
    NotFound,
    RetryableError,
    TooLarge,
    UserError,
)
from engine.states import ErrorClass
from providers.errors import ProviderError

_STATUS_OF_CLASS: Mapping[ErrorClass, int] = {
    ErrorClass.RATE_LIMIT: 429,
    ErrorClass.QUOTA: 429,
    ErrorClass.OVERLOADED: 503,
    ErrorClass.TIMEOUT: 504,
    ErrorClass.CONNECTION: 503,
    ErrorClass.SERVER_ERROR: 502,
    ErrorClass.INVALID_REQUEST: 400,
    ErrorClass.CONTEXT_LENGTH: 400,
    ErrorClass.CONTENT_FILTER: 400,
    ErrorClass.AUTH: 401,
    ErrorClass.BUDGET_EXCEEDED: 402,
    ErrorClass.TOOL_ERROR: 502,
    ErrorClass.INVALID_OUTPUT: 502,
}
_STATUS_OF_KIND: Mapping[type[AIGatewayError], int] = {  # the first that fits
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    BudgetExceeded: 402,
    Forbidden: 403,
    UserError: 400,
    LimitExceeded: 429,
    RetryableError: 503,
}
_TYPE_OF_STATUS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    429: "rate_limit_error",
}


class HttpError(AIGatewayError):
    """An error whose status no code of the engine tells. `headers` go along with the answer."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, message, param=param)
        self.status = status
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Problem:
    """What a client is answered: a status, a body in the one shape, and headers."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


def problem_of(error: AIGatewayError) -> Problem:
    """The answer to a known error."""
    status = status_of(error)
    headers: dict[str, str] = {}
    retry_after = getattr(error, "retry_after_s", None)
    if retry_after is not None:
        headers["retry-after"] = str(max(1, round(retry_after)))
    if isinstance(error, LimitExceeded):
        headers |= exceeded_headers(error)
    if isinstance(error, HttpError):
        headers |= error.headers
    # Failures where trying again is no use: the caller has to change something, or all retries were made here already.
    if isinstance(error, ProviderError | UserError | HttpError):
        headers.setdefault("x-should-retry", "false")
    return Problem(status, error_body(error, status), headers)


def internal_problem() -> Problem:
    """The answer to what nobody expected; the details are in the log under the request id."""
    message = "an internal error happened; the log has it under this request id"
    return Problem(500, _shape(message, "server_error", "internal_error", None), {})


def status_of(error: AIGatewayError) -> int:
    """The HTTP status of a known error."""
    match error:
        case HttpError():
            return error.status
        case ProviderError():
            return _upstream_status(error)
        case _:
            return next((status for kind, status in _STATUS_OF_KIND.items() if isinstance(error, kind)), 500)


def error_body(error: AIGatewayError, status: int) -> dict[str, Any]:
    """The one shape; several mistakes at once are in `details`."""
    kind = _TYPE_OF_STATUS.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    body = _shape(error.message, kind, error.code, error.param)
    if error.details:
        body["error"]["details"] = [asdict(mistake) for mistake in error.details]
    return body


def _shape(message: str, kind: str, code: str | None, param: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}


def _upstream_status(error: ProviderError) -> int:
    """The upstream's own 4xx passes through; its 5xx and its silence become 502, 503 or 504."""
    if error.status is not None and 400 <= error.status < 500:
        return error.status
    return _STATUS_OF_CLASS.get(error.error_class, 502)
