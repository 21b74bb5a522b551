"""Queries on API keys, and on what a key used within the last minute."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, func, insert, or_, select, text, update

from engine.ledger import LIMITED
from engine.store.database import Row, Tx
from engine.store.partial_index import UNSETTLED
from engine.store.statements import Statement, one_of
from engine.store.tables import api_keys, requests

_INSERT = Statement(insert(api_keys), columns=tuple(column.name for column in api_keys.c))
_BY_HASH = Statement(select(api_keys).where(api_keys.c.hash == bindparam("hash")))
_GET = Statement(select(api_keys).where(api_keys.c.id == bindparam("key")))
_LOCK = Statement(select(api_keys.c.id).where(api_keys.c.id == bindparam("key")).with_for_update())
_FIND = Statement(
    select(api_keys)
    .where(or_(api_keys.c.id == bindparam("told"), api_keys.c.name == bindparam("told")))
    .order_by(api_keys.c.id)
)
_ANY = Statement(select(api_keys.c.id).where(api_keys.c.revoked_us.is_(None)).limit(1))
_NAMES = Statement(select(api_keys.c.id, api_keys.c.name))
_LIST = Statement(
    select(api_keys)
    .where(or_(bindparam("before") == "", api_keys.c.id < bindparam("before")))
    .order_by(api_keys.c.id.desc())
    .limit(bindparam("most"))
)
_REVOKE = Statement(
    update(api_keys)
    .where(api_keys.c.id == bindparam("key"), api_keys.c.revoked_us.is_(None))
    .values(revoked_us=bindparam("now"))
)
_OF_MODELS = one_of(requests.c.kind, LIMITED)
_LATELY = (requests.c.key_id == bindparam("key"), requests.c.started_us > bindparam("since"), _OF_MODELS)
_REQUESTS_LATELY = Statement(
    select(
        func.count(requests.c.request_id.distinct()).label("number"), func.min(requests.c.started_us).label("first_us")
    ).where(*_LATELY, requests.c.request_id != bindparam("own"))
)
_TOKENS_LATELY = Statement(
    select(
        func.coalesce(
            func.sum(func.coalesce(requests.c.total_tokens, requests.c.reserved_tokens, 0)),
            0,
        ).label("number"),
        func.min(requests.c.started_us).label("first_us"),
    ).where(*_LATELY)
)
_IN_FLIGHT = Statement(
    select(func.count().label("number")).where(
        text(UNSETTLED),
        requests.c.status == "started",
        func.coalesce(requests.c.key_id, "") == bindparam("key"),  # or SQLite would look through all calls of the key
        requests.c.started_us > bindparam("since"),
        _OF_MODELS,
    )
)


def insert_key(tx: Tx, row: Mapping[str, Any]) -> None:
    """Store a new key."""
    tx.run(_INSERT, row)


def key_by_hash(tx: Tx, digest: str) -> Row | None:
    """The key whose secret has this SHA-256."""
    return tx.one(_BY_HASH, {"hash": digest})


def get_key(tx: Tx, key_id: str) -> Row | None:
    """One key."""
    return tx.one(_GET, {"key": key_id})


def lock_key(tx: Tx, key_id: str) -> None:
    """One writer at a time goes on with this key's limits."""
    if tx.dialect != "sqlite":  # where every transaction that writes is alone already
        tx.one(_LOCK, {"key": key_id})


def find_keys(tx: Tx, told: str) -> list[Row]:
    """The keys of that id or name."""
    return tx.all(_FIND, {"told": told})


def any_key(tx: Tx) -> bool:
    """Whether there is a key that holds."""
    return tx.one(_ANY) is not None


def list_keys(tx: Tx, before: str | None, most: int) -> list[Row]:
    """Newest first, revoked ones too."""
    return tx.all(_LIST, {"before": before or "", "most": most})


def key_names(tx: Tx) -> dict[str, str]:
    """The names of all keys by their ids, revoked ones too."""
    return {row["id"]: row["name"] for row in tx.all(_NAMES)}


def revoke_key(tx: Tx, key_id: str, now: int) -> None:
    """The key holds no longer. Safe to repeat: the first time stands."""
    tx.run(_REVOKE, {"key": key_id, "now": now})


def requests_lately(tx: Tx, key_id: str, since_us: int, own: str) -> tuple[int, int | None]:
    """How many client requests or step attempts but `own` made calls with the key, and when the first of those calls began."""
    return _number(tx.one(_REQUESTS_LATELY, {"key": key_id, "since": since_us, "own": own}))


def tokens_lately(tx: Tx, key_id: str, since_us: int) -> tuple[int, int | None]:
    """Tokens of the key's calls, those that are not known yet at their worst case, and when the first of those calls began."""
    return _number(tx.one(_TOKENS_LATELY, {"key": key_id, "since": since_us}))


def in_flight(tx: Tx, key_id: str, since_us: int) -> int:
    """The key's calls that go on at this moment."""
    row = tx.one(_IN_FLIGHT, {"key": key_id, "since": since_us})
    return 0 if row is None else int(row["number"])


def _number(row: Row | None) -> tuple[int, int | None]:
    assert row is not None
    return int(row["number"]), row["first_us"]
