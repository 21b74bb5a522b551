"""The one error that leaves the bridge when a tool could not be used, and how each failure below becomes it.

AIGatewayError
└── ToolError    `error_class` says what went wrong, `sent` whether the server may have seen the call

Configuration mistakes are `UserError`, names that do not exist are `NotFound` (both from `engine.errors`).
This module does not import the `mcp` library: it reads its errors by shape, so that it costs nothing to import.
"""

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, cast

from engine.errors import AIGatewayError
from engine.states import ErrorClass

FAULT_KEY = f"aigateway.fault.{secrets.token_hex(8)}"
"""Key in a JSON-RPC error's `data` under which our own transports say what happened; a server cannot guess it."""

_PARSE_ERROR = -32700
_INVALID_REQUEST = -32600
_METHOD_NOT_FOUND = -32601
_INVALID_PARAMS = -32602
_INTERNAL_ERROR = -32603
_CONNECTION_CLOSED = -32000
_REQUEST_TIMEOUT = -32001
_MESSAGE_LIMIT = 2_000


class ToolError(AIGatewayError):
    """A tool or its server failed. `code` is the error class unless a name was unknown.

    `sent` is False only where the server certainly did not start the call: such a call may go to another server.
    `retry_after_s` is what the server asked for, or the rest of the pause after repeated deaths.
    """

    def __init__(
        self,
        error_class: ErrorClass,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        sent: bool = True,
    ) -> None:
        super().__init__(code or error_class.value, shorten(message), param=param)
        self.error_class = error_class
        self.retry_after_s = retry_after_s
        self.sent = sent


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure in words of our own. `session_lost`: a fresh connection mends it and the call did not run."""

    error_class: ErrorClass
    message: str
    retry_after_s: float | None = None
    sent: bool = True
    session_lost: bool = False

    def as_data(self) -> dict[str, Any]:
        """The fault as JSON-RPC error data, to be found again by `fault_of`."""
        return {FAULT_KEY: asdict(self)}

    def as_error(self, subject: str) -> ToolError:
        """The error to raise; `subject` names tool and server and opens the sentence."""
        return ToolError(
            self.error_class,
            f"{subject}: {self.message}",
            retry_after_s=self.retry_after_s,
            sent=self.sent,
        )


def shorten(text: str, limit: int = _MESSAGE_LIMIT) -> str:
    """The text, its middle left out where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} … {text[-half:]}"


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The single errors inside nested exception groups; the error itself where it is no group."""
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from leaves(inner)
    else:
        yield error


def fault_of(error: BaseException) -> Fault:
    """What happened, for anything that the library or the operating system can raise."""
    leaf = _most_telling(error)
    code = getattr(leaf, "code", None)
    if isinstance(code, int) and hasattr(leaf, "error"):
        return _protocol_fault(code, str(leaf), getattr(leaf, "data", None))
    if isinstance(leaf, FileNotFoundError | PermissionError | NotADirectoryError):
        return Fault(ErrorClass.CONNECTION, f"cannot be started: {leaf}", sent=False)
    if isinstance(leaf, TimeoutError):
        return Fault(ErrorClass.TIMEOUT, "did not answer in time")
    if isinstance(leaf, OSError | EOFError | asyncio.CancelledError) or _is_closed_stream(leaf):
        return Fault(ErrorClass.CONNECTION, f"the connection broke ({_words(leaf)})")
    if isinstance(leaf, ValueError | RecursionError):  # pydantic's ValidationError is a ValueError
        return Fault(ErrorClass.SERVER_ERROR, f"the answer does not follow the protocol ({_words(leaf)})")
    return Fault(ErrorClass.INTERNAL, _words(leaf))


def _most_telling(error: BaseException) -> BaseException:
    """A cancellation is only the echo of another error in the same group."""
    found = list(leaves(error))
    return next((leaf for leaf in found if not isinstance(leaf, asyncio.CancelledError)), found[0])


def _is_closed_stream(error: BaseException) -> bool:
    return type(error).__name__ in {"ClosedResourceError", "BrokenResourceError", "EndOfStream"}


def _words(error: BaseException) -> str:
    text = shorten(str(error), 400)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _protocol_fault(code: int, message: str, data: Any) -> Fault:
    """A JSON-RPC error, https://www.jsonrpc.org/specification#error_object, or one that the library made up."""
    own = cast("dict[str, Any]", data).get(FAULT_KEY) if isinstance(data, dict) else None
    if isinstance(own, dict):
        fields = cast("dict[str, Any]", own)
        fields["error_class"] = ErrorClass(fields["error_class"])  # JSON made it text
        return Fault(**fields)
    if code == _CONNECTION_CLOSED and message.startswith("SSE stream failed: Server-sent event exceeded"):
        return Fault(ErrorClass.TOOL_ERROR, f"the answer is larger than allowed ({message})")  # the library's words
    return Fault(_CLASS_BY_CODE.get(code) or _class_of_range(code), message)


_CLASS_BY_CODE = {
    _PARSE_ERROR: ErrorClass.SERVER_ERROR,
    _INVALID_REQUEST: ErrorClass.INVALID_REQUEST,
    _METHOD_NOT_FOUND: ErrorClass.INVALID_REQUEST,
    _INVALID_PARAMS: ErrorClass.TOOL_ERROR,
    _INTERNAL_ERROR: ErrorClass.SERVER_ERROR,
    _CONNECTION_CLOSED: ErrorClass.CONNECTION,
    _REQUEST_TIMEOUT: ErrorClass.TIMEOUT,
}


def _class_of_range(code: int) -> ErrorClass:
    """-32768 to -32000 are the protocol's own, anything else is the tool's."""
    return ErrorClass.SERVER_ERROR if -32768 <= code <= -32000 else ErrorClass.TOOL_ERROR
