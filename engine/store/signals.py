"""Queries on signals."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from engine.store.database import Row, Tx
from engine.store.statements import Statement
from engine.store.tables import signals

_INSERT = Statement(insert(signals), columns=tuple(column.name for column in signals.c))
_EARLY = Statement(
    select(signals)
    .where(signals.c.run_id == bindparam("run"), signals.c.name == bindparam("signal"), signals.c.taken_by.is_(None))
    .order_by(signals.c.id)
)
_TAKE = Statement(update(signals).where(signals.c.id == bindparam("signal")).values(taken_by=bindparam("step")))


def insert_signal(tx: Tx, row: Mapping[str, Any]) -> None:
    """Keep a signal."""
    tx.run(_INSERT, row)


def early_signals(tx: Tx, run_id: str, name: str) -> list[Row]:
    """Signals of that name that nobody has taken, oldest first."""
    return tx.all(_EARLY, {"run": run_id, "signal": name})


def take_signal(tx: Tx, signal_id: str, step_key: str) -> None:
    """A step has taken it."""
    tx.run(_TAKE, {"signal": signal_id, "step": step_key})
