"""Looks up what checked files name: asks the server that runs, else goes by the configuration at hand."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from aigateway.cli.definition_files import Checked
from engine.calls import calling_steps
from engine.definition import Definition
from engine.errors import AIGatewayError, UserError

if TYPE_CHECKING:
    from aigateway.client import Client

# Imports inside functions: the HTTP client, settings and providers cost more than a command's --help may take.
# ruff: noqa: PLC0415


def add_warnings(checked: Sequence[Checked], config: str | None) -> str | None:
    """Adds warnings to the files without mistakes; the server's address or the configuration that they rest on, None for neither.

    A configuration that cannot be used is told on stderr. Raises: UserError where `config` names it.
    """
    sound = [(one, one.definition) for one in checked if one.definition is not None]
    if not sound:
        return None
    try:
        return _by_server(sound, config) or _by_configuration(sound, config)
    except UserError as error:
        if config is not None:
            raise
        for mistake in error.details or [error]:
            typer.echo(f"aigateway: {mistake.message}", err=True)
        typer.echo("aigateway: the text alone is checked: the configuration cannot be used", err=True)
        return None


def _by_server(sound: Sequence[tuple[Checked, Definition]], config: str | None) -> str | None:
    from aigateway.client import Client
    from aigateway.settings import server_address

    address = server_address(config)
    with Client(address) as client:
        if client.is_up():
            return _asked(client, sound)
    if address.given:
        typer.echo(f"aigateway: no server answers at {address.url}, so it is not asked", err=True)
    return None


def _asked(client: "Client", sound: Sequence[tuple[Checked, Definition]]) -> str | None:
    from aigateway.client import mistake_of, path

    for one, definition in sound:
        beside = [other.text for other, _ in sound if other is not one]
        try:
            if beside and calling_steps(definition):  # of what is not stored yet, and of what is stored otherwise
                answer = client.post(path("workflows", "validate"), {"definition": one.text, "beside": beside})
            else:
                answer = client.post_yaml(path("workflows", "validate"), one.text)
        except AIGatewayError as error:
            if not error.details:
                typer.echo(f"aigateway: the server at {client.url} is not asked: {error.message}", err=True)
                return None
            one.mistakes = list(error.details)  # it is of another release
        else:
            one.warn(mistake_of(entry) for entry in answer["warnings"])
    return client.url


def _by_configuration(sound: Sequence[tuple[Checked, Definition]], config: str | None) -> str | None:
    import asyncio

    from aigateway.definition_check import check_against
    from aigateway.logs import configure_logging
    from aigateway.settings import config_source, process_settings

    source = config_source(config)
    if source is None:
        return None
    configure_logging("error")
    settings = process_settings(source)
    found = asyncio.run(check_against(settings, [definition for _, definition in sound]))
    for (one, _), warnings in zip(sound, found, strict=True):
        one.warn(warnings)
    return source
