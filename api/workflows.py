"""Definitions over HTTP: store, read, validate. Every change is a new version."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from operator import itemgetter
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from api.asgi import MAX_BODY_BYTES, JsonAnswer, too_large
from api.auth import check_author
from api.definition_names import asks_tools, unasked_tools
from api.mcp import look_for_a_moment
from api.params import check_cursor, check_limit, part
from api.services import Services
from api.submissions import take_up_new_files, unknown_names
from engine.clock import now_us
from engine.definition import Definition
from engine.errors import NotFound, UserError
from engine.loader import load
from engine.located import located
from engine.schema import language_schema
from engine.store.database import Row, Tx
from engine.store.definitions import list_versions, page_of_workflows
from engine.views import workflow_view
from engine.workflow_graph import workflow_graph
from engine.workflows import find, put, remove

_MOST_BESIDE = 200
_ECHO = {"id": "ask", "type": "llm", "model": "simulated/echo", "prompt": "Hello ${input.name}"}
_YAML = "name: hello\nsteps:\n  - {id: ask, type: llm, model: simulated/echo, prompt: 'Hello ${input.name}'}\n"
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {"schema": {"type": "string"}, "example": _YAML},
            "application/json": {"schema": {"type": "object"}, "example": {"name": "hello", "steps": [_ECHO]}},
        },
    }
}
_TOGETHER = {"definition": _YAML, "beside": ["name: other\nsteps: [{id: a, type: set, value: 1}]\n"]}
_ALSO_TOGETHER: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The definition; or, as JSON, its text as `definition` and in `beside` the texts of those that would be "
        "stored together with it, which it may call.",
        "content": {
            "application/yaml": {"schema": {"type": "string"}, "example": _YAML},
            "application/json": {"schema": {"type": "object"}, "example": _TOGETHER},
        },
    }
}
_STORED: dict[int | str, dict[str, Any]] = {200: {"description": "Changed, or the same"}, 201: {"description": "New"}}


class _Together(BaseModel):
    """A definition's text, and the texts of those that would be stored together with it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    definition: str
    beside: list[str] = Field(default_factory=list[str], max_length=_MOST_BESIDE)


def routes(services: Services) -> APIRouter:
    """All routes of definitions."""
    router = APIRouter(tags=["workflows"])
    _reading_routes(router, services)
    _writing_routes(router, services)
    return router


