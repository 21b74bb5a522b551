"""Statements that travel to PostgreSQL together and are answered together: libpq's pipeline mode, each text prepared once a connection.

psycopg opens the connection, names the errors and reads the rows. Its cursors are passed by (docs/architecture.md, "Straight to
libpq"): they cost more than the server needs for the statement. Used by `engine.store.postgresql_connection` alone.
"""

import re
import select
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import abc
from psycopg.adapt import Transformer
from psycopg.errors import FeatureNotSupported, InvalidSqlStatementName, error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGresult

from engine.store.statements import Bound

_PREPARED_MOST = 256  # texts a connection; the server keeps a plan of each
_PLACE = re.compile(r"%%|%\((?P<name>[^)]+)\)s(?P<cast>(?:::[A-Za-z]+)?)")
_GOOD = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
_FORGET = "DEALLOCATE ALL"


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A text under its name on the server, and which parameter stands for $1, $2 and so on."""

    name: bytes
    text: bytes
    places: tuple[str, ...]

    def values(self, parameters: Mapping[str, Any]) -> list[bytes | None]:
        return [_written(parameters[place]) for place in self.places]


class Rows:
    """What a statement came to, with the face of a cursor."""

    __slots__ = ("_next", "_reads", "_result")

    def __init__(self, result: PGresult, reads: abc.Transformer) -> None:
        self._result = result
        self._reads = reads
        self._next = 0

    @property
    def rowcount(self) -> int:
        """How many rows it touched or gave."""
        return self._result.command_tuples or 0

    @property
    def description(self) -> list[tuple[str]]:
        """The columns' names, each first in a tuple."""
        names = map(self._result.fname, range(self._result.nfields))
        return [((name or b"").decode(),) for name in names]

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, None behind the last."""
        if self._next >= self._result.ntuples:
            return None
        self._reads.set_pgresult(self._result)
        row = self._reads.load_row(self._next, tuple)
        self._next += 1
        return row

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All the rows that are left."""
        self._reads.set_pgresult(self._result)
        rows = self._reads.load_rows(self._next, self._result.ntuples, tuple)
        self._next = self._result.ntuples
        return rows


class Pipeline:
    """One connection's, for as long as it lives. Used by one thread.

    `outdated`: the server has forgotten what was prepared here (a pooler between), or cannot use it any more (a column's type was
    changed). A new connection knows better; what was asked has failed as a whole.
    """

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        self._wire = connection.pgconn
        self._wire.nonblocking = 1
        self._wire.enter_pipeline_mode()
        self._reads = Transformer(connection)
        self._ready = select.poll()
        self._ready.register(self._wire.socket, select.POLLIN)
        self._prepared: dict[str, _Prepared] = {}
        self._numbers = 0
        self._mark = (
            uuid.uuid4().hex.encode()
        )  # behind a pooler that shares connections another's statement is never taken for one's own
        self.outdated = False
        self._asked: list[str | None] = []  # answers under way, in order: None, or the text that is being prepared

    def ask(self, statements: Sequence[Bound]) -> list[Rows]:
        """Their answers, in one round trip. Raises: what the first one that failed failed of; those behind it were not executed."""
        self._send(statements)
        self._wire.pipeline_sync()
        self._write_out()
        results = self._collect()[-len(statements) :]
        return [Rows(result, self._reads) for result in results]

    def tell(self, statement: Bound) -> None:
        """Send it and go on; whether it failed is found out, and raised, by the next `ask`."""
        self._send([statement])
        self._wire.pipeline_sync()
        self._asked.append(None)  # the sync's own answer
        self._wire.flush()

    def _send(self, statements: Sequence[Bound]) -> None:
        """All or nothing: what cannot be written as PostgreSQL's text is found before the first is sent."""
        if len(self._prepared) > _PREPARED_MOST:
            self._forget()
        known = [self._prepared.get(sql) or self._prepare(sql) for sql, _ in statements]
        values = [each.values(parameters) for each, (_, parameters) in zip(known, statements, strict=True)]
        for prepared, bound, (sql, _) in zip(known, values, statements, strict=True):
            if sql not in self._prepared:
                self._prepared[sql] = prepared
                self._wire.send_prepare(prepared.name, prepared.text)
                self._asked.append(sql)
            self._wire.send_query_prepared(self._prepared[sql].name, bound)
            self._asked.append(None)

    def _prepare(self, sql: str) -> _Prepared:
        """One place a parameter and type: the same expression has to read the same wherever it stands."""
        places: list[str] = []
        seen: dict[tuple[str, str], int] = {}

        def place(found: re.Match[str]) -> str:
            if found["name"] is None:
                return "%"
            key = found["name"], found["cast"]
            if key not in seen:
                places.append(found["name"])
                seen[key] = len(places)
            return f"${seen[key]}{found['cast']}"

        text = _PLACE.sub(place, sql).encode()
        self._numbers += 1
        return _Prepared(b"s%d_%s" % (self._numbers, self._mark), text, tuple(places))

    def _forget(self) -> None:
        self._wire.send_query_params(_FORGET.encode(), None)
        self._asked.append(None)
        self._prepared.clear()

    def _write_out(self) -> None:
        """Hand everything to the kernel. The server may have to be read meanwhile, else it would not read on."""
        while self._wire.flush():
            self._ready.modify(self._wire.socket, select.POLLIN | select.POLLOUT)
            try:
                happened = self._ready.poll()
            finally:
                self._ready.modify(self._wire.socket, select.POLLIN)
            if any(event & ~select.POLLOUT for _, event in happened):
                self._wire.consume_input()

    def _collect(self) -> list[PGresult]:
        """Every answer that is under way, up to the last sync's, those of preparing left out."""
        answers: list[PGresult] = []
        failed: PGresult | None = None
        asked, self._asked = [*self._asked, None], []  # the last one is the sync's
        for sql in asked:
            result = self._next()
            if result.status not in _GOOD and result.status != ExecStatus.PIPELINE_SYNC:
                failed = failed or result
                if sql is not None:
                    self._prepared.pop(sql, None)
            if sql is None and result.status != ExecStatus.PIPELINE_SYNC:
                answers.append(result)
        if failed is not None:
            raise self._error(failed)
        return answers

    def _error(self, result: PGresult) -> psycopg.Error:
        error = error_from_result(result)
        if not isinstance(error, InvalidSqlStatementName | FeatureNotSupported):
            return error
        self.outdated = True
        lost = psycopg.OperationalError(f"statements have to be prepared anew: {error}")
        lost.__cause__ = error
        return lost

    def _next(self) -> PGresult:
        """Raises: psycopg.OperationalError where the connection is lost."""
        while True:
            while self._wire.is_busy():
                self._ready.poll()
                self._wire.consume_input()
            result = self._wire.get_result()
            if self._wire.status == ConnStatus.BAD:
                raise psycopg.OperationalError(self._wire.get_error_message())
            if result is not None:  # None parts one statement's answer from the next
                return result


def _written(value: Any) -> bytes | None:
    """A parameter in PostgreSQL's text format. Raises: psycopg.DataError for text that it cannot hold, which is NUL alone."""
    if value is None:
        return None
    if isinstance(value, str):
        if "\0" in value:
            raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
        return value.encode()
    if isinstance(value, bool):
        return b"t" if value else b"f"
    if isinstance(value, int | float | Decimal):
        return str(value).encode()
    raise TypeError(f"no column holds {type(value).__name__}")
