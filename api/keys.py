"""API keys over HTTP: made (the secret is told once), listed, revoked. Only a key made with `admin` may, where keys are needed."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from api.auth import check_admin
from api.params import check_cursor, check_limit, page
from api.plain_text import PlainText
from api.services import Services
from engine.api_keys import ApiKey, KeyLimits, NewKey, create_key, key_of, new_secret, revoke
from engine.budget_spec import BudgetSpec
from engine.budgets import budget_of_key
from engine.clock import iso, now_us
from engine.errors import UserError
from engine.money import to_picousd
from engine.periods import Period
from engine.store.api_keys import list_keys
from engine.store.database import Tx

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


class KeyRequest(BaseModel):
    """Body of `POST /v1/keys`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"name": "ci", "budget_usd": 5, "budget_period": "day", "allowed_models": ["fast"]}]
        },
    )

    name: Annotated[PlainText, Field(min_length=1, max_length=100)]
    allowed_models: list[Annotated[PlainText, Field(min_length=1, max_length=300)]] | None = Field(
        default=None, description="Names as clients give them; `*` stands for any text, as in `ollama/*`."
    )
    budget_usd: Annotated[Decimal, Field(ge=0, le=1_000_000)] | None = None
    budget_period: Literal["day", "month", "total"] | None = Field(
        default=None, description="Of `budget_usd`, by the calendar, in UTC; left out: month."
    )
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    max_parallel: Count | None = None
    admin: bool | None = Field(
        default=None,
        description="Whether it may make and revoke keys and set budgets; left out: where nothing limits it.",
    )


def routes(services: Services) -> APIRouter:
    """All routes of keys."""
    router = APIRouter(tags=["keys"])

    @router.post("/v1/keys", status_code=201, summary="Make a key; its secret is told in this answer and never again")
    async def create(request: Request, asked: KeyRequest) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        check_admin(request.state.key)
        secret = new_secret()
        view = await services.database.write(lambda tx: created(tx, asked, secret))
        services.keys.forget()
        return view

    @router.get("/v1/keys", summary="Keys, newest first, revoked ones too")
    async def show(  # pyright: ignore[reportUnusedFunction]
        request: Request, limit: int = 50, cursor: str | None = None
    ) -> dict[str, Any]:
        check_admin(request.state.key)
        size, before = check_limit(limit), check_cursor(cursor)
        rows = await services.database.read(lambda tx: listed(tx, before, size + 1))
        return page(rows, size)

    @router.delete("/v1/keys/{key}", summary="Revoke a key, by its id or name")
    async def delete(request: Request, key: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        check_admin(request.state.key)
        view = await services.database.write(lambda tx: key_view(tx, revoke(tx, key, now_us())))
        services.keys.forget()
        return view

    return router


def created(tx: Tx, asked: KeyRequest, secret: str) -> dict[str, Any]:
    """Make the key; its view with the secret under `key`. Raises: Conflict, UserError."""
    limits = KeyLimits(
        allowed_models=None if asked.allowed_models is None else tuple(asked.allowed_models),
        requests_per_minute=asked.requests_per_minute,
        tokens_per_minute=asked.tokens_per_minute,
        max_parallel=asked.max_parallel,
    )
    budget = None
    if asked.budget_usd is not None:
        budget = BudgetSpec(asked.name, to_picousd(asked.budget_usd), Period(asked.budget_period or "month"))
    elif asked.budget_period is not None:
        raise UserError("invalid_parameter", "budget_period needs budget_usd: how much a period", param="budget_period")
    key = create_key(tx, NewKey(asked.name, limits, budget, asked.admin), secret, now_us())
    return {**key_view(tx, key), "key": secret}


def listed(tx: Tx, before: str | None, most: int) -> list[dict[str, object]]:
    """Views of keys, newest first."""
    return [key_view(tx, key_of(row)) for row in list_keys(tx, before, most)]


def key_view(tx: Tx, key: ApiKey) -> dict[str, Any]:
    """A key as users see it; nothing in it helps to guess the secret."""
    models = key.limits.allowed_models
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "admin": key.admin,
        "allowed_models": None if models is None else list(models),
        "budget": budget_of_key(tx, key.id, now_us()),
        "requests_per_minute": key.limits.requests_per_minute,
        "tokens_per_minute": key.limits.tokens_per_minute,
        "max_parallel": key.limits.max_parallel,
        "created_at": iso(key.created_us),
        "revoked_at": None if key.revoked_us is None else iso(key.revoked_us),
    }