def _reading_routes(router: APIRouter, services: Services) -> None:
    @router.get("/v1/workflows", summary="Definitions, newest first")
    async def list_all(limit: int = 50, cursor: str | None = None) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        size, before = check_limit(limit), check_cursor(cursor)
        rows = await services.database.read(lambda tx: page_of_workflows(tx, before, size + 1))
        views = [workflow_view(row, text=False) for row in rows[:size]]
        return {"object": "list", "data": views, "next_cursor": rows[size - 1]["id"] if len(rows) > size else None}

    @router.get("/v1/workflows/schema.json", summary="JSON Schema of the workflow language, for editors")
    async def schema() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        return language_schema()

    @router.get("/v1/workflows/{name}", summary="A definition with its newest text")
    async def show(name: str, request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        row = await _row(services, name)
        if "yaml" in request.headers.get("accept", ""):
            return Response(row["config_yaml"], media_type="application/yaml")
        return JsonAnswer(workflow_view(row))

    @router.get("/v1/workflows/{name}/graph", summary="A definition as nodes and edges, and as Mermaid text")
    async def graph(name: str) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        def read(tx: Tx) -> dict[str, Any]:
            version = find(tx, name)
            definition = services.catalogue.graph(tx, version["id"]).definition
            return {"version": version["version"], **workflow_graph(definition)}

        return await services.database.read(read)

    @router.get("/v1/workflows/{name}/versions", summary="All versions of a definition, newest first")
    async def versions(  # pyright: ignore[reportUnusedFunction]
        name: str, limit: int = 50, cursor: str | None = None
    ) -> dict[str, Any]:
        rows = await services.database.read(lambda tx: list_versions(tx, name))
        if not rows:
            raise NotFound("workflow_not_found", f"there is no workflow {name!r}", param="name")
        return part([workflow_view(row) for row in rows], limit, cursor, name=itemgetter("version"))


async def _row(services: Services, name: str) -> Row:
    """The newest version; a new file of the workflows folder is found when it is first asked for. Raises: NotFound, UserError."""
    try:
        return await services.database.read(lambda tx: find(tx, name))
    except NotFound:
        if not await take_up_new_files(services, name):
            raise
        return await services.database.read(lambda tx: find(tx, name))


def _writing_routes(router: APIRouter, services: Services) -> None:
    @router.put("/v1/workflows/{name}", summary="Store a definition", openapi_extra=_BODY, responses=_STORED)
    async def store(name: str, request: Request) -> JsonAnswer:  # pyright: ignore[reportUnusedFunction]
        check_author(request.state.key)
        definition = await _checked(request, name)
        if definition.name != name:
            message = f"the definition is named {definition.name!r}, the path says {name!r}"
            raise UserError("invalid_workflow", message, param="name")
        key_id: str | None = getattr(request.state, "key_id", None)
        stored = await services.database.write(lambda tx: put(tx, definition, "api", now_us(), key_id=key_id))
        view = workflow_view(stored.row) | {"warnings": await _warnings(services, definition)}
        return JsonAnswer(view, status_code=201 if stored.created else 200)

    @router.delete("/v1/workflows/{name}", status_code=204, summary="Forget a definition; its runs go on")
    async def forget(name: str, request: Request) -> None:  # pyright: ignore[reportUnusedFunction]
        check_author(request.state.key)
        await services.database.write(lambda tx: remove(tx, name))

    @router.post(
        "/v1/workflows/validate", summary="Check a definition without storing it", openapi_extra=_ALSO_TOGETHER
    )
    async def validate(request: Request) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        definition, others = await _checked_together(request)
        warnings = await _warnings(services, definition, others)
        unasked = await asyncio.to_thread(located, definition, await unasked_tools(services.bridge, definition))
        return {
            "valid": True,
            "name": definition.name,
            "warnings": [*warnings, *(asdict(mistake) for mistake in unasked)],
        }


async def _checked(request: Request, name: str | None) -> Definition:
    """Off the event loop: a hostile text takes seconds to refuse. Raises: UserError with every mistake."""
    text = await _text(request)
    return await asyncio.to_thread(load, text, name=name)


async def _checked_together(request: Request) -> tuple[Definition, list[Definition]]:
    """A definition, and those that would be stored together with it. Raises: UserError with every mistake of the first."""
    text = await _text(request)
    together = _together(request, text)
    if together is None:
        return await asyncio.to_thread(load, text), []
    definition = await asyncio.to_thread(load, together.definition)
    others: list[Definition] = []
    for beside in together.beside:
        with suppress(UserError):  # its mistakes are told where it is checked itself
            others.append(await asyncio.to_thread(load, beside))
    return definition, others


def _together(request: Request, text: str) -> _Together | None:
    """None where the body is the definition itself. Raises: UserError."""
    if "json" not in request.headers.get("content-type", "") or '"definition"' not in text:
        return None
    try:
        told: Any = json.loads(text)
        return _Together.model_validate(told) if isinstance(told, dict) and "definition" in told else None
    except (ValueError, RecursionError) as error:
        if isinstance(error, ValidationError):
            found = error.errors()[0]
            path = ".".join(map(str, found["loc"]))
            raise UserError("invalid_request", f"{path}: {found['msg']}", param=path) from error
        return None  # the language says what is wrong with the text


async def _text(request: Request) -> str:
    """The body as text; JSON is YAML."""
    data = await request.body()
    if len(data) > MAX_BODY_BYTES:
        raise too_large(MAX_BODY_BYTES)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            "invalid_workflow", f"the body is no UTF-8 text: {error.reason} at byte {error.start}"
        ) from error


async def _warnings(
    services: Services, definition: Definition, others: Sequence[Definition] = ()
) -> list[dict[str, Any]]:
    """What the text itself is warned of, and names that lead nowhere; a server that nobody has needed yet is asked for its tools."""
    if asks_tools(definition):
        await look_for_a_moment(services)
    found = [*definition.warnings, *await unknown_names(services, definition, being_stored=[*others, definition])]
    return [asdict(mistake) for mistake in found]
