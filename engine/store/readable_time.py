"""Times that people can read when they query the tables with SQL: generated columns beside the microseconds."""

from typing import Any

from sqlalchemy import TIMESTAMP, Column, ColumnElement, Computed, Text
from sqlalchemy.ext.compiler import compiles


class ReadableTime(ColumnElement[str]):
    """A microsecond column as a time that people can read when they query the tables with SQL."""

    inherit_cache = False

    def __init__(self, column: str) -> None:
        self.column = column


def _on_sqlite(element: ReadableTime, compiler: Any, **_: Any) -> str:
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', {element.column} / 1000000.0, 'unixepoch')"


def _on_postgresql(element: ReadableTime, compiler: Any, **_: Any) -> str:
    return f"to_timestamp({element.column} / 1000000.0)"


compiles(ReadableTime)(_on_sqlite)
compiles(ReadableTime, "postgresql")(_on_postgresql)


def readable(name: str, source: str) -> Column[Any]:
    """A generated column that shows the microseconds of the column `source`."""
    kind = Text().with_variant(TIMESTAMP(timezone=True), "postgresql")
    return Column(name, kind, Computed(ReadableTime(source), persisted=True))
