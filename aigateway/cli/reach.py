"""Finds the server that a command talks to, or starts one for as long as the command lasts."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aigateway.client import Client

# Imports inside functions: the HTTP client and pydantic cost more than a command's --help may take.
# ruff: noqa: PLC0415


@contextmanager
def looked(config: str | None) -> "Generator[Client]":
    """A client to read with: of the server that is there, else of one without workers over the settings' own database, if that exists."""
    from aigateway.client import Client
    from aigateway.settings import server_address

    address = server_address(config)
    with Client(address) as client:
        if address.given or client.is_up() or not _has_database(config):
            yield client  # whose first question tells that no server answers, where none does
            return
    with reached(config, embed=True, workers=0) as (client, _):
        yield client


def _has_database(config: str | None) -> bool:
    from aigateway.backup import sqlite_file
    from aigateway.settings import process_settings
    from engine.errors import UserError

    try:
        file = sqlite_file(process_settings(config).database_url)
    except UserError:  # a mistake in a configuration keeps nobody from asking a server
        return False
    return file is None or file.exists()


@contextmanager
def reached(config: str | None, *, embed: bool, workers: int | None = None) -> "Generator[tuple[Client, bool]]":
    """A client of the server that AIGATEWAY_URL or the settings name, and whether it is an embedded one.

    With `embed`, where no server answers and AIGATEWAY_URL names none, a server with workers is started in this process tree, with the settings'
    number of them or with `workers`.
    """
    from aigateway.client import Client
    from aigateway.embedded import embedded_server
    from aigateway.settings import ServerAddress, process_environment, process_settings, server_address

    address = server_address(config)
    with Client(address) as client:
        if address.given or not embed or client.is_up():
            yield client, False
            return
    process_settings(config)  # a mistake in it is told here, where the child could only fail to start
    arguments = [*(["--config", config] if config else []), *([] if workers is None else ["--workers", str(workers)])]
    environment = process_environment() | {"AIGATEWAY_LOG__LEVEL": "error"}
    with (
        embedded_server(arguments, environment=environment) as url,
        Client(ServerAddress(url=url, api_key=address.api_key, given=False)) as client,
    ):
        yield client, True
