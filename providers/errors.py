"""What went wrong upstream, in the closed words of `engine.states.ErrorClass`: one table for all dialects.

AIGatewayError
└── ProviderError    an upstream refused, failed, hung or answered nonsense

Order of evidence: a code that means one thing, a telling text, the HTTP status, a general type. Codes and texts are those
of OpenAI's, Anthropic's, Azure's, OpenRouter's, vLLM's and Ollama's APIs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from engine.errors import AIGatewayError
from engine.states import ErrorClass
from providers.provider import AttemptInfo
from providers.shapes import as_list, as_object


class ProviderError(AIGatewayError):
    """A failed upstream call. `status`, `code`, `param`, `message` are the upstream's own where it told them.

    `maybe_billed` is true where the request was sent and nobody saw its end. `attempts` is filled in by failover.
    """

    def __init__(
        self,
        error_class: ErrorClass,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(code or error_class.value, message, param=param)
        self.error_class = error_class
        self.status = status
        self.retry_after_s = retry_after_s
        self.maybe_billed = False
        self.provider: str | None = None
        self.model: str | None = None
        self.attempts: tuple[AttemptInfo, ...] = ()

    @classmethod
    def unseen(cls, error_class: ErrorClass, message: str) -> "ProviderError":
        """A call that was sent and whose end nobody saw: its cost is unknown, not nothing."""
        error = cls(error_class, message)
        error.maybe_billed = True
        return error


@dataclass(frozen=True, slots=True)
class Complaint:
    """An upstream's error body, whatever its dialect."""

    message: str
    code: str | None = None
    type: str | None = None
    param: str | None = None
    status: int | None = None  # some gateways put the upstream's status into the body of a 200


_BY_CODE: Mapping[str, ErrorClass] = {
    "rate_limit_exceeded": ErrorClass.RATE_LIMIT,
    "rate_limit_error": ErrorClass.RATE_LIMIT,
    "too_many_requests": ErrorClass.RATE_LIMIT,
    "insufficient_quota": ErrorClass.QUOTA,
    "billing_hard_limit_reached": ErrorClass.QUOTA,
    "billing_not_active": ErrorClass.QUOTA,
    "credit_balance_exhausted": ErrorClass.QUOTA,
    "project_spend_limit_exceeded": ErrorClass.QUOTA,
    "billing_error": ErrorClass.QUOTA,
    "context_length_exceeded": ErrorClass.CONTEXT_LENGTH,
    "content_filter": ErrorClass.CONTENT_FILTER,
    "content_policy_violation": ErrorClass.CONTENT_FILTER,
    "responsibleaipolicyviolation": ErrorClass.CONTENT_FILTER,
    "invalid_api_key": ErrorClass.AUTH,
    "authentication_error": ErrorClass.AUTH,
    "permission_error": ErrorClass.AUTH,
    "overloaded_error": ErrorClass.OVERLOADED,
    "server_overloaded": ErrorClass.OVERLOADED,
    "timeout_error": ErrorClass.TIMEOUT,
    "model_not_found": ErrorClass.INVALID_REQUEST,
    "not_found_error": ErrorClass.INVALID_REQUEST,
}
_BY_TEXT: tuple[tuple[re.Pattern[str], ErrorClass], ...] = (
    (
        re.compile(
            r"maximum context length|context (window|length)|prompt is too long|input is too long"
            r"|exceed(s|ed)? (the )?(available )?context|input length and `max_tokens` exceed",
            re.IGNORECASE,
        ),
        ErrorClass.CONTEXT_LENGTH,
    ),
    (
        re.compile(r"credit balance is too low|reached your specified api usage limits|insufficient credits", re.I),
        ErrorClass.QUOTA,
    ),
    (
        re.compile(r"content management policy|content filtering policy|flagged by .*moderation", re.I),
        ErrorClass.CONTENT_FILTER,
    ),
)
_BY_STATUS: Mapping[int, ErrorClass] = {
    401: ErrorClass.AUTH,
    402: ErrorClass.QUOTA,
    403: ErrorClass.AUTH,
    408: ErrorClass.TIMEOUT,
    409: ErrorClass.SERVER_ERROR,  # a lock conflict upstream: trying again helps
    425: ErrorClass.SERVER_ERROR,
    429: ErrorClass.RATE_LIMIT,
    451: ErrorClass.CONTENT_FILTER,
    503: ErrorClass.OVERLOADED,
    504: ErrorClass.TIMEOUT,
    524: ErrorClass.TIMEOUT,
    529: ErrorClass.OVERLOADED,
}
_TEXT_DECIDES_FOR = frozenset({None, 400, 413, 422, 429, 403, 500})  # llama.cpp tells a full context with a 500
_LONGEST_PAUSE_S = 30 * 86_400.0  # further away nobody plans; numbers of any size come in
_BY_GENERAL_TYPE: Mapping[str, ErrorClass] = {"invalid_request_error": ErrorClass.INVALID_REQUEST}


def classify(complaint: Complaint, status: int | None) -> ErrorClass:
    """The class of an upstream's complaint; `status` None: it came inside a stream or a 200."""
    status = status if status is not None else complaint.status
    for word in (complaint.code, complaint.type):
        if word and (known := _BY_CODE.get(word.lower())):
            return known
    if status in _TEXT_DECIDES_FOR:
        for pattern, error_class in _BY_TEXT:
            if pattern.search(complaint.message):
                return error_class
    if status is None:
        return _BY_GENERAL_TYPE.get(complaint.type or "", ErrorClass.SERVER_ERROR)
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return ErrorClass.INVALID_REQUEST if 400 <= status < 500 else ErrorClass.SERVER_ERROR


def complaint_in(body: Any) -> Complaint | None:
    """The error that a decoded body tells of, or None: OpenAI's and Anthropic's objects, Ollama's bare text, and what some

    servers make of it: Gemini puts the object into a list, Mistral and older vLLM say its fields without a frame.
    """
    outer = as_object(as_list(body)[0] if as_list(body) else body)
    error: Any = outer if outer.get("object") == "error" else outer.get("error")
    if isinstance(error, str) and error:
        return Complaint(error)
    fields = as_object(error)
    if not fields:
        return None
    code: Any = fields.get("code")
    return Complaint(
        message=str(fields.get("message") or "The upstream failed and did not say why."),
        code=code if isinstance(code, str) else None,
        type=_text_or_none(fields.get("type")),
        param=_text_or_none(fields.get("param")),
        status=code if isinstance(code, int) and 400 <= code < 600 else None,
    )


def failure(complaint: Complaint, *, status: int | None, headers: Mapping[str, str]) -> ProviderError:
    """The error for a complaint that arrived with `status` (None: inside a stream or a 200)."""
    told = status if status is not None else complaint.status
    code = complaint.code
    if code is None and told == 404 and "model" in complaint.message.lower():
        code = "model_not_found"
    return ProviderError(
        classify(complaint, status),
        complaint.message,
        status=told,
        code=code or complaint.type,
        param=complaint.param,
        retry_after_s=retry_after_s(headers),
    )


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """`retry-after-ms` or `Retry-After` (seconds or a date, RFC 9110 §10.2.3) in seconds, never negative, at most 30 days."""
    try:
        seconds = _told_pause_s(headers)
    except (ValueError, TypeError):
        return None
    return None if seconds is None else min(max(0.0, seconds), _LONGEST_PAUSE_S)


def _told_pause_s(headers: Mapping[str, str]) -> float | None:
    if millis := headers.get("retry-after-ms"):
        return float(millis) / 1000
    value = headers.get("Retry-After")
    if not value:
        return None
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
        return float(value)
    return (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None
