"""`GET /v1/models`: configured names, `provider/model` and `workflow/NAME`, in OpenAI's shape."""

from typing import Any

from fastapi import APIRouter

from api.services import Services
from api.workflow_models import PREFIX, workflow_definition, workflow_of
from engine.store.definitions import workflow_names

_SINCE = 1_735_689_600  # OpenAI's clients want a number; upstreams mostly tell none


def routes(services: Services) -> APIRouter:
    """The two routes."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models", summary="Every name that `model` may have")
    async def list_all() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        names = await services.router.list_names()
        rows = [_model(name.id, name.owned_by) for name in names]
        rows += [_model(PREFIX + name, "workflow") for name in await services.database.read(workflow_names)]
        return {"object": "list", "data": rows}

    @router.get("/v1/models/{model:path}", summary="One model")
    async def show(model: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        workflow = workflow_of(services, model)
        if workflow is not None:
            await workflow_definition(services, workflow)
            return _model(model, "workflow")
        route = await services.router.resolve(model)
        return _model(model, route.candidates[0].provider.config.name)

    return router


def _model(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _SINCE, "owned_by": owner}
