"""`/dashboard/mcp`: the MCP servers as this process sees them, and a button that asks each of them now."""

from fastapi import Request, Response
from starlette.responses import RedirectResponse

from api.pages.forms import check_same_origin
from api.pages.rendering import page
from api.services import Services


async def mcp_servers(services: Services) -> Response:
    """The page; connects nothing."""
    return await page("mcp.html", {"here": "mcp", "servers": await services.bridge.servers()})


async def check_servers(services: Services, request: Request) -> Response:
    """Connect to every server and read its tools, then show how they stand. Raises: HttpError."""
    check_same_origin(request)
    await services.bridge.tools(refresh=True)
    return RedirectResponse("/dashboard/mcp", 303)
