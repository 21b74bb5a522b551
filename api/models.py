"""`GET /v1/models`: configured names, `provider/model` and `workflow/NAME`. A key sees what it may use, and no more.

In OpenAI's shape; in Anthropic's where the request has an `anthropic-version` (its API reference, Models).
"""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from api.services import Services
from api.workflow_models import PREFIX, workflow_definition, workflow_of
from engine.api_keys import ApiKey
from engine.errors import NotFound, UserError
from engine.store.definitions import workflow_names
from providers.provider import Json
from providers.routing import Route

_SINCE = 1_735_689_600  # OpenAI's clients want a number; upstreams mostly tell none
_CREATED = "2025-01-01T00:00:00Z"  # the same
_HEADER = "anthropic-version"


def routes(services: Services) -> APIRouter:
    """The two routes."""
    router = APIRouter(tags=["models"])

    @router.get("/v1/models", summary="Every name that `model` may have, as far as the key may use it")
    async def list_all(  # pyright: ignore[reportUnusedFunction]
        request: Request,
        limit: Annotated[int | None, Query(ge=1, le=1000, description="All, unless told.")] = None,
        after_id: Annotated[str | None, Query(description="Those behind this one alone.")] = None,
    ) -> Json:
        key: ApiKey | None = request.state.key
        names = await services.router.list_names()
        rows = [_model(name.id, name.owned_by) for name in names if key is None or key.allows(name.id, *name.targets)]
        workflows = [PREFIX + name for name in await services.database.read(workflow_names)]
        rows += [_model(name, "workflow") for name in workflows if key is None or key.allows(name)]
        return _page(rows, limit, after_id, told_for_anthropic=_HEADER in request.headers)

    @router.get("/v1/models/{model:path}", summary="One model")
    async def show(model: str, request: Request) -> Json:  # pyright: ignore[reportUnusedFunction]
        """One that the key may not use is 404 too, as at OpenAI."""
        key: ApiKey | None = request.state.key
        workflow = workflow_of(services, model)
        if workflow is not None:
            _check(key, model)
            await workflow_definition(services, workflow)
            return _told(_model(model, "workflow"), request)
        if key is not None and not key.allows(model):
            _check(key, model, await _route_or_none(services, model))
        route = await services.router.resolve(model)
        return _told(_model(model, route.candidates[0].provider.config.name), request)

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


def _page(rows: list[Json], limit: int | None, after_id: str | None, *, told_for_anthropic: bool) -> Json:
    """Raises: UserError for an `after_id` that is not there."""
    ids = [row["id"] for row in rows]
    if after_id is not None:
        if after_id not in ids:
            raise UserError("invalid_parameter", f"after_id: there is no model `{after_id}` here", param="after_id")
        rows = rows[ids.index(after_id) + 1 :]
    shown = rows[:limit]
    if not told_for_anthropic:
        return {"object": "list", "data": shown}
    data = [_for_anthropic(row) for row in shown]
    ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "has_more": len(shown) < len(rows), "first_id": ends[0], "last_id": ends[1]}


def _told(row: Json, request: Request) -> Json:
    return _for_anthropic(row) if _HEADER in request.headers else row


def _for_anthropic(row: Json) -> Json:
    return {"type": "model", "id": row["id"], "display_name": row["id"], "created_at": _CREATED, "lifecycle": "active"}


def _model(name: str, owner: str) -> Json:
    return {"id": name, "object": "model", "created": _SINCE, "owned_by": owner}
