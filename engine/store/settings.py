"""Values that all processes share: some are made once, at first start, others tell what happened last."""

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
_SQLITE, _POSTGRESQL = sqlite.insert(settings), postgresql.insert(settings)
_PUT = {
    "sqlite": Statement(
        _SQLITE.on_conflict_do_update(index_elements=["name"], set_={"value": _SQLITE.excluded.value}),
        columns=("name", "value"),
    ),
    "postgresql": Statement(
        _POSTGRESQL.on_conflict_do_update(index_elements=["name"], set_={"value": _POSTGRESQL.excluded.value}),
        columns=("name", "value"),
    ),
}


def get_or_make(tx: Tx, name: str, make: Callable[[], str]) -> str:
    """The stored value; where there is none, `make`'s becomes it. Processes that start together agree on one."""
    tx.point("make_setting")
    tx.run(_INSERT[tx.dialect], {"name": name, "value": make()})
    row = tx.one(_GET, {"setting": name})
    assert row is not None
    return row["value"]


def get_value(tx: Tx, name: str) -> str | None:
    """The stored value, None where there is none."""
    row = tx.one(_GET, {"setting": name})
    return None if row is None else row["value"]


def put_value(tx: Tx, name: str, value: str) -> None:
    """Store a value; the last one counts."""
    tx.run(_PUT[tx.dialect], {"name": name, "value": value})
