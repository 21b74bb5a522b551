"""Fits a JSON Schema to what Anthropic's structured output takes: what it cannot enforce moves into the description.

The caller checks the answer against its own schema, so a bound that is only described here is still held there.
Source: Anthropic's structured outputs guide (supported keywords).
"""

from typing import Any

import orjson

from providers.provider import Json
from providers.shapes import as_list, as_object, as_text

_KEPT = frozenset({"type", "description", "title", "enum", "const", "default", "required", "$ref"})
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})
_NESTED = ("anyOf", "allOf")
_NAMED = ("properties", "$defs", "definitions")
_DESCRIBED_ELSEWHERE = frozenset(
    {"additionalProperties", "$schema", "$id", "items", "oneOf", "format", *_NESTED, *_NAMED}
)


def structured_schema(schema: Json) -> Json:
    """A schema of the same answers, as near as Anthropic can enforce."""
    fitted: Json = {key: value for key, value in schema.items() if key in _KEPT}
    for key in _NAMED:
        if key in schema:
            fitted[key] = {name: structured_schema(as_object(inner)) for name, inner in as_object(schema[key]).items()}
    for key in (*_NESTED, "oneOf"):
        if key in schema:
            fitted["anyOf" if key == "oneOf" else key] = [structured_schema(as_object(s)) for s in as_list(schema[key])]
    if isinstance(schema.get("items"), dict):
        fitted["items"] = structured_schema(as_object(schema["items"]))
    if schema.get("type") == "object" or "properties" in schema:
        fitted["additionalProperties"] = False
    rest: dict[str, Any] = {key: value for key, value in schema.items() if key not in _KEPT | _DESCRIBED_ELSEWHERE}
    if "format" in schema:
        (fitted if as_text(schema["format"]) in _FORMATS else rest)["format"] = schema["format"]
    if rest.get("minItems") in (0, 1):  # the only bounds that it enforces
        fitted["minItems"] = rest.pop("minItems")
    if rest:
        told = orjson.dumps(rest).decode()
        fitted["description"] = f"{fitted['description']} {told}" if fitted.get("description") else told
    return fitted
