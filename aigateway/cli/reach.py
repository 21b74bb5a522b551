"""Finds the server that a command talks to, or starts one for as long as the command lasts."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aigateway.client import Client

# Imports inside functions: the HTTP client and pydantic cost more than a command's --help may take.
# ruff: noqa: PLC0415


@contextmanager
def reached(config: str | None, *, embed: bool) -> "Generator[tuple[Client, bool]]":
    """A client of the server that AIGATEWAY_URL or the settings name, and whether it is an embedded one.

    With `embed`, where no server answers and AIGATEWAY_URL names none, a server with workers is started in this process tree.
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
    arguments = ["--config", config] if config else []
    environment = process_environment() | {"AIGATEWAY_LOG__LEVEL": "error"}
    with (
        embedded_server(arguments, environment=environment) as url,
        Client(ServerAddress(url=url, api_key=None, given=False)) as client,
    ):
        yield client, True
