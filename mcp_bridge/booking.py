"""A tool call that is booked like any other upstream call: intent before, outcome after, whatever happens."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.clock import new_id, now_us
from engine.ledger import Book, CallKind, CallScope, CostSource, Intent, Settlement
from engine.states import ErrorClass
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
            await self.book.settle(_settlement(intent, error.error_class, error.message))
            raise
        except asyncio.CancelledError:
            stopped = _settlement(intent, ErrorClass.CANCELLED, "stopped before its end")
            await asyncio.shield(self.book.settle(stopped))
            raise
        await self.book.settle(_settlement(intent, None, None))
        return result

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


def _settlement(intent: Intent, error_class: ErrorClass | None, error: str | None) -> Settlement:
    finished = now_us()
    return Settlement(
        id=intent.id,
        success=error_class is None,
        usage=None,
        cost_picousd=0,
        cost_source=CostSource.FREE,
        finished_us=finished,
        latency_us=finished - intent.at_us,
        error_class=error_class,
        error=error,
    )
