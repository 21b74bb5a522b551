"""PostgreSQL behind `engine.store.connections.Connection`: psycopg's connection, and its statements through `engine.store.pipeline`."""

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from engine.errors import FatalError, RetryableError, UserError
from engine.store.pipeline import Pipeline
from engine.store.statements import Bound

_UNSENT = 200  # statements that wait to be sent together
_BEGIN: Bound = ("BEGIN", {})
_BEGIN_READING: Bound = ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", {})
_COMMIT: Bound = ("COMMIT", {})
_ROLLBACK: Bound = ("ROLLBACK", {})
_FRESH_S = 1.0  # a connection that was used so lately is taken to be alive


class PostgresqlConnection:
    """READ COMMITTED; rows that matter are locked by name in the transitions."""

    def __init__(self, conninfo: str) -> None:
        """Raises: RetryableError where no server answers."""
        try:
            self._raw = psycopg.connect(conninfo, autocommit=True, connect_timeout=5, client_encoding="UTF8")
        except psycopg.Error as error:
            raise RetryableError("database_unavailable", str(error).strip().splitlines()[0]) from error
        self._pipeline = Pipeline(self._raw)
        self._unsent: list[Bound] = []
        self._used = monotonic()
        self._nothing_done = False
        self._writes = False
        self._spoilt = False  # a statement of the transaction has failed

    @property
    def nothing_done(self) -> bool:
        """See Connection."""
        return self._nothing_done or self._pipeline.outdated

    def begin(self, *, writes: bool) -> None:
        """A read-only transaction sees one moment of the database.

        It travels with the first statement, unless the connection has been idle: one that died meanwhile is found out here.
        """
        self._nothing_done = True
        self._spoilt = False
        self._writes = writes
        begin = _BEGIN if writes else _BEGIN_READING
        if monotonic() - self._used > _FRESH_S:
            self._pipeline.ask([begin])
        else:
            self._unsent.append(begin)

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> Any:
        """See Connection. Raises: UserError for text that PostgreSQL cannot hold, which is NUL alone."""
        return self.execute_all([(sql, parameters)])[0]

    def execute_all(self, statements: Sequence[Bound]) -> Sequence[Any]:
        """See Connection; in one round trip with all that waits to be sent.

        Raises: as `execute`; FatalError behind a statement that failed, where the work went on all the same: what waited to be sent
        with that one is lost, and the server answers COMMIT with a rollback that is no error.
        """
        if self._spoilt:
            raise FatalError(
                "transaction_spoilt", "a statement of this transaction had failed: nothing of it is stored"
            )
        everything = [*self._unsent, *statements]
        self._unsent = []
        self._spoilt = True
        try:
            answers = self._pipeline.ask(everything)
        except psycopg.DataError as error:
            raise UserError("invalid_text", f"a value cannot be stored or looked for: {error}") from error
        self._nothing_done = False  # what began the transaction was answered
        self._spoilt = False
        return answers[-len(statements) :]

    def send(self, sql: str, parameters: Mapping[str, Any]) -> None:
        """See Connection. Raises: as `execute`."""
        self._unsent.append((sql, parameters))
        if len(self._unsent) >= _UNSENT:
            self.execute_all([self._unsent.pop()])

    def commit(self) -> None:
        """See Connection. Nobody waits for the end of a transaction that only read."""
        if self._writes or self._unsent:
            self._nothing_done = False
            self.execute_all([_COMMIT])
        else:
            self._pipeline.tell(_COMMIT)
        self._used = monotonic()

    def rollback(self) -> bool:
        """See Connection."""
        self._unsent = []
        try:
            if self._raw.info.transaction_status != TransactionStatus.IDLE:  # else it never began
                self._pipeline.ask([_ROLLBACK])
        except psycopg.Error:
            return False
        return not (self._raw.broken or self._pipeline.outdated)

    def failed_outside(self, error: BaseException) -> bool:
        """See Connection."""
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)

    def close(self) -> None:
        """See Connection."""
        self._raw.close()
