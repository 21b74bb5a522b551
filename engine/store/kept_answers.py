"""Queries on answers that are kept under the Idempotency-Key of their request."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update

from engine.store.database import Row, Tx
from engine.store.statements import Statement
from engine.store.tables import kept_answers, workers

_GET = Statement(
    select(kept_answers, workers.c.host, workers.c.lease_until_us)
    .select_from(kept_answers.outerjoin(workers, workers.c.id == kept_answers.c.owner))
    .where(kept_answers.c.digest == bindparam("digest"))
)
_INSERT = Statement(
    insert(kept_answers),
    columns=("digest", "fingerprint", "owner", "request_id", "created_us", "expires_us"),
)
_FORGET = Statement(delete(kept_answers).where(kept_answers.c.digest == bindparam("digest")))
_OWN = (
    kept_answers.c.digest == bindparam("claimed"),
    kept_answers.c.request_id == bindparam("request"),
    kept_answers.c.status_code.is_(None),
)
_KEEP = Statement(
    update(kept_answers)
    .where(*_OWN)
    .values(
        status_code=bindparam("status"),
        headers_json=bindparam("headers"),
        body=bindparam("text"),
        expires_us=bindparam("until"),
    )
)
_RELEASE = Statement(delete(kept_answers).where(*_OWN))
_expired = (
    select(kept_answers.c.digest)
    .where(kept_answers.c.expires_us <= bindparam("now"))
    .order_by(kept_answers.c.expires_us)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_FORGET_EXPIRED = Statement(delete(kept_answers).where(kept_answers.c.digest.in_(_expired)))


def kept_answer(tx: Tx, digest: str) -> Row | None:
    """The row, with `host` and `lease_until_us` of the process that owns it: null where that is no more among the living."""
    return tx.one(_GET, {"digest": digest})


def insert_claim(tx: Tx, row: Mapping[str, Any]) -> None:
    """A request that is under way, in place of whatever was there."""
    tx.run(_FORGET, {"digest": row["digest"]})
    tx.run(_INSERT, row)


def keep(tx: Tx, digest: str, request_id: str, answer: Mapping[str, Any]) -> None:
    """The answer (`status`, `headers`, `text`, `until`) to the request that holds the claim."""
    tx.run(_KEEP, {"claimed": digest, "request": request_id, **answer})


def release(tx: Tx, digest: str, request_id: str) -> None:
    """Give the claim of a request up."""
    tx.run(_RELEASE, {"claimed": digest, "request": request_id})


def forget_expired(tx: Tx, now: int, most: int) -> int:
    """Delete answers that have expired, the oldest first; returns how many."""
    return tx.run(_FORGET_EXPIRED, {"now": now, "most": most})
