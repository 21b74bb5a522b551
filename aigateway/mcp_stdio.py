"""Runs `aigateway mcp`: an MCP server on standard input and output in front of a gateway that is reached over HTTP."""

import asyncio
from urllib.parse import urlsplit

import httpx2

from aigateway import __version__
from aigateway.client import LOOPBACK
from aigateway.logs import configure_logging
from aigateway.settings import ServerAddress
from mcp_bridge.gateway_server import serve_stdio as serve_library
from mcp_bridge.own_api import OwnApi

_CONNECT_S = 5.0
_ANSWER_S = 3600.0  # a tool of a connected server may take its time; runs are asked for again and again


def serve_stdio(address: ServerAddress) -> None:
    """Serve until standard input ends. Nothing but the protocol is written to standard output; logs go to standard error."""
    configure_logging("warning")
    asyncio.run(_serve(address))


async def _serve(address: ServerAddress) -> None:
    headers = {"accept": "application/json"}
    if address.api_key:
        headers["authorization"] = f"Bearer {address.api_key.get_secret_value()}"
    async with httpx2.AsyncClient(
        base_url=address.url,
        headers=headers,
        timeout=httpx2.Timeout(_ANSWER_S, connect=_CONNECT_S),
        trust_env=urlsplit(address.url).hostname not in LOOPBACK,
    ) as http:
        await serve_library(OwnApi(http), __version__)
