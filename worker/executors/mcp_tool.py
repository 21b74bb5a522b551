"""The `mcp_tool` step: calls a tool of a connected server and books the call like any other."""

from dataclasses import dataclass

from engine.errors import NotFound
from engine.expressions import render
from engine.ports import Failed, Job, Outcome, Succeeded
from engine.states import ErrorClass
from mcp_bridge.booking import BookedTools
from mcp_bridge.bridge import McpBridge
from mcp_bridge.errors import ToolError


@dataclass(frozen=True, slots=True)
class McpToolExecutor:
    """engine.ports.StepExecutor for `mcp_tool`."""

    bridge: McpBridge

    async def execute(self, job: Job) -> Outcome:
        """A tool that is neither read-only nor idempotent is not tried again unless the step says so."""
        fields = job.step.fields
        name = render(fields["tool"], job.scope)
        server = render(fields["server"], job.scope) if "server" in fields else None
        params = render(dict(fields.get("params", {})), job.scope)
        try:
            tool = await self.bridge.find(name, server)
        except NotFound as error:
            return Failed(ErrorClass.INVALID_REQUEST, error.message, final=True)
        except ToolError as error:
            return Failed(error.error_class, error.message, error.retry_after_s)
        try:
            booked = BookedTools(self.bridge, job.book, job.call_scope)
            result = await booked.call(tool, params, server=server, timeout_s=job.step.timeout_s)
        except ToolError as error:
            final = job.step.retry is None and error.sent and not tool.repeatable
            return Failed(error.error_class, error.message, error.retry_after_s, final=final)
        return Succeeded(result.value)
