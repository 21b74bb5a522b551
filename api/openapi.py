"""Describes the plain ASGI routes in the OpenAPI document, where FastAPI cannot see them."""

from typing import Any

from fastapi import FastAPI

_CHAT: dict[str, Any] = {
    "tags": ["chat"],
    "summary": "OpenAI's chat completions, over any provider",
    "description": "Streaming, tools, JSON schema, images; parameters that are not known here are passed on.",
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["model", "messages"],
                    "properties": {
                        "model": {"type": "string"},
                        "messages": {"type": "array", "items": {"type": "object"}},
                        "stream": {"type": "boolean"},
                    },
                    "additionalProperties": True,
                },
                "example": {
                    "model": "simulated/echo",
                    "messages": [{"role": "user", "content": "Hello"}],
                },
            }
        },
    },
    "responses": {
        "200": {"description": "OpenAI's chat.completion plus `aigateway`, or its chunks as events"},
        "4XX": {"description": "The one error shape"},
        "5XX": {"description": "The one error shape"},
    },
}


def describe_hot_routes(app: FastAPI) -> None:
    """Add them to what `/openapi.json` answers."""
    made_by_fastapi = app.openapi

    def openapi() -> dict[str, Any]:
        document = made_by_fastapi()
        document["paths"].setdefault("/v1/chat/completions", {})["post"] = _CHAT
        return document

    app.openapi = openapi  # pyright: ignore[reportAttributeAccessIssue] - FastAPI's documented way to extend it
