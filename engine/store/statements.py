"""A Core statement compiled once per dialect and run as ready SQL text on the driver's own connection.

Compiling and binding through SQLAlchemy costs several times what the statement itself costs on SQLite
(docs/architecture.md, "Ready SQL"), so the hot path pays it once per process.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, cast

from sqlalchemy import ClauseElement, Column, ColumnElement, or_

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


def one_of(column: Column[Any], values: Iterable[str]) -> ColumnElement[bool]:
    """`column IN (...)` for values that are fixed in the statement: `in_` would be written out at every execution."""
    return or_(*(column == value for value in values))
