"""Options that several commands share, and how the commands print."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from aigateway.client import Client

# Imports inside functions: the HTTP client, pydantic and rich cost more than a command's --help may take.
# ruff: noqa: PLC0415

ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="The configuration; else AIGATEWAY_CONFIG or ./aigateway.yaml."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def connect(config: str | None) -> "Client":
    """A client of the server that AIGATEWAY_URL or the settings name."""
    from aigateway.client import Client
    from aigateway.settings import server_address

    return Client(server_address(config))


def print_json(value: Any) -> None:
    """A value as indented JSON on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows under their headings: fitted to a terminal, whole and tab-separated where the output goes elsewhere."""
    from aigateway.timeline import printable

    lines = [[printable("" if cell is None else cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for line in lines:
            typer.echo("\t".join(line))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    Console().print(table)
