"""`GET /v1/models`: configured names, `provider/model` and `workflow/NAME`, in OpenAI's shape. A key sees what it may use, and no more."""

from typing import Any

from fastapi import APIRouter, Request

from api.services import Services
from api.workflow_models import PREFIX, workflow_definition, workflow_of
from engine.api_keys import ApiKey
from engine.errors import NotFound
from engine.store.definitions import workflow_names
from providers.routing import Route

_SINCE = 1_735_689_600  # OpenAI's clients want a number; upstreams mostly tell none


def routes(services: Services) -> APIRouter:
    """The two routes."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models", summary="Every name that `model` may have, as far as the key may use it")
    async def list_all(request: Request) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        key: ApiKey | None = request.state.key
        names = await services.router.list_names()
        rows = [_model(name.id, name.owned_by) for name in names if key is None or key.allows(name.id, *name.targets)]
        workflows = [PREFIX + name for name in await services.database.read(workflow_names)]
        rows += [_model(name, "workflow") for name in workflows if key is None or key.allows(name)]
        return {"object": "list", "data": rows}

    @router.get("/v1/models/{model:path}", summary="One model")
    async def show(model: str, request: Request) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        """One that the key may not use is 404 too, as at OpenAI."""
        key: ApiKey | None = request.state.key
        workflow = workflow_of(services, model)
        if workflow is not None:
            _check(key, model)
            await workflow_definition(services, workflow)
            return _model(model, "workflow")
        if key is not None and not key.allows(model):
            _check(key, model, await _route_or_none(services, model))
        route = await services.router.resolve(model)
        return _model(model, route.candidates[0].provider.config.name)

    return router


async def _route_or_none(services: Services, model: str) -> Route | None:
    """Without the nearest names, which a key need not know."""
    try:
        return await services.router.resolve(model)
    except NotFound:
        return None


def _check(key: ApiKey | None, model: str, route: Route | None = None) -> None:
    """Whether the key may use the name itself, or a target that it comes to. Raises: NotFound."""
    targets = ["/".join(candidate.key) for candidate in route.candidates] if route else []
    if key is not None and not key.allows(model, *targets):
        message = f"No model is called `{model}`, or the API key {key.name} may not use it."
        raise NotFound("model_not_found", message, param="model")


def _model(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _SINCE, "owned_by": owner}
