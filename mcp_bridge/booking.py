"""A tool call that is booked like any other upstream call: intent before, outcome after, whatever happens."""

import asyncio
from collections.abc import Mapping
from typing import Any

from engine.clock import new_id, now_us
from engine.ledger import Book, CallKind, CallScope, CostSource, Intent, Settlement
from engine.states import ErrorClass
from mcp_bridge.bridge import McpBridge
from mcp_bridge.calls import ToolResult
from mcp_bridge.catalogue import Tool
from mcp_bridge.errors import ToolError


async def call_booked(
    bridge: McpBridge,
    book: Book,
    scope: CallScope,
    tool: Tool,
    params: Mapping[str, Any],
    *,
    server: str | None,
    timeout_s: float | None,
) -> ToolResult:
    """Call `tool`, found before, on `server` (None: on any that has it). Raises: ToolError."""
    intent = Intent(
        id=new_id(),
        scope=scope,
        kind=CallKind.TOOL,
        provider=tool.server,
        model=tool.name,
        requested_model=tool.name,
        streamed=False,
        at_us=now_us(),
        reserve_picousd=0,
    )
    await book.open(intent)
    try:
        result = await bridge.call(tool.name, params, server=server, timeout_s=timeout_s)
    except ToolError as error:
        await book.settle(_settlement(intent, error.error_class, error.message))
        raise
    except asyncio.CancelledError:
        await asyncio.shield(book.settle(_settlement(intent, ErrorClass.CANCELLED, "stopped before its end")))
        raise
    await book.settle(_settlement(intent, None, None))
    return result


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
