"""Copies a SQLite database while others use it, through SQLite's own backup API."""

import sqlite3
from contextlib import closing
from pathlib import Path

from engine.errors import FatalError, UserError

_SQLITE = "sqlite:///"
_PAGES_AT_ONCE = 1000


def sqlite_file(database_url: str) -> Path | None:
    """The file behind a SQLite URL, None for another database."""
    path = database_url.removeprefix(_SQLITE).partition("?")[0]
    return Path(path) if database_url.startswith(_SQLITE) else None


def backup_sqlite(database_url: str, target: Path) -> None:
    """Writes a consistent copy to a new file; a copy that did not get through is removed.

    Raises: UserError where the database is not SQLite or a path does not fit, FatalError where copying fails.
    """
    source = sqlite_file(database_url)
    if source is None:
        raise UserError("invalid_config", "db backup copies SQLite databases; use pg_dump for PostgreSQL")
    if not source.is_file():
        raise UserError("invalid_config", f"{source}: there is no database yet")
    if target.exists():
        raise UserError("invalid_request", f"{target} exists already; a backup never overwrites a file")
    try:
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as reader,
            closing(sqlite3.connect(target)) as writer,
        ):
            reader.backup(writer, pages=_PAGES_AT_ONCE)
    except sqlite3.Error as error:
        target.unlink(missing_ok=True)
        raise FatalError("backup_failed", f"the backup did not get through: {error}") from None
