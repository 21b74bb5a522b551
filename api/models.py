"""`GET /v1/models`: configured names and `provider/model`, in OpenAI's shape."""

from typing import Any

from fastapi import APIRouter

from api.services import Services

_SINCE = 1_735_689_600  # OpenAI's clients want a number; upstreams mostly tell none


def routes(services: Services) -> APIRouter:
    """The two routes."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models", summary="Every name that `model` may have")
    async def list_all() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        names = await services.router.list_names()
        return {"object": "list", "data": [_model(name.id, name.owned_by) for name in names]}

    @router.get("/v1/models/{model:path}", summary="One model")
    async def show(model: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        route = await services.router.resolve(model)
        return _model(model, route.candidates[0].provider.config.name)

    return router


def _model(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _SINCE, "owned_by": owner}
