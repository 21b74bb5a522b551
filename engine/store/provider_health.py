"""Queries on resting candidates: a small table that is read about once a second by each process that makes calls."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from engine.store.database import Row, Tx
from engine.store.json_text import storable
from engine.store.statements import Statement
from engine.store.tables import provider_health

_MOST = 500  # names of models come from requests: how many rest has no bound of its own
_STALE_US = 3_600_000_000  # nobody has asked for it since
_COLUMNS = tuple(column.name for column in provider_health.c)
_KEY = ("provider", "model")


def _upsert(insert: Any) -> Statement:
    changed = {name: insert.excluded[name] for name in _COLUMNS if name not in _KEY}
    return Statement(insert.on_conflict_do_update(index_elements=list(_KEY), set_=changed), columns=_COLUMNS)


_UPSERT = {
    "sqlite": _upsert(sqlite.insert(provider_health)),
    "postgresql": _upsert(postgresql.insert(provider_health)),
}
_IS = (provider_health.c.provider == bindparam("at"), provider_health.c.model == bindparam("named"))
_PROBE = provider_health.c.probe_until_us
_LIST = Statement(select(provider_health).order_by(provider_health.c.until_us.desc(), *_KEY).limit(_MOST))
_DELETE = Statement(delete(provider_health).where(*_IS))
_DELETE_PROVIDER = Statement(delete(provider_health).where(provider_health.c.provider == bindparam("at")))
_DELETE_STALE = Statement(delete(provider_health).where(provider_health.c.until_us < bindparam("before")))
_TAKE = Statement(
    update(provider_health)
    .where(*_IS, provider_health.c.until_us <= bindparam("now"), or_(_PROBE.is_(None), _PROBE <= bindparam("now")))
    .values(probe_until_us=bindparam("new_until"))
)
_FREE = Statement(update(provider_health).where(*_IS, _PROBE == bindparam("old_until")).values(probe_until_us=None))


def list_rests(tx: Tx) -> list[Row]:
    """The rows, those that rest longest first."""
    return tx.all(_LIST)


def upsert_rest(tx: Tx, row: Mapping[str, Any]) -> None:
    """Write or replace a row, and drop those that nobody asked for any more. Safe to repeat."""
    tx.run(_DELETE_STALE, {"before": row["since_us"] - _STALE_US})
    tx.run(_UPSERT[tx.dialect], {**row, "error": storable(row["error"])})


def delete_rest(tx: Tx, provider: str, model: str) -> None:
    """Remove a row. Safe to repeat."""
    tx.run(_DELETE, {"at": provider, "named": model})


def delete_rests(tx: Tx, provider: str) -> None:
    """Remove the rows of a provider. Safe to repeat."""
    tx.run(_DELETE_PROVIDER, {"at": provider})


def take_probe(tx: Tx, key: tuple[str, str], now: int, until_us: int) -> bool:
    """Whether this caller got the probe of a rest that is over."""
    return tx.run(_TAKE, {"at": key[0], "named": key[1], "now": now, "new_until": until_us}) == 1


def free_probe(tx: Tx, key: tuple[str, str], until_us: int) -> None:
    """Give back the probe that was taken until then. Safe to repeat."""
    tx.run(_FREE, {"at": key[0], "named": key[1], "old_until": until_us})
