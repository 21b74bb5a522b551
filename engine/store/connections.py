"""The drivers' own connections behind one small face: begin, execute, commit. SQLite and psycopg, nothing else."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import psycopg
from sqlalchemy import make_url

from engine.errors import RetryableError

BUSY_TIMEOUT_S = 10.0  # waits for SQLite's one write lock stay under it, and well under a lease


class Connection(Protocol):
    """What a transaction needs of a driver."""

    def failed_outside(self, error: BaseException) -> bool:
        """Whether this is nobody's mistake: a lock time-out, a lost connection, a full disk."""
        ...

    def begin(self, *, writes: bool) -> None:
        """Open a transaction; one that writes takes SQLite's write lock at once, so that it can never lose it half way."""
        ...

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> Any:
        """A cursor with rowcount, description, fetchone and fetchall."""
        ...

    def executemany(self, sql: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """The statement once per row."""
        ...

    def commit(self) -> None:
        """Durable when it returns."""
        ...

    def rollback(self) -> bool:
        """Undo; False where the connection is of no more use."""
        ...

    def close(self) -> None:
        """Never raises."""
        ...


class SqliteConnection:
    """WAL; NORMAL survives any crash of the process, and FULL is not needed for promises about killed processes."""

    def __init__(self, path: str) -> None:
        self._raw = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            self._raw.execute(f"PRAGMA {pragma}")

    def begin(self, *, writes: bool) -> None:
        """IMMEDIATE for writes: a deferred BEGIN fails with `database is locked` as soon as two processes write."""
        self._raw.execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> Any:
        """See Connection."""
        return self._raw.execute(sql, parameters)

    def executemany(self, sql: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """See Connection."""
        self._raw.executemany(sql, rows)

    def commit(self) -> None:
        """See Connection."""
        self._raw.execute("COMMIT")

    def rollback(self) -> bool:
        """See Connection."""
        try:
            if self._raw.in_transaction:
                self._raw.execute("ROLLBACK")
        except sqlite3.Error:
            return False
        return True

    def failed_outside(self, error: BaseException) -> bool:
        """See Connection. A plain SQLITE_ERROR is a mistake in a statement."""
        return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode != sqlite3.SQLITE_ERROR

    def close(self) -> None:
        """See Connection."""
        self._raw.close()


class PostgresqlConnection:
    """READ COMMITTED; rows that matter are locked by name in the transitions."""

    def __init__(self, conninfo: str) -> None:
        self._raw = psycopg.connect(conninfo, autocommit=True, connect_timeout=5)

    def begin(self, *, writes: bool) -> None:
        """A read-only transaction sees one moment of the database."""
        self._raw.execute("BEGIN" if writes else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> Any:
        """See Connection."""
        return self._raw.execute(sql.encode(), parameters)

    def executemany(self, sql: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """See Connection."""
        with self._raw.cursor() as cursor:
            cursor.executemany(sql.encode(), rows)

    def commit(self) -> None:
        """See Connection."""
        self._raw.execute("COMMIT")

    def rollback(self) -> bool:
        """See Connection."""
        try:
            self._raw.execute("ROLLBACK")
        except psycopg.Error:
            return False
        return not self._raw.broken

    def failed_outside(self, error: BaseException) -> bool:
        """See Connection."""
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)

    def close(self) -> None:
        """See Connection."""
        self._raw.close()


def connect_sqlite(path: str) -> Connection:
    """Open the file. Raises: sqlite3.Error."""
    return SqliteConnection(path)


def connect_postgresql(url: str) -> Connection:
    """Connect by a postgresql:// URL. Raises: RetryableError where no server answers."""
    conninfo = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        return PostgresqlConnection(conninfo)
    except psycopg.Error as error:
        raise RetryableError("database_unavailable", str(error).strip().splitlines()[0]) from error
