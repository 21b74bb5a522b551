"""Schedules over HTTP: a cron line and a stored workflow by name. Those of definitions are listed here too."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from api.asgi import JsonAnswer
from api.json_mistakes import Shallow
from api.params import check_cursor, check_limit, page
from api.plain_text import PlainText
from api.services import Services
from api.submissions import definition_of, unknown_names
from engine.clock import now_us
from engine.money import to_picousd
from engine.schedule_spec import DEFAULT_CATCH_UP, MAX_CATCH_UP, MAX_TAG, MAX_TAG_VALUE, MAX_TAGS, Overlap, ScheduleSpec
from engine.schedules import create_schedule, find_schedule, pause_schedule, remove_schedule, schedule_view
from engine.states import Priority
from engine.store.database import Row, Tx
from engine.store.schedules import list_schedules

_EXAMPLE: dict[str, JsonValue] = {
    "name": "mornings",
    "workflow": "daily-digest",
    "cron": "0 7 * * MON-FRI",
    "timezone": "Europe/Berlin",
    "input": {"folder": "/notes"},
}


class ScheduleRequest(BaseModel):
    """Body of `POST /v1/schedules`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    workflow: Annotated[PlainText, Field(min_length=1, max_length=200, description="A stored workflow's name.")]
    cron: Annotated[PlainText, Field(min_length=1, max_length=200)] = Field(
        description="Minute, hour, day of month, month, day of week, or a name such as @daily."
    )
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")] | None = Field(
        default=None, description="What it is called; left out: as its workflow."
    )
    timezone: Annotated[PlainText, Field(max_length=60, description="An IANA name, such as Europe/Berlin.")] = "UTC"
    overlap: Literal["skip", "queue"] = Field(
        default="skip", description="What a firing does that finds the schedule's run before still under way."
    )
    catch_up: Annotated[int, Field(ge=0, le=MAX_CATCH_UP)] = Field(
        default=DEFAULT_CATCH_UP, description="How many missed firings are made up; with queue, how many may wait."
    )
    input: Shallow[dict[str, Any]] = Field(default_factory=dict[str, Any])
    tags: dict[
        Annotated[PlainText, Field(max_length=MAX_TAG)], Annotated[PlainText, Field(max_length=MAX_TAG_VALUE)]
    ] = Field(default_factory=dict[str, str], max_length=MAX_TAGS)
    priority: Literal["low", "normal", "high"] = "normal"
    budget_usd: Annotated[Decimal, Field(ge=0, le=1_000_000)] | None = Field(
        default=None, description="Of each run; replaces the workflow's budget_usd."
    )
    enabled: bool = True

    def spec(self) -> ScheduleSpec:
        """As the engine knows it."""
        return ScheduleSpec(
            cron=self.cron,
            zone=self.timezone,
            overlap=Overlap(self.overlap),
            catch_up=self.catch_up,
            input=self.input,
            tags=self.tags,
            priority=Priority(self.priority),
            budget_picousd=None if self.budget_usd is None else to_picousd(self.budget_usd),
            enabled=self.enabled,
        )


def routes(services: Services) -> APIRouter:
    """All routes of schedules."""
    router = APIRouter(tags=["schedules"])
    _reading_routes(router, services)
    _writing_routes(router, services)
    return router


def _reading_routes(router: APIRouter, services: Services) -> None:
    @router.get("/v1/schedules", summary="Schedules, newest first, those of definitions too")
    async def listed(  # pyright: ignore[reportUnusedFunction]
        workflow: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> dict[str, Any]:
        size, before = check_limit(limit), check_cursor(cursor)
        rows = await services.database.read(lambda tx: list_schedules(tx, before, size + 1, workflow))
        return page([schedule_view(row) for row in rows], size)

    @router.get("/v1/schedules/{schedule}", summary="A schedule by id or name, with its next times")
    async def show(schedule: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        row = await services.database.read(lambda tx: find_schedule(tx, schedule))
        return schedule_view(row, upcoming_from=now_us())


def _writing_routes(router: APIRouter, services: Services) -> None:
    @router.post("/v1/schedules", status_code=201, summary="Run a stored workflow by the clock")
    async def create(request: Request, asked: ScheduleRequest) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        definition, _ = await definition_of(services, asked.workflow)
        spec, names = asked.spec(), (asked.name or asked.workflow, asked.workflow)
        key_id: str | None = getattr(request.state, "key_id", None)

        def work(tx: Tx) -> tuple[Row, bool]:
            return create_schedule(tx, services.catalogue, names, spec, key_id=key_id, now=now_us())

        row, created = await services.database.write(work)
        warnings = [mistake.message for mistake in await unknown_names(services, definition)]
        view = schedule_view(row, upcoming_from=now_us()) | {"warnings": warnings}
        where = {"location": f"/v1/schedules/{row['id']}"}
        return JsonAnswer(view, status_code=201 if created else 200, headers=where)

    @router.post("/v1/schedules/{schedule}/pause", summary="Start no runs until it is resumed; its definition's too")
    async def pause(schedule: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        return await _set_paused(services, schedule, paused=True)

    @router.post(
        "/v1/schedules/{schedule}/resume", summary="Go on with its next time; what was left out is not made up"
    )
    async def resume(schedule: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        return await _set_paused(services, schedule, paused=False)

    @router.delete("/v1/schedules/{schedule}", summary="Forget a schedule, by its id or name; its runs go on")
    async def delete(schedule: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        return schedule_view(await services.database.write(lambda tx: remove_schedule(tx, schedule)))


async def _set_paused(services: Services, schedule: str, *, paused: bool) -> dict[str, Any]:
    row = await services.database.write(lambda tx: pause_schedule(tx, schedule, paused=paused, now=now_us()))
    return schedule_view(row, upcoming_from=now_us())
