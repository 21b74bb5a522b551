import asyncio

import anyio
import httpx2
import pytest
from mcp import MCPError
from mcp_types import CallToolResult
from pydantic import ValidationError

from engine.states import ErrorClass
from mcp_bridge.errors import Fault, ToolError, fault_of, shorten


def validation_error() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        CallToolResult.model_validate({"content": 5})
    return caught.value


@pytest.mark.parametrize(
    ("error", "error_class"),
    [
        (MCPError(-32700, "m"), ErrorClass.SERVER_ERROR),
        (MCPError(-32600, "m"), ErrorClass.INVALID_REQUEST),
        (MCPError(-32601, "m"), ErrorClass.INVALID_REQUEST),
        (MCPError(-32602, "m"), ErrorClass.TOOL_ERROR),
        (MCPError(-32603, "m"), ErrorClass.SERVER_ERROR),
        (MCPError(-32000, "Connection closed"), ErrorClass.CONNECTION),
        (MCPError(-32001, "m"), ErrorClass.TIMEOUT),
        (MCPError(-32099, "m"), ErrorClass.SERVER_ERROR),
        (MCPError(1, "m"), ErrorClass.TOOL_ERROR),
        (TimeoutError(), ErrorClass.TIMEOUT),
        (ConnectionResetError("reset"), ErrorClass.CONNECTION),
        (EOFError(), ErrorClass.CONNECTION),
        (asyncio.CancelledError(), ErrorClass.CONNECTION),
        (anyio.ClosedResourceError(), ErrorClass.CONNECTION),
        (anyio.BrokenResourceError(), ErrorClass.CONNECTION),
        (anyio.EndOfStream(), ErrorClass.CONNECTION),
        (validation_error(), ErrorClass.SERVER_ERROR),
        (RecursionError(), ErrorClass.SERVER_ERROR),
        (RuntimeError("surprise"), ErrorClass.INTERNAL),
        (KeyError("surprise"), ErrorClass.INTERNAL),
        (httpx2.ReadTimeout("slow"), ErrorClass.INTERNAL),  # the HTTP border never lets one through
    ],
)
def test_every_error_has_a_class_alone_and_in_nested_groups(error, error_class):
    assert fault_of(error).error_class is error_class
    nested = BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [asyncio.CancelledError(), error])])
    assert fault_of(nested).error_class is error_class


def test_what_could_not_start_was_not_sent():
    assert not fault_of(FileNotFoundError(2, "No such file", "npx")).sent
    assert fault_of(ConnectionResetError()).sent


def test_a_fault_survives_its_way_through_json_rpc():
    fault = Fault(ErrorClass.RATE_LIMIT, "HTTP 429", retry_after_s=17.0, sent=False)
    assert fault_of(MCPError(-32000, "ignored", fault.as_data())) == fault


@pytest.mark.parametrize("data", [None, 5, "x", [], {"aigateway.fault": {"error_class": "rate_limit"}}])
def test_error_data_of_a_server_is_never_taken_for_ours(data):
    assert fault_of(MCPError(-32603, "m", data)) == Fault(ErrorClass.SERVER_ERROR, "m")


def test_messages_are_shortened_in_the_middle():
    error = ToolError(ErrorClass.TOOL_ERROR, "a" * 5_000 + "z")
    assert len(error.message) < 2_010 and error.message.startswith("a") and error.message.endswith("z")
    assert shorten("short") == "short"
    assert error.code == "tool_error"
