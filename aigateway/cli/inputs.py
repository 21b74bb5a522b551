"""Reads `-i` options: `key=text`, `key=@file` (the file's text), `key:=json` (a typed value), `key:=@file` (its JSON)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer


def parse_inputs(given: Sequence[str]) -> dict[str, Any]:
    """The run's input. Raises: BadParameter."""
    values: dict[str, Any] = {}
    for entry in given:
        key, equals, value = entry.partition("=")
        if not equals or not key.rstrip(":"):
            raise typer.BadParameter(f"{entry!r} is not key=value", param_hint="-i")
        typed = key.endswith(":")
        key = key.removesuffix(":")
        if key in values:
            raise typer.BadParameter(f"{key} is given twice", param_hint="-i")
        text = _file(key, value[1:]) if value.startswith("@") else value
        values[key] = _json(key, text) if typed else text
    return values


def _file(key: str, name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{key}: {name}: {error.strerror}", param_hint="-i") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{key}: {name} is not UTF-8 text", param_hint="-i") from None


def _json(key: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"{key}: not JSON: {error.msg} (use = for plain text)", param_hint="-i") from None
