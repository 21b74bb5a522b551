"""What a client sends to start a run, checked, and turned into the engine's submission. Shared by the three routes that start runs."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Discriminator, Field, Tag

from api.definition_names import missing_names, unknown_model
from api.dry_run import dry_run
from api.json_mistakes import Shallow
from api.params import FORM
from api.plain_text import PlainText, check_plain
from api.services import Services
from engine.addresses import check_address
from engine.calls import StoredLibrary, call_mistakes, calling_steps
from engine.catalogue import is_newest
from engine.clock import microseconds, now_us
from engine.definition import Definition
from engine.errors import Mistake, NotFound, UserError
from engine.loader import load_data
from engine.located import located
from engine.money import to_picousd
from engine.states import Priority
from engine.store.database import Row, Tx
from engine.store.definitions import newest_version
from engine.submission import Submission, Submitted, submit, submitted_before
from engine.transition import Ring
from engine.workflows import find, read_folder, take_up

MAX_TAGS = 20
MAX_TAG_KEY = 100
MAX_TAG_VALUE = 255
_CODES = {
    ".model": "model_not_found",
    ".server": "mcp_server_not_found",
    ".tool": "tool_not_found",
    ".workflow": "workflow_not_found",
}


class RunRequest(BaseModel):
    """Body of `POST /v1/workflows/{name}/runs`."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"input": {"topic": "the history of tea"}}]}
    )

    input: Shallow[Any] = Field(
        default_factory=dict, description="The run's input, checked against the workflow's `inputs`."
    )
    webhook_url: PlainText | None = Field(
        default=None, description="Told of the run's end, signed as Standard Webhooks say."
    )
    budget_usd: Annotated[Decimal, Field(ge=0, le=1_000_000)] | None = Field(
        default=None, description="Replaces the workflow's budget_usd."
    )
    priority: Literal["low", "normal", "high"] = "normal"
    tags: dict[
        Annotated[PlainText, Field(max_length=MAX_TAG_KEY)], Annotated[PlainText, Field(max_length=MAX_TAG_VALUE)]
    ] = Field(default_factory=dict[str, str], max_length=MAX_TAGS)
    start_at: AwareDatetime | None = Field(default=None, description="No step starts before this time.")


def _form(workflow: object) -> str:
    """What a workflow is meant to be: a mistake is told of that alone, and by the field's own name."""
    return FORM + ("definition" if isinstance(workflow, dict) else "name")


_Name = Annotated[str, Tag(FORM + "name")]
_Inline = Annotated[dict[str, Any], Tag(FORM + "definition")]


