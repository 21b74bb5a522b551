"""A tool call that is booked like any other upstream call: intent before, outcome after, whatever happens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.clock import new_id, now_us
from engine.free_calls import free_call
from engine.ledger import Book, CallKind, CallScope, Intent
from mcp_bridge.bridge import McpBridge
from mcp_bridge.calls import ToolResult
from mcp_bridge.catalogue import Tool
from mcp_bridge.errors import ToolError


@dataclass(frozen=True, slots=True)
class BookedTools:
    """The tools of a bridge, called on behalf of `scope` and booked in `book`."""

    bridge: McpBridge
    book: Book
    scope: CallScope

    async def call(
        self, tool: Tool, params: Mapping[str, Any], *, server: str | None, timeout_s: float | None
    ) -> ToolResult:
        """Call `tool`, found before, on `server` (None: on any that has it). Raises: ToolError."""
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tool.name,
            "gen_ai.tool.type": "extension",
            "mcp.method.name": "tools/call",
            "aigateway.mcp_server": tool.server,
        }
        name = f"execute_tool {tool.name}"
        async with free_call(
            self.book, self._intent(tool), name=name, kind="internal", attributes=attributes
        ) as booked:
            try:
                return await self.bridge.call(tool.name, params, server=server, timeout_s=timeout_s)
            except ToolError as error:
                booked.failed(error.error_class, error.message)
                raise

    def _intent(self, tool: Tool) -> Intent:
        return Intent(
            id=new_id(),
            scope=self.scope,
            kind=CallKind.TOOL,
            provider=tool.server,
            model=tool.name,
            requested_model=tool.name,
            streamed=False,
            at_us=now_us(),
            reserve_picousd=0,
        )
