"""`aigateway doctor`: looks at everything that the gateway needs and says how to mend what is not as it should be."""

from typing import TYPE_CHECKING

import typer

from aigateway.cli.options import ConfigOption, JsonOption, print_json

if TYPE_CHECKING:
    from aigateway.doctor import Finding

# Imports inside functions: the settings, providers and the database cost more than a command's --help may take.
# ruff: noqa: PLC0415

_COLOURS = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "failed": typer.colors.RED}


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(epilog="Example: aigateway doctor --json", rich_help_panel="Look after it")(doctor)


def doctor(*, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Checks configuration, database, queue, workers, providers, models, MCP servers and workflows. Changes nothing.

    Exit code 1 where something has failed; a warning keeps nothing from working. The calls that it makes cost nothing.
    """
    findings = _findings(config)
    failed = any(finding.status == "failed" for finding in findings)
    if as_json:
        from dataclasses import asdict

        print_json({"object": "list", "ok": not failed, "data": [asdict(finding) for finding in findings]})
    else:
        _show(findings)
    if failed:
        raise typer.Exit(1)


def _findings(config: str | None) -> "list[Finding]":
    import asyncio

    from aigateway.doctor import configuration_findings, examine
    from aigateway.logs import configure_logging
    from aigateway.settings import config_source, process_settings
    from engine.errors import UserError

    configure_logging("error")
    source = config_source(config)
    try:
        settings = process_settings(source)
    except UserError as error:
        return configuration_findings(error)
    return asyncio.run(examine(settings, source))


def _show(findings: "list[Finding]") -> None:
    from aigateway.timeline import printable

    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        mark = typer.style(f"{finding.status:<7}", fg=_COLOURS[finding.status])
        typer.echo(f"{mark}  {finding.check:<{width}}  {printable(finding.message)}")
        if finding.mend:
            typer.echo(f"{'':<{width + 11}}→ {printable(finding.mend)}")
