"""Locks by name, for rows that are not there yet to be locked. Held until the transaction ends."""

from sqlalchemy import bindparam, func, select

from engine.store.database import Tx
from engine.store.statements import Statement

_LOCK = Statement(select(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("name"), 0))))
_TRY = Statement(select(func.pg_try_advisory_xact_lock(func.hashtextextended(bindparam("name"), 0)).label("locked")))


def lock_name(tx: Tx, name: str) -> None:
    """One writer at a time goes on with this name. On SQLite every transaction that writes is alone already."""
    if tx.dialect == "postgresql":
        tx.one(_LOCK, {"name": name})


def try_lock_name(tx: Tx, name: str) -> bool:
    """The same without waiting: False where another transaction holds the name."""
    if tx.dialect != "postgresql":
        return True
    row = tx.one(_TRY, {"name": name})
    return row is not None and row["locked"]
