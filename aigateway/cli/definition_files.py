"""Reads workflow definitions from files for the command line and checks them as the server would."""

from pathlib import Path

import typer

from engine.definition import Definition
from engine.errors import Mistake, UserError
from engine.loader import load
from engine.mistakes import describe

_ENDINGS = (".yaml", ".yml", ".json")


def is_file(name: str) -> bool:
    """Whether an argument means a file rather than a stored workflow's name."""
    return name.endswith(_ENDINGS) or "/" in name


def check(file: Path) -> tuple[str, list[Mistake]]:
    """The file's text and all mistakes in it. Raises: BadParameter where it cannot be read."""
    text = _text(file)
    try:
        load(text, origin=str(file))
    except UserError as error:
        return text, list(error.details) or [Mistake(error.message)]
    return text, []


def read_definition(file: Path) -> Definition:
    """The checked definition. Raises: BadParameter where the file cannot be read, Exit(1) after showing its mistakes."""
    text, mistakes = check(file)
    if mistakes:
        typer.echo(describe(mistakes, text, str(file)), err=True)
        raise typer.Exit(1)
    return load(text, origin=str(file))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="FILE") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{file} is not UTF-8 text", param_hint="FILE") from None
