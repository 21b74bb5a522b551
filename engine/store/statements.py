"""A Core statement compiled once per dialect and run as ready SQL text on the driver's own connection.

Compiling and binding through SQLAlchemy costs several times what the statement itself costs on SQLite
(docs/architecture.md, "Ready SQL"), so the hot path pays it once per process.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, cast

from sqlalchemy import ClauseElement, Column, ColumnElement, Table, bindparam, insert, or_

_AT_ONCE = 5  # rows of one INSERT

Bound = tuple[str, Mapping[str, Any]]
"""A statement's text and its parameters, ready for a driver."""


@cache
def _dialect(name: str) -> Any:
    """Each loads only where it is used: 50 ms together."""
    if name == "sqlite":
        from sqlalchemy.dialects import sqlite  # noqa: PLC0415

        return sqlite.dialect(paramstyle="named")
    from sqlalchemy.dialects.postgresql import psycopg  # noqa: PLC0415

    return psycopg.dialect()


class Statement:
    """One SQL statement with named parameters. `columns` names the inserted columns of an INSERT."""

    def __init__(self, element: ClauseElement, *, columns: Sequence[str] | None = None) -> None:
        self._element = element
        self._columns = columns
        self._ready: dict[str, Bound] = {}
        self._names: tuple[str, ...] | None = None

    def ready(self, dialect: str) -> Bound:
        """The SQL text for that dialect and the values of the parameters that are fixed in the statement."""
        found = self._ready.get(dialect)
        if found is None:
            compiled = self._element.compile(dialect=_dialect(dialect), column_keys=self._columns)
            fixed: dict[str, Any] = dict(cast(Mapping[str, Any], compiled.params))
            found = (str(compiled), fixed)
            self._ready[dialect] = found
        return found

    def names(self, cursor: Any) -> tuple[str, ...]:
        """The names of the result's columns; asked of a driver once, since every row's would cost more than the row."""
        if self._names is None:
            self._names = tuple(column[0] for column in cursor.description)
        return self._names


class ManyRows:
    """An INSERT of any number of rows, a few to a statement: what a statement costs by itself is paid for all of them once."""

    def __init__(self, table: Table, columns: Sequence[str]) -> None:
        self._columns = tuple(columns)
        self._inserts = [self._of(table, rows) for rows in range(1, _AT_ONCE + 1)]

    def _of(self, table: Table, rows: int) -> Statement:
        values: list[dict[str, Any]] = [
            {column: bindparam(f"{column}_{row}") for column in self._columns} for row in range(rows)
        ]
        return Statement(insert(table).values(values))

    def statements(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Statement, Mapping[str, Any]]]:
        """To be executed, in the order of the rows."""
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            values = {f"{column}_{number}": row[column] for number, row in enumerate(some) for column in self._columns}
            yield self._inserts[len(some) - 1], values


def one_of(column: Column[Any], values: Iterable[str]) -> ColumnElement[bool]:
    """`column IN (...)` for values that are fixed in the statement: `in_` would be written out at every execution."""
    return or_(*(column == value for value in values))
