"""PostgreSQL, through psycopg, behind `engine.store.connections.Connection`."""

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from engine.errors import RetryableError, UserError


class PostgresqlConnection:
    """READ COMMITTED; rows that matter are locked by name in the transitions."""

    def __init__(self, conninfo: str) -> None:
        """Raises: RetryableError where no server answers."""
        try:
            self._raw = psycopg.connect(conninfo, autocommit=True, connect_timeout=5)
        except psycopg.Error as error:
            raise RetryableError("database_unavailable", str(error).strip().splitlines()[0]) from error

    def begin(self, *, writes: bool) -> None:
        """A read-only transaction sees one moment of the database."""
        self._raw.execute("BEGIN" if writes else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> Any:
        """See Connection. Raises: UserError for text that PostgreSQL cannot hold, which is NUL alone."""
        try:
            return self._raw.execute(sql.encode(), parameters)
        except psycopg.DataError as error:
            raise UserError("invalid_text", f"a value cannot be stored or looked for: {error}") from error

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
