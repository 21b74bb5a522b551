"""A tool call that is booked like any other upstream call: intent before, outcome after, whatever happens."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.clock import new_id, now_us
from engine.ledger import Book, CallKind, CallScope, Intent, settle_free
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
            await self.book.settle(settle_free(intent, now_us(), error.error_class, error.message))
            raise
        except asyncio.CancelledError:
            stopped = settle_free(intent, now_us(), ErrorClass.CANCELLED, "stopped before its end")
            await asyncio.shield(self.book.settle(stopped))
            raise
        await self.book.settle(settle_free(intent, now_us(), None, None))
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
