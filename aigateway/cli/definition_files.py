"""Reads workflow definitions from files for the command line and checks them as the server would."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from engine.definition import Definition
from engine.errors import AIGatewayError, Mistake, UserError
from engine.loader import load
from engine.located import located
from engine.mistakes import describe

_ENDINGS = (".yaml", ".yml", ".json")


def is_file(name: str) -> bool:
    """Whether an argument means a file rather than a stored workflow's name."""
    return name.endswith(_ENDINGS) or "/" in name


@dataclass(slots=True)
class Checked:
    """A file and what was found in it: a definition, or mistakes."""

    file: Path
    text: str
    definition: Definition | None
    mistakes: list[Mistake]
    warnings: list[Mistake]

    def warn(self, found: Iterable[Mistake]) -> None:
        """Adds warnings, in the order of the text, none twice."""
        ordered = sorted([*self.warnings, *found], key=lambda mistake: (mistake.line or 0, mistake.column or 0))
        self.warnings = list(dict.fromkeys(ordered))

    def show(self) -> None:
        """Mistakes and warnings on stderr, each with its source line and a caret."""
        for found, label in ((self.mistakes, ""), (self.warnings, "warning: ")):
            if found:
                typer.echo(describe(found, self.text, str(self.file), label=label), err=True)


def check(file: Path) -> Checked:
    """The file with all that its text alone tells. Raises: BadParameter where it cannot be read."""
    data = _read(file)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        place = (before.count("\n") + 1, len(before) - before.rfind("\n"))
        return Checked(file, data.decode(errors="replace"), None, [Mistake("not UTF-8 text", None, *place)], [])
    try:
        definition = load(text, origin=str(file))
    except UserError as error:
        return Checked(file, text, None, list(error.details) or [Mistake(error.message)], [])
    return Checked(file, text, definition, [], list(definition.warnings))


def read_definition(file: Path) -> Definition:
    """The checked definition. Raises: BadParameter where the file cannot be read, Exit(1) after showing its mistakes."""
    checked = check(file)
    if checked.definition is None:
        checked.show()
        raise typer.Exit(1)
    return checked.definition


@contextmanager
def told_in(file: Path, definition: Definition) -> Generator[None]:
    """A refusal by the server names places in the file. Raises: Exit(1) after showing them; else what the server said."""
    try:
        yield
    except AIGatewayError as error:
        found = located(definition, error.details)
        if not any(mistake.line for mistake in found):
            raise
        Checked(file, definition.source, None, found, []).show()
        raise typer.Exit(1) from None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="FILE") from None
