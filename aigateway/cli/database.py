"""`aigateway db …`: the schema of the database that the settings name, copies of it, and what is deleted from it. Needs no server."""

from pathlib import Path
from typing import Annotated

import typer

from aigateway.cli.options import ConfigOption, JsonOption, print_json

# Imports inside functions: SQLAlchemy, Alembic and pydantic cost more than a command's --help may take.
# ruff: noqa: PLC0415

_LONGEST_S = 100 * 366 * 86_400.0
group = typer.Typer(
    name="db",
    help="The database: schema, copies, and deleting what is old.",
    no_args_is_help=True,
    epilog="Example: aigateway db current",
)


def register(app: typer.Typer) -> None:
    """Adds the group to the program."""
    app.add_typer(group, rich_help_panel="Look after it")


@group.command(epilog="Example: AIGATEWAY_DATABASE_URL=postgresql://… aigateway db upgrade")
def upgrade(*, config: ConfigOption = None) -> None:
    """Creates the schema or brings it up to date; `serve`, `api` and `worker` do so by themselves."""
    from aigateway.settings import process_settings
    from engine.store import migrate

    url = process_settings(config).database_url
    migrate.upgrade(url)
    typer.echo(f"schema {migrate.current(url)}")


@group.command(epilog="Example: aigateway db current --json")
def current(*, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Prints the schema's revision and the newest one; exit code 1 where they differ."""
    from aigateway.backup import sqlite_file
    from aigateway.settings import process_settings
    from engine.store import migrate

    url = process_settings(config).database_url
    file = sqlite_file(url)
    # SQLite would make the file by looking into it.
    found = None if file and not file.exists() else migrate.current(url)
    newest = migrate.head()
    if as_json:
        print_json({"current": found, "head": newest})
    else:
        mend = (
            "run `aigateway db upgrade`" if migrate.is_known(found) else "made by another release, which is to be used"
        )
        typer.echo(f"{found or 'empty'}" + ("" if found == newest else f" (newest here: {newest}; {mend})"))
    if found != newest:
        raise typer.Exit(1)


@group.command(epilog="Example: aigateway db backup aigateway-backup.db")
def backup(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes; must not exist.")],
    config: ConfigOption = None,
) -> None:
    """Writes a consistent copy of a SQLite database, also while it is in use."""
    from aigateway.backup import backup_sqlite
    from aigateway.settings import process_settings

    backup_sqlite(process_settings(config).database_url, file)
    typer.echo(str(file))


@group.command(epilog="Example: aigateway db prune --older-than 30d --dry-run")
def prune(
    *,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Finished runs older than this go, such as 30d; else retention.runs_days."
        ),
    ] = None,
    requests_older_than: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Ledger rows older than this go; else retention.requests_days."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Deletes old runs and ledger rows at once, as workers do every hour; servers may be running."""
    from aigateway.pruning import prune_now
    from aigateway.settings import process_settings

    ages_s = [
        _seconds(told, option)
        for told, option in ((older_than, "--older-than"), (requests_older_than, "--requests-older-than"))
    ]
    counts = prune_now(process_settings(config), ages_s[0], ages_s[1], dry_run=dry_run)
    if as_json:
        print_json({"dry_run": dry_run, "deleted": counts})
        return
    for table, number in counts.items():
        if number:
            typer.echo(f"{table}\t{number}")
    total = sum(counts.values())
    told = "would be deleted" if dry_run else "deleted"
    typer.echo(f"{total} rows {told}" if total else "nothing is that old", err=True)


def _seconds(told: str | None, option: str) -> float | None:
    """Raises: BadParameter."""
    from engine.durations import parse_duration

    try:
        return None if told is None else parse_duration(told, longest_s=_LONGEST_S)
    except ValueError as error:
        raise typer.BadParameter(f"{told}: {error}", param_hint=option) from None
