"""PostgreSQL, through psycopg, behind `engine.store.connections.Connection`."""

from collections.abc import Mapping
from time import monotonic
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from engine.errors import RetryableError, UserError
from engine.store.statements import Bound

_UNSENT = 200  # statements that wait to be sent together
_BEGIN = "BEGIN"
_BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_FRESH_S = 1.0  # a connection that was used so lately is taken to be alive


class PostgresqlConnection:
    """READ COMMITTED; rows that matter are locked by name in the transitions."""

    def __init__(self, conninfo: str) -> None:
        """Raises: RetryableError where no server answers."""
        try:
            self._raw = psycopg.connect(conninfo, autocommit=True, connect_timeout=5)
        except psycopg.Error as error:
            raise RetryableError("database_unavailable", str(error).strip().splitlines()[0]) from error
        self._unsent: list[Bound] = []
        self._used = monotonic()
        self._nothing_done = False

    @property
    def nothing_done(self) -> bool:
        """See Connection."""
        return self._nothing_done

    def begin(self, *, writes: bool) -> None:
        """A read-only transaction sees one moment of the database.

        It travels with the first statement, unless the connection has been idle: one that died meanwhile is found out here.
        """
        self._nothing_done = True
        begin = _BEGIN if writes else _BEGIN_READING
        if monotonic() - self._used > _FRESH_S:
            self._raw.execute(begin.encode())
        else:
            self._unsent.append((begin, {}))

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> Any:
        """See Connection. Raises: UserError for text that PostgreSQL cannot hold, which is NUL alone."""
        return self._execute([(sql, parameters)])[-1]

    def execute_both(self, first: Bound, second: Bound) -> tuple[Any, Any]:
        """See Connection. The second one's snapshot is taken when the first one is done. Raises: as `execute`."""
        *_, one, other = self._execute([first, second])
        return one, other

    def send(self, sql: str, parameters: Mapping[str, Any]) -> None:
        """See Connection. Raises: as `execute`."""
        self._unsent.append((sql, parameters))
        if len(self._unsent) >= _UNSENT:
            unsent = self._unsent.pop()
            self._execute([unsent])

    def _execute(self, statements: list[Bound]) -> list[Any]:
        """In one round trip with all that waits to be sent."""
        everything = self._unsent + statements
        self._unsent = []
        try:
            if len(everything) == 1:
                self._nothing_done = False  # what began the transaction was answered
                return [self._raw.execute(everything[0][0].encode(), everything[0][1])]
            with self._raw.pipeline():
                answers = [self._raw.execute(sql.encode(), parameters) for sql, parameters in everything]
            self._nothing_done = False
            return answers
        except psycopg.DataError as error:
            raise UserError("invalid_text", f"a value cannot be stored or looked for: {error}") from error

    def commit(self) -> None:
        """See Connection."""
        self._nothing_done = False
        self._execute([("COMMIT", {})])
        self._used = monotonic()

    def rollback(self) -> bool:
        """See Connection."""
        self._unsent = []
        try:
            if self._raw.info.transaction_status != TransactionStatus.IDLE:  # else it never began
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
