"""Values that are made once, at first start, and shared by all processes."""

from collections.abc import Callable

from sqlalchemy import bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from engine.store.database import Tx
from engine.store.statements import Statement
from engine.store.tables import settings

_GET = Statement(select(settings.c.value).where(settings.c.name == bindparam("setting")))
_INSERT = {
    "sqlite": Statement(sqlite.insert(settings).on_conflict_do_nothing(), columns=("name", "value")),
    "postgresql": Statement(postgresql.insert(settings).on_conflict_do_nothing(), columns=("name", "value")),
}


def get_or_make(tx: Tx, name: str, make: Callable[[], str]) -> str:
    """The stored value; where there is none, `make`'s becomes it. Processes that start together agree on one."""
    tx.point("make_setting")
    tx.run(_INSERT[tx.dialect], {"name": name, "value": make()})
    row = tx.one(_GET, {"setting": name})
    assert row is not None
    return row["value"]
