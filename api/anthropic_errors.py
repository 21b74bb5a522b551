"""Anthropic's shape of an error, for everything that is answered under `/v1/messages`. Format: Anthropic's API reference, errors."""

from collections.abc import Mapping
from typing import Any

from api.errors import Problem

_PATH = "/v1/messages"
_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def shaped(problem: Problem, path: str, request_id: str) -> Problem:
    """The problem as clients of `path` expect it: as it is, but under `/v1/messages`."""
    if path != _PATH and not path.startswith(f"{_PATH}/"):
        return problem
    headers = {**problem.headers, "request-id": request_id}
    return Problem(problem.status, anthropic_error(problem, request_id), headers)


def anthropic_error(problem: Problem, request_id: str) -> dict[str, Any]:
    """The error body, which is also the data of an `error` event."""
    default = "api_error" if problem.status >= 500 else "invalid_request_error"
    error = {"type": _TYPES.get(problem.status, default), "message": problem.body["error"]["message"]}
    return {"type": "error", "error": error, "request_id": request_id}
