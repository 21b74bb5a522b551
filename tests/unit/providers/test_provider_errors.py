from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
import pytest

from engine.states import ErrorClass
from providers.errors import Complaint, ProviderError, classify, complaint_in, failure, retry_after_s
from providers.http import connection_failure

OPENAI_ERRORS: list[tuple[int, dict[str, Any], ErrorClass]] = [
    (
        401,
        {"message": "Incorrect API key provided", "type": "invalid_request_error", "code": "invalid_api_key"},
        ErrorClass.AUTH,
    ),
    (403, {"message": "Country not supported", "type": "request_forbidden"}, ErrorClass.AUTH),
    (429, {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}, ErrorClass.RATE_LIMIT),
    (
        429,
        {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"},
        ErrorClass.QUOTA,
    ),
    (429, {"message": "Spend limit", "type": "x", "code": "project_spend_limit_exceeded"}, ErrorClass.QUOTA),
    (
        400,
        {"message": "Too long", "type": "invalid_request_error", "code": "context_length_exceeded"},
        ErrorClass.CONTEXT_LENGTH,
    ),
    (
        400,
        {"message": "This model's maximum context length is 8192 tokens.", "type": "BadRequestError", "code": 400},
        ErrorClass.CONTEXT_LENGTH,
    ),
    (
        400,
        {"message": "The response was filtered due to Azure's content management policy", "code": "content_filter"},
        ErrorClass.CONTENT_FILTER,
    ),
    (404, {"message": "The model `x` does not exist", "code": "model_not_found"}, ErrorClass.INVALID_REQUEST),
    (422, {"message": "nope"}, ErrorClass.INVALID_REQUEST),
    (408, {"message": "nope"}, ErrorClass.TIMEOUT),
    (409, {"message": "nope"}, ErrorClass.SERVER_ERROR),
    (500, {"message": "The server had an error", "type": "server_error"}, ErrorClass.SERVER_ERROR),
    (503, {"message": "The engine is currently overloaded", "type": "server_error"}, ErrorClass.OVERLOADED),
    (402, {"message": "Insufficient credits", "code": 402}, ErrorClass.QUOTA),
]
ANTHROPIC_ERRORS = [
    (401, "authentication_error", "invalid x-api-key", ErrorClass.AUTH),
    (403, "permission_error", "no", ErrorClass.AUTH),
    (429, "rate_limit_error", "Number of requests", ErrorClass.RATE_LIMIT),
    (529, "overloaded_error", "Overloaded", ErrorClass.OVERLOADED),
    (500, "api_error", "Internal server error", ErrorClass.SERVER_ERROR),
    (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", ErrorClass.CONTEXT_LENGTH),
    (400, "invalid_request_error", "Your credit balance is too low to access the API", ErrorClass.QUOTA),
    (400, "invalid_request_error", "max_tokens: Field required", ErrorClass.INVALID_REQUEST),
    (404, "not_found_error", "model: claude-none", ErrorClass.INVALID_REQUEST),
    (504, "timeout_error", "late", ErrorClass.TIMEOUT),
]


@pytest.mark.parametrize(("status", "error", "expected"), OPENAI_ERRORS)
def test_openai_errors_have_their_class(status: int, error: dict[str, Any], expected: ErrorClass) -> None:
    complaint = complaint_in({"error": error})
    assert complaint is not None
    raised = failure(complaint, status=status, headers={})
    assert (raised.error_class, raised.status, raised.message) == (expected, status, error["message"])


@pytest.mark.parametrize(("status", "kind", "message", "expected"), ANTHROPIC_ERRORS)
def test_anthropic_errors_have_their_class(status: int, kind: str, message: str, expected: ErrorClass) -> None:
    complaint = complaint_in({"type": "error", "error": {"type": kind, "message": message}})
    assert complaint is not None and classify(complaint, status) is expected


def test_an_error_inside_a_stream_is_known_by_its_type() -> None:
    assert classify(Complaint("x", type="overloaded_error"), None) is ErrorClass.OVERLOADED
    assert classify(Complaint("x", type="invalid_request_error"), None) is ErrorClass.INVALID_REQUEST
    assert classify(Complaint("x"), None) is ErrorClass.SERVER_ERROR
    assert classify(Complaint("x", status=429), None) is ErrorClass.RATE_LIMIT


def test_a_missing_model_has_openais_code() -> None:
    assert failure(Complaint("model 'x' not found"), status=404, headers={}).code == "model_not_found"


@pytest.mark.parametrize("body", [None, [], "x", {}, {"error": None}, {"error": {}}, {"error": ""}, {"ok": 1}])
def test_bodies_without_an_error_have_none(body: Any) -> None:
    assert complaint_in(body) is None


def test_retry_after_in_every_spelling() -> None:
    assert retry_after_s({"retry-after-ms": "1500", "Retry-After": "9"}) == 1.5
    assert retry_after_s({"Retry-After": "2.5"}) == 2.5
    assert retry_after_s({"Retry-After": "soon"}) is None
    assert retry_after_s({}) is None
    endless = [
        {"Retry-After": "9" * 400},
        {"retry-after-ms": "1e999"},
        {"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"},
    ]
    assert [retry_after_s(headers) for headers in endless] == [30 * 86_400.0] * 3
    assert retry_after_s({"retry-after-ms": "nan"}) == 0.0
    later = retry_after_s({"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)})
    assert later is not None and 55 < later <= 60
    assert retry_after_s({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0


CLIENT_ERRORS = sorted(
    (kind for kind in vars(aiohttp).values() if isinstance(kind, type) and issubclass(kind, aiohttp.ClientError)),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", CLIENT_ERRORS)
def test_every_client_error_of_aiohttp_is_mapped(kind: type[aiohttp.ClientError]) -> None:
    error = kind.__new__(kind)
    Exception.__init__(error, "x")
    if isinstance(
        error,
        (
            aiohttp.ClientResponseError,
            aiohttp.ClientConnectorError,
            aiohttp.InvalidURL,
            aiohttp.ServerFingerprintMismatch,
        ),
    ):
        kind.__str__ = lambda _: "x"  # type: ignore[method-assign] # half-made: their own text needs what __init__ sets
    mapped = connection_failure(error)
    assert isinstance(mapped, ProviderError)
    connecting = issubclass(
        kind,
        (
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,
            aiohttp.InvalidURL,
            aiohttp.NonHttpUrlClientError,
        ),
    )
    assert mapped.maybe_billed is not connecting
