"""The `mcp_tool` step: calls a tool of a connected server and books the call like any other."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import NotFound
from engine.expressions import render
from engine.json_schemas import schema_mistake, violations
from engine.keys import MCP_TOOL
from engine.plain_values import accepted, shown_expression
from engine.ports import Failed, Job, Outcome, Succeeded
from engine.states import ErrorClass
from engine.values import is_object
from mcp_bridge.booking import BookedTools
from mcp_bridge.bridge import McpBridge
from mcp_bridge.catalogue import Tool
from mcp_bridge.errors import ToolError

_SHOWN = 5  # wrong arguments in a message
_NAME = re.compile(r"\.([^.\[]+)")


@dataclass(frozen=True, slots=True)
class McpToolExecutor:
    """engine.ports.StepExecutor for `mcp_tool`."""

    bridge: McpBridge

    async def execute(self, job: Job) -> Outcome:
        """Raises: ExpressionError; UserError for params that are no object. What the tool does not take is not sent to it."""
        fields = job.step.fields
        name = render(fields["tool"], job.scope)
        server = render(fields["server"], job.scope) if "server" in fields else None
        params = accepted(MCP_TOOL.keys, fields, {"params": render(fields.get("params"), job.scope)}).get("params", {})
        tool = await found_tool(self.bridge, name, server)
        if isinstance(tool, Failed):
            return tool
        wrong = wrong_arguments(tool, params)
        if wrong:
            told = "; ".join(f"{_expression(fields.get('params'), where)}params{where} {what}" for where, what in wrong)
            return Failed(ErrorClass.INVALID_REQUEST, f"{tool.server}/{tool.name}: {told}", final=True)
        return await made_call(self.bridge, job, tool, params, server=server)


def wrong_arguments(tool: Tool, arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where and why arguments do not fit the tool's own schema, a few of them. One that is no schema is left to its server."""
    return violations(tool.input_schema, arguments)[:_SHOWN] if schema_mistake(tool.input_schema) is None else []


def _expression(written: Any, where: str) -> str:
    """The expression that gave the argument, or all of them."""
    if is_object(written):
        name = _NAME.match(where)
        return "" if name is None else shown_expression(written.get(name[1]))
    return shown_expression(written)


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
