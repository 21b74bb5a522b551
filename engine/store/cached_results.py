"""Queries on results that are kept to be used again."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, delete, insert, select

from engine.store.database import Row, Tx
from engine.store.statements import Statement
from engine.store.tables import cached_results

_GET = Statement(
    select(cached_results).where(
        cached_results.c.digest == bindparam("digest"), cached_results.c.expires_us > bindparam("now")
    )
)
_INSERT = Statement(insert(cached_results), columns=tuple(column.name for column in cached_results.c))
_FORGET = Statement(
    delete(cached_results).where(
        (cached_results.c.digest == bindparam("digest")) | (cached_results.c.expires_us <= bindparam("now"))
    )
)


def cached_result(tx: Tx, digest: str, now: int) -> Row | None:
    """A result that has not expired."""
    return tx.one(_GET, {"digest": digest, "now": now})


def replace_cached_result(tx: Tx, row: Mapping[str, Any], now: int) -> None:
    """Keep a result in place of an older one; what has expired is forgotten."""
    tx.run(_FORGET, {"digest": row["digest"], "now": now})
    tx.run(_INSERT, row)
