"""This gateway as an MCP server, over stdio and Streamable HTTP, for every version of the protocol that the library knows.

Imports the `mcp` library (over a second): load it in a thread or where nobody waits. Each request stands alone: no session is kept, so any
API process may answer it, and nothing grows with the number of clients.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httpx2
import mcp_types
from mcp import MCPError
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from engine.errors import AIGatewayError, NotFound
from mcp_bridge.offers import Answer, Offer
from mcp_bridge.own_api import Headers, OwnApi

Context = ServerRequestContext[Any, Any]
App = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[MutableMapping[str, Any]], Awaitable[None]]],
    Awaitable[None],
]

_INSIDE = "http://127.0.0.1"  # a name that the gate takes for this machine
_HANDED_ON = ("authorization", "x-api-key", "traceparent")
_INSTRUCTIONS = "Each tool runs a durable workflow and answers when the run has ended. A run goes on if you stop waiting; get_run tells its end."


def build_server(api: OwnApi, version: str) -> "Server[Any]":
    """The server; it answers from what `api` offers at that moment."""

    async def list_tools(context: Context, _: mcp_types.PaginatedRequestParams | None) -> mcp_types.ListToolsResult:
        try:
            offers = await api.offers(_credentials(context))
        except AIGatewayError as error:
            raise MCPError(mcp_types.INTERNAL_ERROR, error.message) from error
        return mcp_types.ListToolsResult(tools=[_tool(offer) for offer in offers])

    async def call_tool(context: Context, params: mcp_types.CallToolRequestParams) -> mcp_types.CallToolResult:
        wanted = (context.meta or {}).get("progress_token") is not None

        async def tell(elapsed_s: float, message: str) -> None:
            await context.session.report_progress(elapsed_s, None, message)

        try:
            progress = tell if wanted else None
            return _result(await api.call(params.name, params.arguments or {}, _credentials(context), progress))
        except NotFound as error:
            if error.code == "tool_not_found":
                raise MCPError(mcp_types.INVALID_PARAMS, error.message) from error
            return _result(Answer(error.message, failed=True))
        except AIGatewayError as error:
            return _result(Answer(error.message, failed=True))

    return Server(
        "aigateway", version=version, instructions=_INSTRUCTIONS, on_list_tools=list_tools, on_call_tool=call_tool
    )


async def serve_stdio(api: OwnApi, version: str) -> None:
    """Serve standard input and output until input ends. Calls under way end with it; their runs go on."""
    server = build_server(api, version)
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())


class HttpServing:
    """The server behind one HTTP endpoint, from `run` on until `closing` is set."""

    def __init__(self, inside: App, version: str, *, max_body_bytes: int) -> None:
        """`inside` is the application that answers what a call asks of the API: no request leaves the process."""
        transport = httpx2.ASGITransport(app=inside)  # pyright: ignore[reportArgumentType] - its types are narrower than ASGI's
        api = OwnApi(httpx2.AsyncClient(transport=transport, base_url=_INSIDE, timeout=None))
        self._manager = StreamableHTTPSessionManager(
            build_server(api, version), stateless=True, max_request_body_size=max_body_bytes
        )

    async def run(self, closing: asyncio.Event, ready: "asyncio.Future[App]") -> None:
        """Give the ASGI application to `ready`, and keep it going."""
        async with self._manager.run():
            ready.set_result(self._manager.asgi_app)
            await closing.wait()


def _credentials(context: Context) -> Headers:
    """What the caller showed, to be shown on; on stdio the client of the API has its own."""
    if context.request is None:
        return {}
    return {name: context.request.headers[name] for name in _HANDED_ON if name in context.request.headers}


def _tool(offer: Offer) -> mcp_types.Tool:
    hints = offer.hints
    return mcp_types.Tool(
        name=offer.name,
        description=offer.description,
        input_schema=dict(offer.input_schema),
        output_schema=None if offer.output_schema is None else dict(offer.output_schema),
        annotations=None
        if hints is None
        else mcp_types.ToolAnnotations(
            read_only_hint=hints["read_only"],
            idempotent_hint=hints["idempotent"],
            destructive_hint=hints["destructive"],
        ),
    )


def _result(answer: Answer) -> mcp_types.CallToolResult:
    return mcp_types.CallToolResult(
        content=[mcp_types.TextContent(type="text", text=answer.text)],
        structured_content=None if answer.data is None else dict(answer.data),
        is_error=answer.failed,
    )
