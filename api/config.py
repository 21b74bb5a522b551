"""`POST /v1/config/reload`: the process reads its own configuration again. Nothing of a configuration is ever taken over HTTP."""

from typing import Any

from fastapi import APIRouter, Request

from api.auth import check_admin
from api.services import Services


def routes(services: Services) -> APIRouter:
    """The one route."""
    router = APIRouter(tags=["config"])

    @router.post("/v1/config/reload", summary="Read the configuration again; a bad one is refused whole")
    async def reload(request: Request) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """The other processes that share the database read theirs within a second.

        `changed` names what is in force now, by section; `needs_restart` what has changed and is not; `workflow_errors` the
        files of the workflows folder that were not taken up.
        """
        check_admin(request.state.key)
        return await services.reload_config()

    return router
