"""Queries on answers that are used again: by what was asked, within the time that was told."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from engine.store.database import Row, Tx
from engine.store.statements import Statement
from engine.store.tables import cached_answers, requests

_GET = Statement(
    select(cached_answers).where(
        cached_answers.c.digest == bindparam("digest"), cached_answers.c.expires_us > bindparam("now")
    )
)
_FORGET = Statement(delete(cached_answers).where(cached_answers.c.digest == bindparam("digest")))
_INSERT = Statement(insert(cached_answers), columns=tuple(column.name for column in cached_answers.c))
_SIZE = Statement(
    select(
        func.count().label("entries"), func.coalesce(func.sum(cached_answers.c.size_bytes), 0).label("bytes")
    ).select_from(cached_answers)
)
_expired = (
    select(cached_answers.c.digest)
    .where(cached_answers.c.expires_us <= bindparam("now"))
    .order_by(cached_answers.c.expires_us)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_oldest = (
    select(cached_answers.c.digest)
    .where(cached_answers.c.digest != bindparam("but"))
    .order_by(cached_answers.c.expires_us)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_FORGET_EXPIRED = Statement(delete(cached_answers).where(cached_answers.c.digest.in_(_expired)))
_FORGET_OLDEST = Statement(delete(cached_answers).where(cached_answers.c.digest.in_(_oldest)))
_SAVED = Statement(update(requests).where(requests.c.id == bindparam("call")).values(saved_picousd=bindparam("saved")))


def cached_answer(tx: Tx, digest: str, now: int) -> Row | None:
    """An answer that has not expired."""
    return tx.one(_GET, {"digest": digest, "now": now})


def replace_cached_answer(tx: Tx, row: Mapping[str, Any]) -> None:
    """Keep an answer in place of an older one."""
    tx.run(_FORGET, {"digest": row["digest"]})
    tx.run(_INSERT, row)


def cache_size(tx: Tx) -> tuple[int, int]:
    """How many answers are kept, and their bytes."""
    row = tx.one(_SIZE)
    assert row is not None
    return int(row["entries"]), int(row["bytes"])


def forget_expired(tx: Tx, now: int, most: int) -> int:
    """Delete answers that have expired; returns how many."""
    return tx.run(_FORGET_EXPIRED, {"now": now, "most": most})


def forget_oldest(tx: Tx, but: str, most: int) -> int:
    """Delete the answers that expire first, one excepted; returns how many."""
    return tx.run(_FORGET_OLDEST, {"but": but, "most": most})


def set_saved(tx: Tx, call_id: str, saved_picousd: int | None) -> None:
    """What the row of a call that was not made would have cost."""
    tx.run(_SAVED, {"call": call_id, "saved": saved_picousd})
