"""Reads `-i` options: `key=text`, `key=@file` (the file's text), `key:=json` (a typed value), `key:=@file` (its JSON).

What was given as text takes the type that the workflow declares for that input: `n=5` is a number where `n` is one.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import typer

_INTEGER = re.compile(r"[+-]?\d{1,1000}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Inputs:
    """What `-i` gave; `texts` names the values that were given as text."""

    values: Mapping[str, Any]
    texts: frozenset[str]


def parse_inputs(given: Sequence[str], option: str = "-i") -> Inputs:
    """What that option gave, as it stands. Raises: BadParameter."""
    values: dict[str, Any] = {}
    texts: set[str] = set()
    for entry in given:
        key, equals, value = entry.partition("=")
        if not equals or not key.rstrip(":"):
            raise typer.BadParameter(f"{entry!r} is not key=value", param_hint=option)
        typed = key.endswith(":")
        key = key.removesuffix(":")
        if key in values:
            raise typer.BadParameter(f"{key} is given twice", param_hint=option)
        text = _file(key, value[1:], option) if value.startswith("@") else value
        values[key] = _json(key, text, option) if typed else text
        if not typed:
            texts.add(key)
    return Inputs(values, frozenset(texts))


def parse_tags(given: Sequence[str]) -> dict[str, str]:
    """What `--tag` gave. Raises: BadParameter."""
    found: dict[str, str] = {}
    for entry in given:
        key, colon, value = entry.partition(":")
        if not colon or not key:
            raise typer.BadParameter(f"{entry!r} is not key:value", param_hint="--tag")
        found[key] = value
    return found


def typed_inputs(inputs: Inputs, declared: Mapping[str, Any] | None) -> dict[str, Any]:
    """The run's input: texts in the types of the JSON Schemas that the workflow declares.

    Where a schema names no type itself (`anyOf`, `enum`, `$ref`), what it takes as text stays text, and else becomes the first
    reading that it takes. Raises: BadParameter for a text that cannot be read as any of its types.
    """
    values = dict(inputs.values)
    for name in inputs.texts:
        schema = (declared or {}).get(name)
        types = _types(schema)
        if types and "string" not in types:
            values[name] = _read_as(name, values[name], types)
        elif not types and isinstance(schema, Mapping) and schema:
            values[name] = _read_by(cast("Mapping[str, Any]", schema), values[name])
    return values


def _read_by(schema: Mapping[str, Any], text: str) -> Any:
    """The first reading that fits; the text itself where none does: the server says what is wrong with it."""
    from engine.json_schemas import schema_mistake, violations  # noqa: PLC0415  # takes 100 ms to import

    if schema_mistake(schema) is None and violations(schema, text):
        for read in _READERS.values():
            with suppress(ValueError, RecursionError):
                value = read(text.strip())
                if not violations(schema, value):
                    return value
    return text


def _types(schema: object) -> list[str]:
    told: object = cast("Mapping[str, Any]", schema).get("type") if isinstance(schema, Mapping) else None
    return [told] if isinstance(told, str) else cast("list[str]", told) if isinstance(told, list) else []


def _read_as(name: str, text: str, types: Sequence[str]) -> Any:
    for kind, read in _READERS.items():
        if kind in types:
            try:
                return read(text.strip())
            except (ValueError, RecursionError):
                continue
    wanted = " or ".join(_WORDS.get(kind, kind) for kind in types)
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    raise typer.BadParameter(f"{name} has to be {wanted}, not {shown!r}", param_hint="-i")


def _null(text: str) -> None:
    if text != "null":
        raise ValueError(text)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float | int:
    if _INTEGER.fullmatch(text):
        return int(text)
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _of_type(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        value = json.loads(text)
        if not isinstance(value, kind):
            raise ValueError(text)
        return value

    return read


_READERS: Mapping[str, Callable[[str], Any]] = {
    "null": _null,
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "array": _of_type(list),
    "object": _of_type(dict),
}
_WORDS = {
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "array": "an array in JSON",
    "object": "an object in JSON",
}


def _file(key: str, name: str, option: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{key}: {name}: {error.strerror}", param_hint=option) from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{key}: {name} is not UTF-8 text", param_hint=option) from None


def _json(key: str, text: str, option: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"{key}: not JSON: {error.msg} (use = for plain text)", param_hint=option) from None