class AnyRunRequest(RunRequest):
    """Body of `POST /v1/runs`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"workflow": "research-assistant", "input": {"topic": "the history of tea"}}]}
    )

    workflow: Annotated[_Name | _Inline, Discriminator(_form)] = Field(
        description="A stored workflow's name, or a whole definition."
    )


@dataclass(frozen=True, slots=True)
class Caller:
    """Who submits."""

    request_id: str
    key_id: str | None
    idempotency_key: str | None
    trace_context: str | None


async def start_run(services: Services, workflow: str | dict[str, Any], asked: RunRequest, caller: Caller) -> Submitted:
    """Check, store, ring. Raises: UserError and its kind; nothing is stored then.

    Where this process knows the newest version of a stored workflow, the transaction that stores the run sees whether it still is.
    """
    done: Submitted | None = None
    kept = await _version_of_earlier(services, workflow, caller)
    known = services.catalogue.newest(workflow) if isinstance(workflow, str) else None
    if kept is not None:
        done = await _store(services, kept, asked, caller)
    elif known is not None:
        with suppress(UserError):  # it is said below, if the newest version says it too
            await check_names(services, known[0])
            done = await _store(services, known, asked, caller, if_newest=True)
    if done is None:
        found = await definition_of(services, workflow)
        await check_names(services, found[0])
        done = await _store(services, found, asked, caller)
    assert done is not None
    ring_all(services, done.rings)
    return done


async def _store(
    services: Services,
    workflow: tuple[Definition, Row | None],
    asked: RunRequest,
    caller: Caller,
    *,
    if_newest: bool = False,
) -> Submitted | None:
    """With `if_newest` None, and nothing stored, where the version is no more the newest of its name. Raises: as `start_run`."""
    definition, version = workflow
    submission = _submission(services, definition, version, asked, caller)

    def write(tx: Tx) -> Submitted | None:
        if if_newest and version is not None and not is_newest(tx, version):
            return None
        return submit(tx, services.catalogue, submission, now_us())

    database = services.database
    return await (database.add(write) if submission.is_plain() else database.write(write))


def _submission(
    services: Services, definition: Definition, version: Row | None, asked: RunRequest, caller: Caller
) -> Submission:
    if asked.webhook_url is not None:
        check_address(asked.webhook_url, allow_private_networks=services.allow_private_networks, param="webhook_url")
    if caller.idempotency_key is not None and not 0 < len(caller.idempotency_key) <= 255:
        raise UserError("invalid_parameter", "Idempotency-Key must have 1 to 255 characters", param="Idempotency-Key")
    return Submission(
        definition=definition,
        version=version,
        input=asked.input,
        webhook_url=asked.webhook_url,
        budget_picousd=None if asked.budget_usd is None else to_picousd(asked.budget_usd),
        priority=Priority(asked.priority),
        tags=asked.tags,
        idempotency_key=caller.idempotency_key,
        key_id=caller.key_id,
        request_id=caller.request_id,
        start_us=_start_us(asked.start_at),
        trace_context=caller.trace_context,
    )


async def _version_of_earlier(
    services: Services, workflow: str | dict[str, Any], caller: Caller
) -> tuple[Definition, Row] | None:
    """What the run of the same key was started with: asked for again it is that run, whatever has become of its workflow since."""
    key = caller.idempotency_key
    if key is None or not isinstance(workflow, str):
        return None

    def read(tx: Tx) -> tuple[Definition, Row] | None:
        run = submitted_before(tx, key, caller.key_id)
        if run is None or run["workflow_name"] != workflow or run["version"] is None:
            return None
        definition = services.catalogue.loaded(tx, run["version_id"]).definition
        return definition, {"id": run["version_id"], "version": run["version"]}

    return await services.database.read(read)


def _start_us(at: datetime | None) -> int | None:
    try:
        return None if at is None else microseconds(at)
    except ValueError as error:
        raise UserError("invalid_parameter", f"start_at: {error}", param="start_at") from error


async def preview_run(services: Services, workflow: str | dict[str, Any], asked: RunRequest) -> dict[str, Any]:
    """A dry run: checked as a run is, and nothing stored. Raises: UserError and its kind."""
    definition, _ = await definition_of(services, workflow)
    await check_names(services, definition)
    budget = None if asked.budget_usd is None else to_picousd(asked.budget_usd)
    return await dry_run(services, definition, asked.input, budget)


def ring_all(services: Services, rings: Iterable[Ring]) -> None:
    """Tell workers what has become ready; behind the commit."""
    for ring in rings:
        services.doorbell.ring(ring.step_id, ring.priority)


async def definition_of(services: Services, workflow: str | dict[str, Any]) -> tuple[Definition, Row | None]:
    """What is to run, with the row of its version where it is a stored one. Raises: UserError."""
    if not isinstance(workflow, str):
        name = workflow.get("name")
        told = name if isinstance(name, str) else "inline"
        return await asyncio.to_thread(load_data, workflow, name=told), None

    check_plain({"workflow": workflow})

    def read(tx: Tx) -> tuple[Definition, Row]:
        version = newest_version(tx, workflow) or find(tx, workflow)  # which says what names there are
        definition = services.catalogue.loaded(tx, version["id"]).definition
        services.catalogue.note_newest(version)
        return definition, version

    try:
        return await services.database.read(read)
    except NotFound:
        if not await take_up_new_files(services, workflow):
            raise
        return await services.database.read(read)


async def take_up_new_files(services: Services, name: str) -> bool:
    """A file that was put into the workflows folder after the start is found when it is first asked for."""
    definitions, errors = read_folder(services.workflows_dir)
    for file_name, error in errors.items():
        if file_name.rpartition(".")[0] == name:
            raise error
    found = [definition for definition in definitions.values() if definition.name == name]
    for definition in found:
        await services.database.write(lambda tx, new=definition: take_up(tx, new, "file", now_us()))
    return bool(found)


async def check_names(services: Services, definition: Definition) -> None:
    """Refuse models and MCP servers that the configuration lacks. Raises: UserError with every mistake."""
    mistakes = await unknown_names(services, definition)
    if mistakes:
        first = mistakes[0]
        code = next((code for end, code in _CODES.items() if (first.path or "").endswith(end)), "invalid_workflow")
        code = "invalid_params" if ".params." in (first.path or "") else code
        raise UserError(code, first.message, param=first.path, details=mistakes)


async def check_models(services: Services, models: Mapping[str, str]) -> None:
    """Refuse models, by step, that nothing serves. Raises: UserError."""
    for step, model in models.items():
        message = await unknown_model(services.router, model)
        if message:
            raise UserError("model_not_found", message, param=f"models.{step}")


async def unknown_names(
    services: Services, definition: Definition, *, being_stored: Sequence[Definition] = ()
) -> list[Mistake]:
    """One mistake, with its place, for each name that leads nowhere and each value that what is named does not take.

    `being_stored` are there already, as far as this goes: itself, and what is stored together with it. Names made by expressions are not known yet, nor the tools of servers that nobody has needed so far.
    """
    calls = await _call_mistakes(services, definition, being_stored)
    found = [*calls, *await missing_names(services.router, services.bridge, definition)]
    return await asyncio.to_thread(located, definition, found) if found else []  # which reads the text once more


async def _call_mistakes(
    services: Services, definition: Definition, being_stored: Sequence[Definition]
) -> list[Mistake]:
    """Of the workflows that it calls; a file in the workflows folder that nobody has taken up yet is."""
    instead = {each.name: each for each in being_stored}

    def look(tx: Tx) -> list[Mistake]:
        return call_mistakes(StoredLibrary(tx, services.catalogue, instead), definition)

    steps = calling_steps(definition)
    if not steps:
        return []
    mistakes = await services.database.read(look)
    missing = {mistake.path for mistake in mistakes}
    names = [step.fields["workflow"] for step in steps if f"steps.{step.path}.workflow" in missing]
    taken_up = [] if being_stored else [await take_up_new_files(services, name) for name in names]
    return await services.database.read(look) if any(taken_up) else mistakes
