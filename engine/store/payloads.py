"""Values of any size: small ones stay in their row, larger ones are stored once by content hash and referenced."""

import hashlib
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from engine.depth import MAX_DEPTH, is_too_deep
from engine.errors import TooLarge
from engine.store.database import Tx
from engine.store.json_text import dumps, loads
from engine.store.statements import Statement
from engine.store.tables import payloads

INLINE_LIMIT = 4096  # characters; beyond it a hot row would grow over its page
VALUE_LIMIT = 16 * 1_048_576  # bytes of JSON; the same for every process, so that none refuses what another took

_COLUMNS = ("digest", "body", "size_bytes", "created_us")
# A value that is there already is locked until the row that names it is committed: retention passes it over. Each transaction locks
# them last and in the order of their digests: two that store the same values in another order do not wait for each other.
_STORED_NOW = postgresql.insert(payloads)
_AGAIN = _STORED_NOW.on_conflict_do_update(
    index_elements=[payloads.c.digest], set_={"created_us": _STORED_NOW.excluded.created_us}
)
_INSERT = {
    "sqlite": Statement(sqlite.insert(payloads).on_conflict_do_nothing(), columns=_COLUMNS),
    "postgresql": Statement(_AGAIN, columns=_COLUMNS),
}
_SELECT = Statement(select(payloads.c.body).where(payloads.c.digest == bindparam("digest")))


class _NewPayloads:
    """What a transaction stores, by digest; one for a transaction."""

    def __init__(self, tx: Tx) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self._tx = tx
        tx.at_end(self.write)

    def write(self) -> None:
        """Behind everything else, in the order of the digests."""
        for digest in sorted(self.rows):
            self._tx.send(_INSERT[self._tx.dialect], self.rows.pop(digest))


def pack(tx: Tx, value: Any, now: int, name: str = "the result") -> tuple[str | None, str | None]:
    """Store a JSON value; returns (text to keep in the row, digest of the payload), one of them None.

    Raises: TooLarge, with nothing stored, which names the value, and its size and the limit or how deep it may be nested.
    """
    try:
        text = dumps(value)
        deep = text.count("[") + text.count("{") > MAX_DEPTH and is_too_deep(value)
    except RecursionError:
        text, deep = "", True
    if deep:
        raise TooLarge("value_too_deep", f"{name} is nested too deeply: {MAX_DEPTH} levels are the limit", param=name)
    if len(text) <= INLINE_LIMIT:
        return text, None
    body = text.encode(errors="surrogatepass")
    if len(body) > VALUE_LIMIT:
        size, most = len(body) / 1_048_576, VALUE_LIMIT // 1_048_576
        raise TooLarge("value_too_large", f"{name} has {size:.1f} MiB, a value may have at most {most}", param=name)
    digest = hashlib.sha256(body).hexdigest()
    row = {"digest": digest, "body": text, "size_bytes": len(body), "created_us": now}
    tx.kept(_NewPayloads).rows.setdefault(digest, row)
    return None, digest


def unpack(tx: Tx, text: str | None, digest: str | None) -> Any:
    """The value that `pack` stored; None where nothing was."""
    if text is not None:
        return loads(text)
    if digest is None:
        return None
    row = tx.kept(_NewPayloads).rows.get(digest) or tx.one(_SELECT, {"digest": digest})
    assert row is not None, "a payload outlives the rows that name it"
    return loads(row["body"])
