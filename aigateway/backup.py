"""Copies a SQLite database while others use it, through SQLite's own backup API."""

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from engine.errors import FatalError, UserError

_SQLITE = "sqlite:///"


def sqlite_file(database_url: str) -> Path | None:
    """The file behind a SQLite URL, None for another database."""
    path = database_url.removeprefix(_SQLITE).partition("?")[0]
    return Path(path) if database_url.startswith(_SQLITE) else None


def backup_sqlite(database_url: str, target: Path) -> None:
    """Writes a consistent copy, of one moment, to a new file; a copy that did not get through is removed.

    Raises: UserError where the database is not SQLite or a path does not fit, FatalError where copying fails.
    """
    source = sqlite_file(database_url)
    if source is None:
        raise UserError("invalid_config", "db backup copies SQLite databases; use pg_dump for PostgreSQL")
    if not source.is_file():
        raise UserError("invalid_config", f"{source}: there is no database yet")
    if target.exists():
        raise _taken(target)
    if not target.parent.is_dir():
        raise UserError("invalid_request", f"{target}: there is no folder {target.parent}")
    part: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            prefix=f"{target.name}.", suffix=".part", dir=target.parent, delete=False
        ) as made:
            part = Path(made.name)
        _copy(source, part)
        _put_in_place(part, target)
    except FileExistsError:
        raise _taken(target) from None
    except (sqlite3.Error, OSError) as error:
        raise FatalError("backup_failed", f"the backup did not get through: {error}") from None
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _copy(source: Path, part: Path) -> None:
    """In one step: between two, every write of another process would make SQLite begin anew, and it might never end."""
    with (
        closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as reader,
        closing(sqlite3.connect(part)) as writer,
    ):
        reader.backup(writer)


def _put_in_place(part: Path, target: Path) -> None:
    """Whole under its name or not at all. Raises: FileExistsError."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        part.rename(target)


def _taken(target: Path) -> UserError:
    return UserError("invalid_request", f"{target} exists already; a backup never overwrites a file")
