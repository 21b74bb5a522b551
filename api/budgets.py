"""Budgets over HTTP: what is set, what is spent and left, when each begins anew; and setting them."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from api.auth import check_admin
from api.params import FORM, check_cursor, check_limit, page
from api.plain_text import PlainText
from api.services import Services
from engine.budget_spec import Action, BudgetSpec, Origin, Scope, check_budget, to_threshold
from engine.budgets import budget_view, put_budget, replace_budgets
from engine.clock import now_us
from engine.errors import UserError
from engine.money import to_picousd
from engine.periods import Period
from engine.store.budgets import all_budgets
from engine.store.database import Tx


class BudgetRequest(BaseModel):
    """A budget, in the body of `PUT /v1/budgets`. The same keys as in the configuration file."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"name": "daily", "limit_usd": 5, "period": "day", "alert_at": [0.5, 0.8, 1.0]}]
        },
    )

    name: Annotated[PlainText, Field(min_length=1, max_length=100)]
    limit_usd: Annotated[Decimal, Field(ge=0, le=1_000_000)]
    period: Literal["day", "month", "total"] = "month"
    zone: PlainText = Field(default="UTC", max_length=60, description="Whose midnight begins a day or a month.")
    scope: Literal["all", "key", "workflow", "provider", "model", "tag"] = "all"
    match: Annotated[PlainText, Field(min_length=1, max_length=300)] | None = Field(
        default=None, description="Which key (name or id), workflow, provider, model, or tag (`key:value`) it counts."
    )
    action: Literal["reject", "alert"] = "reject"
    alert_at: list[Annotated[Decimal, Field(gt=0, le=100)]] = Field(
        default_factory=list[Decimal],
        max_length=20,
        description="Shares of the limit at which an alert is sent, once a period.",
    )

    def spec(self) -> BudgetSpec:
        """What the engine takes. Raises: UserError."""
        spec = BudgetSpec(
            name=self.name,
            limit_picousd=to_picousd(self.limit_usd),
            period=Period(self.period),
            scope=Scope(self.scope),
            subject=self.match,
            zone=self.zone,
            action=Action(self.action),
            alert_at=tuple(to_threshold(share) for share in self.alert_at),
        )
        check_budget(spec)
        return spec


_One = Annotated[BudgetRequest, Tag(FORM + "one")]
_Many = Annotated[list[BudgetRequest], Tag(FORM + "many")]


def _form(body: Any) -> str:
    """Which of the two a body is meant to be: a mistake is told of that one alone."""
    return FORM + ("many" if isinstance(body, list) else "one")


def routes(services: Services) -> APIRouter:
    """All routes of budgets."""
    router = APIRouter(tags=["budgets"])

    @router.get("/v1/budgets", summary="Budgets with what is spent, reserved and left, newest first")
    async def show(limit: int = 50, cursor: str | None = None) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        size, before = check_limit(limit), check_cursor(cursor)
        views = await services.database.read(lambda tx: _views(tx, before, size + 1))
        return page(views, size)

    @router.put(
        "/v1/budgets",
        summary="Set one budget by its name, or with a list all that are set over HTTP",
        description="An object creates the budget of that name or changes it. A list replaces every budget that was set "
        "here; those of the configuration file and of keys stay. A budget set here stands above one of the same name in the file.",
    )
    async def put(  # pyright: ignore[reportUnusedFunction]
        request: Request, asked: Annotated[_One | _Many, Discriminator(_form)]
    ) -> dict[str, Any]:
        check_admin(request.state.key)
        if isinstance(asked, list):
            specs = _specs(asked)
            return page(await services.database.write(lambda tx: _replaced(tx, specs)), len(specs))
        spec = asked.spec()
        return await services.database.write(lambda tx: _put(tx, spec))

    return router


def _specs(asked: list[BudgetRequest]) -> list[BudgetSpec]:
    """Raises: UserError, for a name that stands there twice too: the order of a list would decide which one holds."""
    names: set[str] = set()
    for at, each in enumerate(asked):
        if each.name in names:
            words = f"[{at}].name: the list has a budget `{each.name}` already"
            raise UserError("invalid_request", words, param=f"[{at}].name")
        names.add(each.name)
    return [each.spec() for each in asked]


def _views(tx: Tx, before: str | None, most: int) -> list[dict[str, object]]:
    rows = sorted(all_budgets(tx), key=lambda row: row["id"], reverse=True)
    now = now_us()
    return [budget_view(tx, row, now) for row in rows if before is None or row["id"] < before][:most]


def _put(tx: Tx, spec: BudgetSpec) -> dict[str, Any]:
    put_budget(tx, spec, Origin.HTTP, now_us())
    return next(budget_view(tx, row, now_us()) for row in all_budgets(tx) if row["name"] == spec.name)


def _replaced(tx: Tx, specs: list[BudgetSpec]) -> list[dict[str, object]]:
    now = now_us()
    replace_budgets(tx, specs, now)
    wanted = {spec.name for spec in specs}
    return [budget_view(tx, row, now) for row in all_budgets(tx) if row["name"] in wanted]
