"""Looks at a database without changing anything: no file is made, nothing is created, upgraded or locked."""

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from engine.clock import now_us
from engine.errors import RetryableError
from engine.store.connections import connector

Row = tuple[Any, ...]

_REVISION = "SELECT version_num FROM alembic_version"
_PROCESSES = "SELECT kind, host, id FROM workers WHERE lease_until_us >= {now}"
_NEWEST_CALL = "SELECT max(started_us) FROM requests"
_TABLES = ("alembic_version", "workers", "requests")
_MAY_WRITE = "SELECT NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off'"


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """What there is. `revision` None: empty, or not there yet. `ahead_us`: how far the clock of the database, or else its newest
    call, is ahead of ours. `processes`: kind, host and id of those whose lease holds. `free_bytes` where it is a file.
    """

    where: str
    exists: bool
    revision: str | None
    writable: bool
    ahead_us: int
    processes: tuple[tuple[str, str, str], ...]
    free_bytes: int | None = None


def look_at(url: str) -> DatabaseState:
    """The database's state. Blocks for a few seconds at most. Raises: RetryableError where it cannot be read."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _look_at_file(Path(parsed.database or ""))
    return _look_at_server(url, f"PostgreSQL at {parsed.host or 'a local socket'}/{parsed.database}")


def _look_at_file(file: Path) -> DatabaseState:
    folder = file.parent
    if not folder.is_dir():
        raise RetryableError("database_unavailable", f"the folder {folder} does not exist")
    free = shutil.disk_usage(folder).free
    writable = os.access(folder, os.W_OK | os.X_OK) and (not file.exists() or os.access(file, os.W_OK))
    if not file.exists():
        return DatabaseState(str(file), False, None, writable, 0, (), free)
    # Read-only SQLite would still make the files beside a database in WAL mode; where there are none nobody writes now.
    mode = "mode=ro" if Path(f"{file}-wal").exists() else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?{mode}", uri=True, timeout=5)) as connection:
            known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()

            def read(sql: str) -> list[Row]:
                return connection.execute(sql).fetchall()

            revision, processes, newest = _facts(read, known=known is not None)
    except sqlite3.Error as error:
        raise RetryableError("database_unavailable", f"{file}: {error}") from error
    return DatabaseState(str(file), True, revision, writable, newest - now_us(), processes, free)


def _look_at_server(url: str, where: str) -> DatabaseState:
    connection = connector(url)()
    try:

        def read(sql: str) -> list[Row]:
            return connection.execute(sql, {}).fetchall()

        known = all(bool(read(f"SELECT 1 WHERE to_regclass('{table}') IS NOT NULL")) for table in _TABLES)
        revision, processes, _ = _facts(read, known=known)
        clock = int(read("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")[0][0])
        writable = bool(read(_MAY_WRITE)[0][0])
        return DatabaseState(where, True, revision, writable, clock - now_us(), processes)
    finally:
        connection.close()


def _facts(read: Any, *, known: bool) -> tuple[str | None, tuple[tuple[str, str, str], ...], int]:
    """Revision, living processes and the start of the newest call; nothing but that there is nothing where it is empty."""
    if not known:
        return None, (), 0
    found = read(_REVISION)
    processes = tuple((str(kind), str(host), str(name)) for kind, host, name in read(_PROCESSES.format(now=now_us())))
    newest = read(_NEWEST_CALL)[0][0]
    return (str(found[0][0]) if found else None), processes, int(newest or 0)
