"""One transaction on a driver's connection, as the functions get it that `engine.store.database` runs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

from engine.store.connections import Connection
from engine.store.statements import Bound, ManyRows, Statement

T = TypeVar("T")
Row = dict[str, Any]


class Tx:
    """One transaction, handed to the functions that `Database.write` and `read` run."""

    def __init__(self, connection: Connection, dialect: str) -> None:
        self._connection = connection
        self.dialect = dialect
        self.points: list[str] = []
        self._kept: dict[type[Any], Any] = {}
        self._last: list[Callable[[], None]] = []

    def point(self, name: str) -> None:
        """Say which commit point this transaction reaches (engine.crash_points)."""
        self.points.append(name)

    def kept(self, kind: Callable[["Tx"], T]) -> T:
        """The transaction's one object of that class: for what was read under its locks, and need not be read again."""
        found = self._kept.get(cast("type[T]", kind))
        if found is None:
            found = self._kept[cast("type[T]", kind)] = kind(self)
        return cast(T, found)

    def at_end(self, work: Callable[[], None]) -> None:
        """Run before the commit, behind all else."""
        self._last.append(work)

    def finish(self) -> None:
        """Do what was kept for the end."""
        for work in self._last:
            work()

    def run(self, statement: Statement, parameters: Mapping[str, Any] | None = None) -> int:
        """Execute; returns the number of rows it touched."""
        return self._execute(statement, parameters).rowcount

    def send(self, statement: Statement, parameters: Mapping[str, Any]) -> None:
        """Execute where nobody asks for an answer: on PostgreSQL it travels with the next one that is asked for, and fails with it."""
        self._connection.send(*self._bound(statement, parameters))

    def one(self, statement: Statement, parameters: Mapping[str, Any] | None = None) -> Row | None:
        """The first row, None where there is none."""
        return _first(statement, self._execute(statement, parameters))

    def all(self, statement: Statement, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """All rows."""
        return _every(statement, self._execute(statement, parameters))

    def together(self, *asked: tuple[Statement, Mapping[str, Any]]) -> list[list[Row]]:
        """`all` of several statements in one round trip; each sees what those before it have waited for."""
        cursors = self._connection.execute_all([self._bound(*each) for each in asked])
        return [_every(statement, cursor) for (statement, _), cursor in zip(asked, cursors, strict=True)]

    def many(self, statement: Statement, rows: Iterable[Mapping[str, Any]]) -> None:
        """Send once per row."""
        for row in rows:
            self.send(statement, row)

    def insert(self, table: ManyRows, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send rows, a few at once."""
        for statement, values in table.statements(rows):
            self.send(statement, values)

    def _execute(self, statement: Statement, parameters: Mapping[str, Any] | None) -> Any:
        return self._connection.execute(*self._bound(statement, parameters))

    def _bound(self, statement: Statement, parameters: Mapping[str, Any] | None) -> Bound:
        sql, fixed = statement.ready(self.dialect)
        return sql, {**fixed, **parameters} if parameters else fixed


def _first(statement: Statement, cursor: Any) -> Row | None:
    found = cursor.fetchone()
    return None if found is None else dict(zip(statement.names(cursor), found, strict=True))


def _every(statement: Statement, cursor: Any) -> list[Row]:
    names = statement.names(cursor)
    return [dict(zip(names, found, strict=True)) for found in cursor.fetchall()]
