"""`/mcp`: this gateway as an MCP server over Streamable HTTP. What its clients do goes through the same gate and routes as any request.

The libraries behind it take more than a second to import: they are loaded by the first request, in a thread.
"""

import asyncio
from typing import TYPE_CHECKING

from api.asgi import MAX_BODY_BYTES, App, Receive, Scope, Send
from api.errors import HttpError
from api.origin import check_origin
from api.services import Services

if TYPE_CHECKING:
    from mcp_bridge.gateway_server import HttpServing


class McpEndpoint:
    """The ASGI application of the route."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._inside: App | None = None
        self._opening: asyncio.Task[App] | None = None
        self._serving: asyncio.Task[None] | None = None

    def connect(self, inside: App) -> None:
        """Say what answers the requests that tools make of the API: the whole application, once it is built."""
        self._inside = inside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises: HttpError where another web site's page sends it, also one that has a key."""
        check_origin(scope, on_loopback=self._services.on_loopback)
        _check_type(scope)
        if self._services.closing.is_set():
            raise HttpError(503, "shutting_down", "this process is about to end; try again")
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        serve = await asyncio.shield(self._opening)
        await serve(scope, receive, send)

    async def _open(self) -> App:
        assert self._inside is not None, "connect is called when the application is built"
        http_serving = await asyncio.to_thread(_load)
        ready: asyncio.Future[App] = asyncio.get_running_loop().create_future()
        serving = http_serving(self._inside, self._services.version, max_body_bytes=MAX_BODY_BYTES)
        self._serving = asyncio.create_task(serving.run(self._services.closing, ready))
        return await ready


def _check_type(scope: Scope) -> None:
    """The library behind it would answer in plain text. Raises: HttpError."""
    told = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    if told.partition(b";")[0].strip().lower() != b"application/json":
        words = "a message to /mcp has to be sent as content-type: application/json"
        raise HttpError(415, "unsupported_media_type", words, param="content-type")


def _load() -> "type[HttpServing]":
    from mcp_bridge.gateway_server import HttpServing  # noqa: PLC0415 - see above

    return HttpServing
