"""`/dashboard/providers`: the configured providers, which of their models rest after failures, and a button that asks each of them now."""

import asyncio
from collections.abc import Mapping

from fastapi import Request, Response

from api.pages.forms import check_same_origin
from api.pages.rendering import page
from api.services import Services
from engine.clock import now_us
from engine.provider_health import health_view
from providers.checkup import Checkup, check_provider


async def providers_page(services: Services, checked: Mapping[str, Checkup] | None = None) -> Response:
    """The page; asks nobody. `checked`: what the providers have just said."""
    resting = await services.database.read(lambda tx: health_view(tx, now_us()))
    providers = [provider.config for provider in services.router.providers]
    return await page(
        "providers.html", {"here": "providers", "providers": providers, "resting": resting, "checked": checked or {}}
    )


async def check_providers(services: Services, request: Request) -> Response:
    """Ask every provider for its models, which costs nothing, and show what they said. Raises: HttpError."""
    check_same_origin(request)
    found = await asyncio.gather(*(check_provider(provider) for provider in services.router.providers))
    return await providers_page(services, {one.provider: one for one in found})
