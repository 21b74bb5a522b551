"""Work that one process at a time does, now and then: who takes the turn moves the next one on."""

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from engine.store.database import Tx
from engine.store.statements import Statement
from engine.store.tables import settings

_GET = Statement(select(settings.c.value).where(settings.c.name == bindparam("turn")))
_FIRST = {
    "sqlite": Statement(sqlite.insert(settings).on_conflict_do_nothing(), columns=("name", "value")),
    "postgresql": Statement(postgresql.insert(settings).on_conflict_do_nothing(), columns=("name", "value")),
}
_TAKE = Statement(
    update(settings)
    .where(settings.c.name == bindparam("turn"), settings.c.value == bindparam("seen"))
    .values(value=bindparam("next"))
)


def turn_is_due(tx: Tx, turn: str, now: int) -> bool:
    """Whether it is time; where nobody has had a turn yet it is."""
    row = tx.one(_GET, {"turn": turn})
    return row is None or int(row["value"]) <= now


def take_turn(tx: Tx, turn: str, now: int, next_us: int) -> bool:
    """Take the turn, if it is time and nobody else was faster. A process that dies in its turn is made up for in the next."""
    tx.point("take_turn")
    tx.run(_FIRST[tx.dialect], {"name": turn, "value": "0"})
    row = tx.one(_GET, {"turn": turn})
    assert row is not None
    if int(row["value"]) > now:
        return False
    return tx.run(_TAKE, {"turn": turn, "seen": row["value"], "next": str(next_us)}) == 1
