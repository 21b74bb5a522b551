"""`aigateway db …`: the schema and copies of the database that the settings name. Needs no server."""

from pathlib import Path
from typing import Annotated

import typer

from aigateway.cli.options import ConfigOption, JsonOption, print_json

# Imports inside functions: SQLAlchemy, Alembic and pydantic cost more than a command's --help may take.
# ruff: noqa: PLC0415

group = typer.Typer(
    name="db", help="The database: schema and copies.", no_args_is_help=True, epilog="Example: aigateway db current"
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
        typer.echo(
            f"{found or 'empty'}" + ("" if found == newest else f" (newest: {newest}; run `aigateway db upgrade`)")
        )
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
