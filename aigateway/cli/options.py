"""What several commands share: options, the way to the server, values as JSON."""

import json
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
