"""A tool call that is booked like any other upstream call: intent before, outcome after, whatever happens."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.clock import new_id, now_us
from engine.ledger import Book, CallKind, CallScope, Intent, Settlement, settle_free
from engine.states import ErrorClass
from engine.tracing import Work
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
        intent = self._intent(tool)
        await self.book.open(intent)
        try:
            result = await self.bridge.call(tool.name, params, server=server, timeout_s=timeout_s)
        except ToolError as error:
            await self._settle(settle_free(intent, now_us(), error.error_class, error.message), intent)
            raise
        except asyncio.CancelledError:
            stopped = settle_free(intent, now_us(), ErrorClass.CANCELLED, "stopped before its end")
            await asyncio.shield(self._settle(stopped, intent))
            raise
        await self._settle(settle_free(intent, now_us(), None, None), intent)
        return result

    async def _settle(self, settlement: Settlement, intent: Intent) -> None:
        if self.scope.span is not None:
            self.scope.span.add(_as_work(intent, settlement))
        await self.book.settle(settlement)

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


def _as_work(intent: Intent, ended: Settlement) -> Work:
    """By OpenTelemetry's conventions; neither parameters nor results are in it."""
    return Work(
        name=f"execute_tool {intent.model}",
        kind="internal",
        began_us=intent.at_us,
        ended_us=ended.finished_us,
        attributes={
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": intent.model,
            "gen_ai.tool.type": "extension",
            "mcp.method.name": "tools/call",
            "aigateway.mcp_server": intent.provider,
            "aigateway.request.id": intent.scope.request_id,
            "aigateway.call.id": ended.id,
        },
        error=None if ended.error_class is None else ended.error_class.value,
    )
