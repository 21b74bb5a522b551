"""Whole chat answers that are used again: exactly the same request, by the same API key, within the time that was told.

A hit is a row of the ledger like every call, free, with `cost_source` cached and what it saved. The cache is bounded in number and
bytes; what has expired, or expires first where it is full, is deleted a few rows at a time by those who add to it.
"""

from dataclasses import dataclass
from typing import Any

from engine.admission import admit, settle_call
from engine.errors import AIGatewayError
from engine.ledger import CostSource, Intent, Settlement
from engine.store.cached_answers import (
    cache_size,
    cached_answer,
    forget_expired,
    forget_oldest,
    replace_cached_answer,
    set_saved,
)
from engine.store.database import Tx
from engine.store.json_text import dumps, loads
from engine.store.locks import lock_name
from engine.store.requests import open_request

MOST_ENTRIES = 10_000
MOST_BYTES = 256 * 1024 * 1024
MOST_ENTRY_BYTES = 1024 * 1024
_FORGOTTEN_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """An answer as its dialect needs it again. `cost_picousd` is what it cost when it was paid for, None where unknown."""

    answer: Any
    provider: str
    model: str
    cost_picousd: int | None
    created_us: int


def recall_answer(tx: Tx, digest: str, now: int) -> CachedAnswer | None:
    """The answer to that request, where it is still good."""
    row = cached_answer(tx, digest, now)
    if row is None:
        return None
    return CachedAnswer(
        loads(row["answer_json"]), row["provider"], row["model"], row["cost_picousd"], row["created_us"]
    )


def remember_answer(tx: Tx, digest: str, entry: CachedAnswer, lifetime_s: float, now: int) -> None:
    """Keep an answer; one that is too large is not kept. Safe to repeat."""
    text = dumps(entry.answer)
    if len(text) > MOST_ENTRY_BYTES:
        return
    tx.point("remember_answer")
    lock_name(tx, f"cache:{digest}")
    row = {
        "digest": digest,
        "answer_json": text,
        "provider": entry.provider,
        "model": entry.model,
        "cost_picousd": entry.cost_picousd,
        "size_bytes": len(text),
        "created_us": entry.created_us,
        "expires_us": now + int(lifetime_s * 1_000_000),
    }
    replace_cached_answer(tx, row)
    forget_expired(tx, now, _FORGOTTEN_AT_ONCE)
    entries, size = cache_size(tx)
    if entries > MOST_ENTRIES or size > MOST_BYTES:
        forget_oldest(tx, digest, _FORGOTTEN_AT_ONCE)


def book_hit(tx: Tx, intent: Intent, entry: CachedAnswer, worker_id: str, now: int) -> AIGatewayError | None:
    """Write the row of a call that need not be made; returned is why the caller may not have the answer. Safe to repeat."""
    refused = admit(tx, intent).refused
    if refused is not None:
        return refused
    open_request(tx, intent, worker_id)
    done = Settlement(
        id=intent.id,
        success=True,
        usage=None,
        cost_picousd=0,
        cost_source=CostSource.CACHED,
        finished_us=now,
        latency_us=max(0, now - intent.at_us),
    )
    settle_call(tx, done)
    set_saved(tx, intent.id, entry.cost_picousd)
    return None
