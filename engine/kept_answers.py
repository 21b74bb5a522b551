"""Answers by Idempotency-Key: the same request again is answered from here, and its upstream is called once.

A request first claims its key. What it came to is kept under the claim before the last byte is sent, or the claim is given up.
A claim belongs to one process and ends with it, so that a crash in the middle leaves the key usable again. Keys are the
caller's own: two API keys never share one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import Conflict
from engine.store.database import Tx
from engine.store.json_text import dumps, loads
from engine.store.kept_answers import forget_expired, insert_claim, keep, kept_answer, release
from engine.store.locks import lock_name

LIFETIME_S = 86_400
LONGEST_ANSWER_S = 3_600  # a claim that is older belongs to nobody any more
MOST_BYTES = 4 * 1024 * 1024
_FORGOTTEN_AT_ONCE = 20

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Claim:
    """A request that came with an Idempotency-Key. `owner` is the process (a row of `workers`) that answers it."""

    digest: str
    fingerprint: str
    owner: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Mine:
    """The key is this request's to answer."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """The answer that the key already has. `body` None: it was too large to be kept."""

    request_id: str
    status: int
    headers: Headers
    body: bytes | None


@dataclass(frozen=True, slots=True)
class UnderWay:
    """Another request holds the key. `owner` and `host` say which process answers it."""

    owner: str
    host: str


def digest_of(key_id: str | None, idempotency_key: str) -> str:
    """What a key of a caller is found by."""
    return hashlib.sha256(dumps([key_id, idempotency_key]).encode()).hexdigest()


def claim(tx: Tx, asked: Claim, now: int, dead: str | None = None) -> Mine | KeptAnswer | UnderWay | Conflict:
    """Take the key, or say what is there. A claim of the process `dead` does not count. Safe to repeat.

    A refusal is returned: it has nothing to undo, and a member that fails costs its whole commit group.
    """
    tx.point("claim_answer")
    lock_name(tx, f"answer:{asked.digest}")
    row = kept_answer(tx, asked.digest)
    if row is not None and row["expires_us"] > now and row["request_id"] != asked.request_id:
        if row["fingerprint"] != asked.fingerprint:
            message = "this Idempotency-Key was used for another request"
            return Conflict("idempotency_key_reused", message, param="Idempotency-Key")
        if row["status_code"] is not None:
            body = None if row["body"] is None else row["body"].encode()
            headers = [(name, value) for name, value in loads(row["headers_json"])]
            return KeptAnswer(row["request_id"], row["status_code"], headers, body)
        lives = row["lease_until_us"] is not None and row["lease_until_us"] > now and row["owner"] != dead
        if lives and row["created_us"] > now - LONGEST_ANSWER_S * 1_000_000:
            return UnderWay(row["owner"], row["host"])
    values = {"digest": asked.digest, "fingerprint": asked.fingerprint, "owner": asked.owner}
    expires_us = now + LIFETIME_S * 1_000_000
    insert_claim(tx, {**values, "request_id": asked.request_id, "created_us": now, "expires_us": expires_us})
    forget_expired(tx, now, _FORGOTTEN_AT_ONCE)
    return Mine()


def keep_answer(tx: Tx, claim: Claim, status: int, headers: Headers, body: bytes | None, now: int) -> None:
    """Keep the answer for a day; one without a body is remembered as too large. Safe to repeat."""
    tx.point("keep_answer")
    text = None if body is None else body.decode()
    answer = {"status": status, "headers": dumps([list(header) for header in headers]), "text": text}
    keep(tx, claim.digest, claim.request_id, {**answer, "until": now + LIFETIME_S * 1_000_000})


def release_answer(tx: Tx, claim: Claim) -> None:
    """Give the key up: what came of the request is nothing to be kept. Safe to repeat."""
    tx.point("release_answer")
    release(tx, claim.digest, claim.request_id)
