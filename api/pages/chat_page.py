"""`/dashboard/chat`: a page to try a model. Its script is a client like any other."""

import asyncio

from fastapi import Response

from api.pages.rendering import page
from api.services import Services

_PATIENCE_S = 1.0  # for providers that are slow to tell their models


async def chat_page(services: Services) -> Response:
    """The page, with the names that are known within a moment; others can be typed."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            models = [row.id for row in await services.router.list_names()]
    except TimeoutError:
        models = []
    return await page("chat.html", {"here": "chat", "models": models})
