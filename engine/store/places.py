"""Queries on places: one row for each run of a workflow with `concurrency` that has not ended, in line or under way."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from engine.store.database import Row, Tx
from engine.store.statements import Statement
from engine.store.tables import places

_INSERT = Statement(insert(places), columns=tuple(column.name for column in places.c))
_GET = Statement(select(places).where(places.c.run_id == bindparam("run")))
_DELETE = Statement(delete(places).where(places.c.run_id == bindparam("run")).returning(places.c.line))
_STEP_OUT = Statement(delete(places).where(places.c.run_id == bindparam("run"), places.c.since_us.is_(None)))
_COUNT = Statement(
    select(func.count().label("number")).where(places.c.line == bindparam("line"), places.c.since_us.is_not(None))
)
_HEAD = Statement(
    select(places.c.run_id, places.c.most)
    .where(places.c.line == bindparam("line"), places.c.since_us.is_(None), places.c.from_us <= bindparam("now"))
    .order_by(places.c.rank, places.c.run_id)
    .limit(1)
)
_TAKE = Statement(
    update(places)
    .where(places.c.run_id == bindparam("run"), places.c.since_us.is_(None))
    .values(since_us=bindparam("now"))
)


def _with_room() -> Statement:
    """Jumps from line to line by their index: what it costs grows with the lines in which somebody waits, not with who waits."""
    waiting = places.c.since_us.is_(None)
    lines = select(func.min(places.c.line).label("line")).where(waiting).cte("lines", recursive=True)
    following = select(func.min(places.c.line)).where(waiting, places.c.line > lines.c.line).scalar_subquery()
    lines = lines.union_all(select(following).where(lines.c.line.is_not(None)))
    under_way = (
        select(func.count())
        .where(places.c.line == lines.c.line, places.c.since_us.is_not(None))
        .correlate(lines)
        .scalar_subquery()
    )
    allowed = (
        select(places.c.most)
        .where(places.c.line == lines.c.line, waiting, places.c.from_us <= bindparam("now"))
        .order_by(places.c.rank, places.c.run_id)
        .limit(1)
        .correlate(lines)
        .scalar_subquery()
    )
    return Statement(select(lines.c.line).where(under_way < allowed).limit(bindparam("many")))


_WITH_ROOM = _with_room()


def insert_place(tx: Tx, row: Mapping[str, Any]) -> None:
    """A run stands in line from now on."""
    tx.run(_INSERT, row)


def get_place(tx: Tx, run_id: str) -> Row | None:
    """The run's row; `since_us` is null for as long as it waits."""
    return tx.one(_GET, {"run": run_id})


def delete_place(tx: Tx, run_id: str) -> str | None:
    """The run neither waits nor is under way any more; returns its line, None where it had none."""
    row = tx.one(_DELETE, {"run": run_id})
    return None if row is None else row["line"]


def step_out(tx: Tx, run_id: str) -> None:
    """Forget a run that waits; one that is under way keeps its place."""
    tx.run(_STEP_OUT, {"run": run_id})


def under_way(tx: Tx, line: str) -> int:
    """How many runs of a line have a place."""
    row = tx.one(_COUNT, {"line": line})
    assert row is not None
    return row["number"]


def next_in_line(tx: Tx, line: str, now: int) -> Row | None:
    """run_id and most (places in all) of the run whose turn it is: by priority, then submission, none before its start time."""
    return tx.one(_HEAD, {"line": line, "now": now})


def take_place(tx: Tx, run_id: str, now: int) -> bool:
    """A run that waited is under way; False where it did not wait."""
    return tx.run(_TAKE, {"run": run_id, "now": now}) == 1


def lines_with_room(tx: Tx, now: int, most: int) -> list[str]:
    """Lines in which a run waits that may start."""
    return [row["line"] for row in tx.all(_WITH_ROOM, {"now": now, "many": most})]
