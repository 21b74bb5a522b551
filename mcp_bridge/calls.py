"""What a tool's answer means for a workflow: one JSON value, or an error with the tool's own words. Pure."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import orjson

from engine.depth import MAX_DEPTH, is_too_deep
from engine.states import ErrorClass
from mcp_bridge.errors import ToolError

if TYPE_CHECKING:
    import mcp_types


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A call that worked. `value` is plain JSON: structured content where there is some, else the text."""

    server: str
    tool: str
    value: Any


def value_of(answer: "mcp_types.CallToolResult", *, subject: str, max_bytes: int) -> Any:
    """The value that a step gets.

    Raises:
        ToolError: the tool says that it failed, or its value is larger than `max_bytes`, nested too deeply or no plain JSON.
    """
    if answer.is_error:
        raise ToolError(ErrorClass.TOOL_ERROR, f"{subject}: {_text(answer) or 'failed without saying why'}")
    value = _structured(answer.structured_content) if answer.structured_content is not None else _unstructured(answer)
    if is_too_deep(value):
        message = f"{subject}: the result is nested too deeply: {MAX_DEPTH} levels are the limit"
        raise ToolError(ErrorClass.TOOL_ERROR, message)
    size = _size_bytes(value, subject)
    if size > max_bytes:
        raise ToolError(
            ErrorClass.TOOL_ERROR, f"{subject}: the result has {size:,} bytes, more than the limit of {max_bytes:,}"
        )
    return value


def _structured(content: Any) -> Any:
    """Servers wrap what is no object as {"result": …}, because the protocol asks for an object."""
    if isinstance(content, dict):
        wrapped = cast("dict[str, Any]", content)
        return wrapped["result"] if list(wrapped) == ["result"] else wrapped
    return content


def _unstructured(answer: "mcp_types.CallToolResult") -> Any:
    if not answer.content or any(block.type == "text" for block in answer.content):
        return _text(answer)
    return [block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in answer.content]


def _text(answer: "mcp_types.CallToolResult") -> str:
    return "\n".join(block.text for block in answer.content if block.type == "text")


def _size_bytes(value: Any, subject: str) -> int:
    try:
        return len(value.encode()) if isinstance(value, str) else len(orjson.dumps(value))
    except (TypeError, ValueError) as error:  # lone surrogates, integers beyond 64 bits
        raise ToolError(ErrorClass.TOOL_ERROR, f"{subject}: the result is not plain JSON ({error})") from error
