"""An HTTP client of our own API, for the command line: JSON in, JSON out, every failure as one sentence.

Synchronous, one request at a time. Nothing else of the program calls its own server this way.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote, urlsplit

import httpx2

from aigateway.config_environment import API_KEY_VARIABLE
from aigateway.settings import ServerAddress
from engine.errors import AIGatewayError, FatalError, Mistake, RetryableError, UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CONNECT_S = 5.0
_ANSWER_S = 60.0
_MOST_A_PAGE = 200
LONG_POLL_S = 20
"""How long a status request waits on the server for a change; below every proxy's idle limit."""


class Client:
    """A connection to one server. Every method raises AIGatewayError: RetryableError(server_unreachable) without an answer,
    else FatalError with the code, message and details of the server's own error.
    """

    def __init__(self, address: ServerAddress) -> None:
        headers = {"accept": "application/json"}
        if address.api_key:
            headers["authorization"] = f"Bearer {address.api_key.get_secret_value()}"
        self.address = address
        self.url = address.url
        # A proxy from the environment is no way to a server on this machine.
        self._http = httpx2.Client(
            base_url=address.url,
            headers=headers,
            timeout=httpx2.Timeout(_ANSWER_S, connect=_CONNECT_S),
            trust_env=urlsplit(address.url).hostname not in LOOPBACK,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def is_up(self) -> bool:
        """Whether an aigateway answers there."""
        try:
            answer = self.get("/health")
        except RetryableError:
            return False
        return isinstance(answer, dict) and "status" in answer

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """The decoded body of a GET; parameters that are None are left out."""
        return self._send("GET", path, params=params)

    def get_all(self, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A list whole, however many pages it has."""
        asked = {**(params or {}), "limit": _MOST_A_PAGE}
        answer = self.get(path, asked)
        cursor = answer["next_cursor"]
        while cursor is not None:
            page = self.get(path, {**asked, "cursor": cursor})
            answer["data"] += page["data"]
            cursor = page["next_cursor"]
        return answer | {"next_cursor": None}

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, params: Mapping[str, Any] | None = None) -> Any:
        """The decoded body of a POST; parameters are those of the query."""
        return self._send("POST", path, json=dict(body or {}), params=params)

    def send(self, path: str, payload: Any) -> Any:
        """The decoded body of a POST whose body may be any JSON value; None goes without a body."""
        return self._send("POST", path, json=payload)

    def delete(self, path: str) -> Any:
        """The decoded body of a DELETE, None where it has none."""
        return self._send("DELETE", path)

    def put_yaml(self, path: str, text: str) -> Any:
        """The decoded body of a PUT of YAML text."""
        return self._send("PUT", path, content=text.encode(), headers={"content-type": "application/yaml"})

    def post_yaml(self, path: str, text: str) -> Any:
        """The decoded body of a POST of YAML text."""
        return self._send("POST", path, content=text.encode(), headers={"content-type": "application/yaml"})

    def text(self, path: str, params: Mapping[str, Any] | None = None) -> str:
        """The body of a GET as text."""
        return self._answer("GET", path, params=params).text

    def _send(self, method: str, path: str, **parts: Any) -> Any:
        answer = self._answer(method, path, **parts)
        if answer.status_code == 204:
            return None
        try:
            return answer.json()
        except ValueError:
            raise FatalError(
                "not_json", f"{self.url} answered no JSON to {method} {path}: is it an aigateway?"
            ) from None

    def _answer(self, method: str, path: str, **parts: Any) -> httpx2.Response:
        params: Mapping[str, Any] = parts.get("params") or {}
        parts["params"] = {key: value for key, value in params.items() if value is not None}
        try:
            answer = self._http.request(method, path, **parts)
        except httpx2.InvalidURL as error:
            raise FatalError("invalid_url", f"{self.url} is no usable address: {error}") from None
        except httpx2.TimeoutException:
            raise RetryableError("server_unreachable", f"{self.url} did not answer in time; try again") from None
        except httpx2.TransportError:
            raise RetryableError(
                "server_unreachable",
                f"no server answers at {self.url}; start one with `aigateway serve` or set AIGATEWAY_URL",
            ) from None
        if answer.is_error:
            raise _refusal(answer, f"{method} {path}")
        return answer


def path(*parts: str) -> str:
    """An API path with every part quoted: `path("runs", id)` is `/v1/runs/…`. Raises: UserError for a part that is empty."""
    if "" in parts:
        raise UserError("invalid_request", "an id or a name must not be empty")
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def _refusal(answer: httpx2.Response, what: str) -> AIGatewayError:
    try:
        body = answer.json()
    except ValueError:
        body = None
    error = cast("dict[str, Any]", body).get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return FatalError("http_error", f"the server answered {answer.status_code} to {what}")
    told = cast("dict[str, Any]", error)
    if answer.status_code == 401:
        return FatalError(str(told.get("code")), f"{told.get('message')}; commands take it from {API_KEY_VARIABLE}")
    details = [mistake_of(entry) for entry in cast("list[Any]", told.get("details") or [])]
    return FatalError(str(told.get("code")), str(told.get("message")), param=told.get("param"), details=details)


def mistake_of(entry: Any) -> Mistake:
    """A mistake as the server tells it."""
    told: dict[str, Any] = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {"message": str(entry)}
    return Mistake(
        str(told.get("message")), told.get("path"), told.get("line"), told.get("column"), told.get("suggestion")
    )
