"""Locks by name, for rows that are not there yet to be locked. Held until the transaction ends."""

from sqlalchemy import bindparam, func, select

from engine.store.database import Tx
from engine.store.statements import Statement

_LOCK = Statement(select(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("name"), 0))))


def lock_name(tx: Tx, name: str) -> None:
    """One writer at a time goes on with this name. On SQLite every transaction that writes is alone already."""
    if tx.dialect == "postgresql":
        tx.one(_LOCK, {"name": name})
