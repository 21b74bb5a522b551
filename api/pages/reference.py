"""`/docs`: the API's reference, drawn from the OpenAPI document. FastAPI's own page would fetch its program from another host."""

import json
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

from api.pages.rendering import page


def add_reference(app: FastAPI) -> None:
    """Serve `/docs`."""

    @app.get("/docs", include_in_schema=False)
    async def reference() -> Response:  # pyright: ignore[reportUnusedFunction]
        return await page("reference.html", {"here": "reference", "groups": groups(app.openapi())})


def groups(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The operations by tag, in the order of the document."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["other"])[0]
            found.setdefault(tag, []).append(_operation(document, path, method, operation))
    return [{"name": tag, "operations": operations} for tag, operations in found.items()]


def _operation(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    body = operation.get("requestBody", {}).get("content", {})
    return {
        "method": method.upper(),
        "path": path,
        "summary": operation.get("summary", ""),
        "description": operation.get("description", ""),
        "parameters": [_parameter(told) for told in operation.get("parameters", [])],
        "example": _example(document, body.get("application/json", {})),
    }


def _parameter(told: dict[str, Any]) -> dict[str, Any]:
    return {"name": told["name"], "where": told["in"], "description": told.get("description", "")}


def _example(document: dict[str, Any], content: dict[str, Any]) -> str | None:
    """The body's example, its own or its schema's."""
    schema = content.get("schema", {})
    candidates = [schema, *schema.get("anyOf", [])]
    for candidate in candidates:
        name = str(candidate.get("$ref", "")).rpartition("/")[2]
        resolved = document.get("components", {}).get("schemas", {}).get(name, candidate)
        example = content.get("example") or (resolved.get("examples") or [None])[0]
        if example is not None:
            return json.dumps(example, indent=2, ensure_ascii=False)
    return None
