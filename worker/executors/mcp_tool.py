"""The `mcp_tool` step: calls a tool of a connected server and books the call like any other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import NotFound
from engine.expressions import render
from engine.ports import Failed, Job, Outcome, Succeeded
from engine.states import ErrorClass
from mcp_bridge.booking import BookedTools
from mcp_bridge.bridge import McpBridge
from mcp_bridge.catalogue import Tool
from mcp_bridge.errors import ToolError


@dataclass(frozen=True, slots=True)
class McpToolExecutor:
    """engine.ports.StepExecutor for `mcp_tool`."""

    bridge: McpBridge

    async def execute(self, job: Job) -> Outcome:
        """Raises: ExpressionError."""
        fields = job.step.fields
        name = render(fields["tool"], job.scope)
        server = render(fields["server"], job.scope) if "server" in fields else None
        params = render(dict(fields.get("params", {})), job.scope)
        tool = await found_tool(self.bridge, name, server)
        return tool if isinstance(tool, Failed) else await made_call(self.bridge, job, tool, params, server=server)


async def found_tool(bridge: McpBridge, name: str, server: str | None) -> Tool | Failed:
    """The tool, or why there is none."""
    try:
        return await bridge.find(name, server)
    except NotFound as error:
        return Failed(ErrorClass.INVALID_REQUEST, error.message, final=True)
    except ToolError as error:
        return Failed(error.error_class, error.message, error.retry_after_s)


async def made_call(
    bridge: McpBridge, job: Job, tool: Tool, params: Mapping[str, Any], *, server: str | None
) -> Outcome:
    """The call's outcome. A tool that is neither read-only nor idempotent is not tried again unless the step says so."""
    try:
        booked = BookedTools(bridge, job.book, job.call_scope)
        result = await booked.call(tool, params, server=server, timeout_s=job.step.timeout_s)
    except ToolError as error:
        final = job.step.retry is None and error.sent and not tool.repeatable
        return Failed(error.error_class, error.message, error.retry_after_s, final=final)
    return Succeeded(result.value)
