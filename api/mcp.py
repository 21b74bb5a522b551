"""The MCP bridge over HTTP: state of each server, every tool with its schema, a direct call."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from operator import itemgetter
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from api.errors import HttpError
from api.json_mistakes import Shallow
from api.params import part
from api.services import ChatBook, Services
from engine.errors import Mistake, UserError
from engine.ledger import CallScope
from engine.states import ErrorClass
from engine.tool_params import wrong_params
from mcp_bridge.booking import BookedTools
from mcp_bridge.catalogue import Tool
from mcp_bridge.errors import ToolError

_MOMENT_S = 3.0
_STATUS = {
    ErrorClass.INVALID_REQUEST: 400,
    ErrorClass.RATE_LIMIT: 429,
    ErrorClass.CONNECTION: 503,
    ErrorClass.TIMEOUT: 504,
}


class ToolCall(BaseModel):
    """Body of a direct call."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"params": {"timezone": "UTC"}}]})

    params: Shallow[dict[str, Any]] = Field(default_factory=dict[str, Any])
    server: str | None = None
    timeout_s: Annotated[float, Field(gt=0, le=3600)] | None = None


def routes(services: Services) -> APIRouter:
    """All routes of the bridge."""
    router = APIRouter(tags=["mcp"])

    @router.get("/v1/mcp/servers", summary="Every configured MCP server and how it stands")
    async def servers(limit: int = 50, cursor: str | None = None) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        await look_for_a_moment(services)
        rows = [asdict(state) for state in await services.bridge.servers()]
        return part(rows, limit, cursor, name=itemgetter("name"))

    @router.get("/v1/mcp/tools", summary="Every tool of every server that can be reached")
    async def tools(  # pyright: ignore[reportUnusedFunction]
        passed: bool = False, limit: int = 50, cursor: str | None = None
    ) -> dict[str, Any]:
        """With `passed`, what clients of `/mcp` see: nothing unless `mcp.pass_tools` is set, and what a moment's look finds."""
        if passed and services.pass_tools:
            await look_for_a_moment(services)
            known = services.bridge.known_tools()
            rows = [asdict(tool) for tools in known.values() for tool in tools.values()]
        else:
            rows = [] if passed else [asdict(tool) for tool in await services.bridge.tools()]
        return part(rows, limit, cursor, name=lambda tool: f"{tool['server']}/{tool['name']}")

    @router.post("/v1/mcp/tools/{tool}", summary="Call a tool")
    async def call(tool: str, request: Request, asked: ToolCall | None = None) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        told = asked or ToolCall()
        found = await _found(services, tool, told)
        _check_params(found, told.params)
        booked = BookedTools(
            services.bridge,
            ChatBook(services),
            CallScope(
                request_id=request.state.request_id,
                key_id=getattr(request.state, "key_id", None),
                span=getattr(request.state, "span", None),
            ),
        )
        try:
            result = await booked.call(found, told.params, server=told.server, timeout_s=told.timeout_s)
        except ToolError as error:
            raise _as_http(error) from error
        return {"server": result.server, "tool": result.tool, "result": result.value}

    return router


async def look_for_a_moment(services: Services) -> None:
    """Connect what can be connected; servers that take longer go on in the background and show as they stand now."""
    looking = asyncio.ensure_future(services.bridge.tools())
    await asyncio.wait([looking], timeout=_MOMENT_S)
    if not looking.done():
        looking.cancel()  # what has begun to connect goes on by itself
        await asyncio.wait([looking])


async def _found(services: Services, tool: str, told: ToolCall) -> Tool:
    try:
        async with asyncio.timeout(told.timeout_s):
            return await services.bridge.find(tool, told.server)
    except ToolError as error:
        raise _as_http(error) from error
    except TimeoutError as error:
        raise HttpError(504, "timeout", f"no server with {tool} was found within {told.timeout_s:g} s") from error


def _check_params(tool: Tool, params: Mapping[str, Any]) -> None:
    """Refuse what the tool's own schema forbids before anything is sent. Raises: UserError."""
    wrong = [Mistake(message, f"params.{param}") for param, message in wrong_params(params, tool.input_schema)]
    if wrong:
        message = f"{tool.server}/{tool.name}, {wrong[0].path}: {wrong[0].message}"
        raise UserError("invalid_params", message, param=wrong[0].path, details=wrong)


def _as_http(error: ToolError) -> HttpError:
    return HttpError(_STATUS.get(error.error_class, 502), error.code, error.message, param=error.param)
