"""What FastAPI cannot see for the OpenAPI document: the plain ASGI routes, and the one shape that every refusal has."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

_HELLO = [{"role": "user", "content": "Hello"}]
_LIST: dict[str, Any] = {"type": "array", "items": {"type": "object"}}
_TEXT_OR_LIST: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {}}]}
_STREAM = {"stream": {"type": "boolean"}}
_ONE_SHAPE = "The one error shape"
_ANTHROPICS_SHAPE = "Anthropic's error shape: `type`, `error`, `request_id`"


_IDEMPOTENCY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key and body give the same answer again for a day, without another upstream call.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_CACHE: dict[str, Any] = {
    "name": "x-aigateway-cache",
    "in": "header",
    "description": "A duration such as 10m: use an earlier answer to the same request, or keep this one. refresh: ask anew. "
    "no-store: neither.",
    "schema": {"type": "string"},
}
_HOLD_BACK: dict[str, Any] = {
    "name": "x-aigateway-hold-back",
    "in": "header",
    "description": "A duration such as 2s, at most 1h: keep the beginning of a stream for that long, so that one which breaks meanwhile "
    "is asked for anew. 0: show it as it comes.",
    "schema": {"type": "string"},
}

_HEADERS: Mapping[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [_IDEMPOTENCY, _CACHE, _HOLD_BACK],
    "/v1/embeddings": [_IDEMPOTENCY],
    "/v1/messages": [_IDEMPOTENCY, _CACHE, _HOLD_BACK],
    "/v1/responses": [_IDEMPOTENCY, _CACHE, _HOLD_BACK],
}


def _operation(
    tag: str, summary: str, answer: str, *, properties: Mapping[str, Any], example: Mapping[str, Any], error: str
) -> dict[str, Any]:
    """A POST whose `properties` are those that must be there, and `stream` where there is one."""
    schema = {
        "type": "object",
        "required": [name for name in properties if name != "stream"],
        "properties": dict(properties),
        "additionalProperties": True,
    }
    return {
        "tags": [tag],
        "summary": summary,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": dict(example)}},
        },
        "responses": {
            "200": {"description": answer},
            "4XX": {"description": error},
            "5XX": {"description": error},
        },
    }


_HOT_ROUTES: Mapping[str, dict[str, Any]] = {
    "/v1/chat/completions": _operation(
        "chat",
        "OpenAI's chat completions, over any provider: streaming, tools, JSON schema, images; the rest is passed on",
        "OpenAI's chat.completion plus `aigateway`, or its chunks as events",
        properties={"model": {"type": "string"}, "messages": _LIST, **_STREAM},
        example={"model": "simulated/echo", "messages": _HELLO},
        error=_ONE_SHAPE,
    ),
    "/v1/embeddings": _operation(
        "embeddings",
        "OpenAI's embeddings, as floats or base64",
        "OpenAI's list of embeddings plus `aigateway`",
        properties={"model": {"type": "string"}, "input": _TEXT_OR_LIST},
        example={"model": "simulated/echo", "input": ["Hello", "world"]},
        error=_ONE_SHAPE,
    ),
    "/v1/messages": _operation(
        "messages",
        "Anthropic's messages, over any provider; as they are to a provider of type anthropic",
        "Anthropic's message plus `aigateway`, or its events",
        properties={"model": {"type": "string"}, "max_tokens": {"type": "integer"}, "messages": _LIST, **_STREAM},
        example={"model": "simulated/echo", "max_tokens": 256, "messages": _HELLO},
        error=_ANTHROPICS_SHAPE,
    ),
    "/v1/messages/count_tokens": _operation(
        "messages",
        "The size of a prompt: counted by an upstream that can, else estimated (`x-aigateway-token-source`)",
        '`{"input_tokens": 12}`',
        properties={"model": {"type": "string"}, "messages": _LIST},
        example={"model": "simulated/echo", "messages": _HELLO},
        error=_ANTHROPICS_SHAPE,
    ),
    "/v1/responses": _operation(
        "responses",
        "OpenAI's responses, over any provider; stateless, with function tools and custom ones",
        "OpenAI's response plus `aigateway`, or its events",
        properties={"model": {"type": "string"}, "input": _TEXT_OR_LIST, **_STREAM},
        example={"model": "simulated/echo", "input": "Hello"},
        error=_ONE_SHAPE,
    ),
    "/v1/responses/input_tokens": _operation(
        "responses",
        "The size of a prompt: counted by an upstream that can, else estimated (`x-aigateway-token-source`)",
        '`{"object": "response.input_tokens", "input_tokens": 12}`',
        properties={"model": {"type": "string"}, "input": _TEXT_OR_LIST},
        example={"model": "simulated/echo", "input": "Hello"},
        error=_ONE_SHAPE,
    ),
    "/mcp": _operation(
        "mcp",
        "This gateway as an MCP server (Streamable HTTP): every workflow is a tool; no session is kept",
        "A JSON-RPC response, as JSON or as events with progress before it",
        properties={"jsonrpc": {"const": "2.0"}, "method": {"type": "string"}},
        example={"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
        error="A JSON-RPC error; the one error shape where the gateway itself refuses",
    ),
}


_NULLABLE_TEXT: dict[str, Any] = {"type": ["string", "null"]}
_NULLABLE_NUMBER: dict[str, Any] = {"type": ["integer", "null"]}
_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": _NULLABLE_TEXT,
                "param": {**_NULLABLE_TEXT, "description": "The field that is wrong."},
                "details": {
                    "type": "array",
                    "description": "Every mistake, where there can be several.",
                    "items": {
                        "type": "object",
                        "properties": {
                            "message": {"type": "string"},
                            "path": _NULLABLE_TEXT,
                            "line": _NULLABLE_NUMBER,
                            "column": _NULLABLE_NUMBER,
                            "suggestion": _NULLABLE_TEXT,
                        },
                    },
                },
            },
        }
    },
    "examples": [
        {
            "error": {
                "message": "No model is called `fst`. Nearest: `fast`.",
                "type": "invalid_request_error",
                "code": "model_not_found",
                "param": "model",
            }
        }
    ],
}
_REFUSED: dict[str, Any] = {
    "description": _ONE_SHAPE,
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}


def complete_document(app: FastAPI) -> None:
    """Add all that to what `/openapi.json` answers."""
    made_by_fastapi = app.openapi

    def openapi() -> dict[str, Any]:
        document = made_by_fastapi()
        _describe_refusals(document)
        for path, operation in _HOT_ROUTES.items():
            headers = _HEADERS.get(path, [])
            document["paths"].setdefault(path, {})["post"] = {**operation, "parameters": headers}
        return document

    app.openapi = openapi  # pyright: ignore[reportAttributeAccessIssue] - FastAPI's documented way to extend it


def _describe_refusals(document: dict[str, Any]) -> None:
    """FastAPI tells of a 422 in a shape of its own, which is never answered here."""
    schemas: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Error"] = _ERROR
    for left_out in ("HTTPValidationError", "ValidationError"):
        schemas.pop(left_out, None)
    for path, methods in document["paths"].items():
        for operation in methods.values():
            operation["responses"].pop("422", None)
            if path.startswith("/v1/"):
                operation["responses"].setdefault("4XX", _REFUSED)
