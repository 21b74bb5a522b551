"""What is wrong with a body, a parameter or a header that FastAPI refused: named by its path, with the nearest name that is known."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from api.findings import words_of
from api.params import FORM
from engine.errors import Mistake, UserError
from engine.nearest import nearest

Json = Mapping[str, Any]

_NOTHING: Json = {}
_PLACES = ("body", "query", "header", "path")


def refusal_of(request: Request, error: RequestValidationError) -> UserError:
    """All findings as details; the first one is the message."""
    details = [_mistake(request, found) for found in error.errors()]
    first = details[0]
    message = f"{first.path}: {first.message}" if first.path else first.message
    return UserError("invalid_request", message, param=first.path, details=details)


def _mistake(request: Request, found: Any) -> Mistake:
    place, *path = found["loc"]
    path = [part for part in path if not str(part).startswith(FORM)]
    if place not in _PLACES:
        path = [place, *path]
    if place == "body" and not path:
        return Mistake(_whole_body(request, found))
    if place == "body" and found["type"] == "extra_forbidden":
        holder = reduce(_Schema.at, path[:-1], _body_of(request))
        return _unknown_field(_path(path), str(path[-1]), holder.fields())
    return Mistake(words_of(found), _path(path) or None)


def _whole_body(request: Request, found: Any) -> str:
    if found["type"] == "missing":
        needed = _body_of(request).form_with("required").get("required", [])
        return "a JSON body is required" + (f", with {_listed(needed)}" if needed else "")
    unread = ", sent as content-type: application/json" if isinstance(found["input"], bytes) else ""
    return f"the body has to be a JSON object{unread}" if found["type"] == "model_attributes_type" else words_of(found)


def _unknown_field(path: str, name: str, known: Iterable[str]) -> Mistake:
    near = nearest(name, known)
    if near:
        return Mistake(f"unknown field, did you mean `{near}`?", path, suggestion=near)
    return Mistake(f"unknown field; known here: {_listed(known)}", path)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _path(place: Sequence[Any]) -> str:
    path = ""
    for part in place:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


@dataclass(frozen=True, slots=True)
class _Schema:
    """A part of a body, as the OpenAPI document tells it."""

    told: Json
    named: Json

    def form_with(self, key: str) -> Json:
        """Of the forms that it may have, the first that has this key."""
        one = self._followed(self.told)
        forms = [one, *map(self._followed, one.get("anyOf", ())), *map(self._followed, one.get("oneOf", ()))]
        return next((form for form in forms if key in form), _NOTHING)

    def at(self, part: str | int) -> "_Schema":
        """What is below it, by a field's name or an entry's number."""
        if isinstance(part, int):
            return _Schema(self.form_with("items").get("items", {}), self.named)
        return _Schema(self.form_with("properties").get("properties", {}).get(part, {}), self.named)

    def fields(self) -> list[str]:
        """The names that it knows; none where any are taken."""
        return list(self.form_with("properties").get("properties", {}))

    def _followed(self, told: Json) -> Json:
        return self.named[str(told["$ref"]).rpartition("/")[2]] if "$ref" in told else told


def _body_of(request: Request) -> _Schema:
    """The document is made once a process."""
    route = request.scope.get("route")
    document: Json = request.app.openapi()
    path: Json = document["paths"].get(route.path_format, {}) if isinstance(route, APIRoute) else {}
    body: Json = path.get(request.method.lower(), {}).get("requestBody", {})
    schema: Json = body.get("content", {}).get("application/json", {}).get("schema", {})
    return _Schema(schema, document["components"]["schemas"])
