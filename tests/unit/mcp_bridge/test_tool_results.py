"""What a tool's answer comes to, and which ones come to nothing."""

from typing import Any

import mcp_types
import pytest

from mcp_bridge.calls import value_of
from mcp_bridge.errors import ToolError


def answered(levels: int) -> mcp_types.CallToolResult:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return mcp_types.CallToolResult(content=[], structured_content={"result": value})


def test_a_result_has_at_most_200_levels() -> None:
    assert value_of(answered(2), subject="git/log", max_bytes=100) == [[]]
    assert value_of(answered(200), subject="git/log", max_bytes=1000)
    for levels in (201, 300, 960):
        with pytest.raises(ToolError, match="git/log: the result is nested too deeply: 200 levels are the limit"):
            value_of(answered(levels), subject="git/log", max_bytes=10_000)
