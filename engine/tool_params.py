"""Checks what a step gives to a tool, or to another workflow, against what that takes, as far as that can be said before expressions are evaluated."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from engine.json_schemas import JSON_TYPES, schema_mistake, violations
from engine.nearest import nearest
from engine.templates import parse_template


def wrong_params(params: Mapping[str, Any], schema: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names with messages: parameters that the tool does not take, that it needs and that are missing, or of the wrong type.

    A value that is one whole ${…} can be anything; a text with ${…} in it is text. A schema that is none checks nothing.
    """
    if schema_mistake(schema) is not None:
        return []
    declared, required = schema.get("properties"), schema.get("required")
    known: Mapping[str, Any] = cast(Mapping[str, Any], declared) if isinstance(declared, Mapping) else {}
    needed = cast(list[Any], required) if isinstance(required, list) else []
    closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
    return [
        *((name, "the tool needs it") for name in needed if isinstance(name, str) and name not in params),
        *(_unknown(params, known, "the tool has no such parameter") if closed else ()),
        *_half_texts(params, known),
        *_mistyped(params, schema),
    ]


def wrong_inputs(given: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The same of what a step gives to another workflow, whose declared inputs these are."""
    missing = [name for name, schema in inputs.items() if name not in given and "default" not in schema]
    return [
        *((name, "the workflow needs it") for name in missing),
        *_unknown(given, inputs, "the workflow has no such input"),
        *_half_texts(given, inputs),
        *(
            (name + where, message)
            for name, value in given.items()
            if name in inputs and not _has_expression(value)
            for where, message in violations(inputs[name], value)
        ),
    ]


def _unknown(params: Mapping[str, Any], known: Mapping[str, Any], message: str) -> Iterator[tuple[str, str]]:
    for name in params:
        if name not in known:
            meant = nearest(name, known)
            yield name, f"{message}{f', did you mean {meant}?' if meant else ''}"


def _half_texts(params: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Texts with an expression inside for what is no text."""
    for name, value in params.items():
        wanted = known.get(name)
        if not isinstance(value, str) or "${" not in value or not isinstance(wanted, Mapping):
            continue
        schema = cast(Mapping[str, Any], wanted)
        if not parse_template(value).whole and not _takes_text(schema):
            yield name, f"has to be {_types(schema)}, and a text with an expression in it is text"


def _mistyped(params: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Checked against the whole schema, whose parts may refer to each other; what it says of the whole object is left out."""
    fixed = {name: value for name, value in params.items() if not _has_expression(value)}
    found = violations(schema, fixed, partial=len(fixed) < len(params))
    yield from ((where.removeprefix("."), message) for where, message in found if where)


def _takes_text(schema: Mapping[str, Any]) -> bool:
    kinds: Any = schema.get("type")
    return kinds is None or kinds == "string" or (isinstance(kinds, list) and "string" in kinds)


def _types(schema: Mapping[str, Any]) -> str:
    kinds: Any = schema.get("type")
    named: list[Any] = [kinds] if isinstance(kinds, str) else kinds
    return " or ".join(kind for kind in named if kind in JSON_TYPES)


def _has_expression(value: Any) -> bool:
    if isinstance(value, str):
        return "${" in value
    if isinstance(value, Mapping):
        return any(_has_expression(item) for item in cast(Mapping[str, Any], value).values())
    return isinstance(value, list) and any(_has_expression(item) for item in cast(list[Any], value))
