"""Sums over the whole ledger by provider, model and workflow, for metrics. Right at every moment, cheap at every size.

A call that succeeded or failed never changes again, so its share is added up once and kept in `Folded`, which a process
remembers from one reading to the next. Only calls of the last minute, and older ones that were open at the last reading,
are read again. A late settlement is found through the ids of the open calls; a row that another host's slow clock put
among those already added up is found by counting, and everything is then read anew. Rows that are deleted leave their sums
behind (`keep_sums`), so that no process ever tells less than another did before.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Integer, bindparam, case, func, literal_column, null, select, text

from engine.ledger import CostSource
from engine.store.call_sums import PRUNED_COUNTS, PRUNED_TIMES
from engine.store.database import Row, Tx
from engine.store.statements import Statement, one_of
from engine.store.tables import pruned_calls, requests

Labels = tuple[str, str, str]
"""Provider, model and workflow; the workflow of a call outside workflows is empty."""

BUCKETS_MS = (50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000)
MOST_LABELS = 200
OTHER: Labels = ("other", "other", "other")

_SETTLING_US = 60_000_000  # a row is committed within it after its id was made: six times the longest wait for a lock
_AT_ONCE = 200
_NO_ID = ""
_LAST_ID = "g"  # behind every hexadecimal id
_SETTLED = ("succeeded", "failed")
_OPEN = ("started", "unknown")


@dataclass(slots=True)
class Totals:
    """What the calls of one label set add up to. `latency` and `ttft` count calls by bucket, the last one unbounded."""

    calls: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])  # by status and error class
    cost_picousd: int = 0
    unknown_price: int = 0
    tokens: dict[str, int] = field(default_factory=dict[str, int])
    latency: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_MS) + 1))
    latency_ms: float = 0.0
    ttft: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_MS) + 1))
    ttft_ms: float = 0.0
    open: dict[str, int] = field(default_factory=dict[str, int])  # by status: started, unknown

    def copy(self) -> "Totals":
        """The same figures, to be added to."""
        own = {"calls": {**self.calls}, "tokens": {**self.tokens}, "open": {**self.open}}
        return replace(self, **own, latency=self.latency[:], ttft=self.ttft[:])

    def add(self, row: Row) -> None:
        """One group of settled calls."""
        number = int(row["calls"])
        outcome = (row["status"], row["error_class"] or "")
        self.calls[outcome] = self.calls.get(outcome, 0) + number
        self.cost_picousd += int(row["cost_picousd"])
        self.unknown_price += int(row["unknown_price"])
        for kind in ("input", "cache_read", "cache_write", "output"):
            self.tokens[kind] = self.tokens.get(kind, 0) + int(row[kind])
        self.latency[row["latency_bucket"]] += number
        self.latency_ms += row["latency_ms"]
        if row["ttft_bucket"] is not None:
            self.ttft[row["ttft_bucket"]] += number
            self.ttft_ms += row["ttft_ms"]


@dataclass(frozen=True, slots=True)
class Folded:
    """What is added up for good: all settled calls up to an id. `open_ids` are the calls before it that can still change."""

    upto: str = _NO_ID
    totals: Mapping[Labels, Totals] = field(default_factory=dict[Labels, Totals])
    open_ids: frozenset[str] = frozenset()
    rows: int = 0
    named: frozenset[Labels] = frozenset()  # label sets shown by name; one that is shown stays, or a counter would fall


def read_totals(tx: Tx, folded: Folded, now: int) -> tuple[Folded, dict[Labels, Totals]]:
    """The sums at this moment of the database, and what to hand in next time; the first time with `Folded()`.

    At most MOST_LABELS label sets have a name, the biggest ones first; what others spend is booked under OTHER.
    """
    there = _rows_upto(tx, folded.upto)
    if there > folded.rows:
        folded = Folded(named=folded.named)
    elif there < folded.rows:  # some were deleted; what they added stays
        folded = replace(folded, rows=there)
    kept_sums = [] if folded.upto else _kept_sums(tx)
    upto = max(folded.upto, _first_id_at(now - _SETTLING_US))
    settled, waiting = _settled(tx, folded.upto, upto), _open(tx, folded.upto, upto)
    rows = folded.rows + len(waiting) + sum(int(row["calls"]) for row in settled)
    settled += _settled_of(tx, folded.open_ids)
    waiting += _open_of(tx, folded.open_ids)
    recent, in_flight = _settled(tx, upto, _LAST_ID), _open(tx, upto, _LAST_ID)
    named = folded.named | _biggest([*kept_sums, *settled, *recent, *waiting, *in_flight], folded.named)
    kept = _sum_up(folded.totals, [*kept_sums, *settled], named)
    totals = _sum_up(kept, recent, named)
    for row in (*waiting, *in_flight):
        found = totals.setdefault(_shown(row, named), Totals())
        found.open[row["status"]] = found.open.get(row["status"], 0) + 1
    return Folded(upto, kept, frozenset(row["id"] for row in waiting), rows, named), totals


def keep_sums(tx: Tx, ids: Sequence[str]) -> None:
    """Add what these calls come to to the sums of deleted ones; to be called in the transaction that deletes them."""
    for row in _settled_of(tx, frozenset(ids)):
        own = {"workflow_name": row["workflow_name"] or "", "error_class": row["error_class"] or ""}
        tx.run(_KEEP, {**row, **own, "ttft_bucket": -1 if row["ttft_bucket"] is None else row["ttft_bucket"]})


def _kept_sums(tx: Tx) -> list[Row]:
    return [row | {"ttft_bucket": None} if row["ttft_bucket"] < 0 else row for row in tx.all(_KEPT)]


def _number(value: int) -> ColumnElement[int]:
    return literal_column(str(value), Integer)


def _bucket(column: ColumnElement[Any]) -> ColumnElement[Any]:
    edges = [(column <= _number(edge), _number(at)) for at, edge in enumerate(BUCKETS_MS)]
    return case((column.is_(None), null()), *edges, else_=_number(len(BUCKETS_MS)))


_LABELS = (requests.c.provider, requests.c.model, requests.c.workflow_name)
_KEYS = (
    *_LABELS,
    requests.c.status,
    requests.c.error_class,
    _bucket(func.coalesce(requests.c.latency_ms, 0)).label("latency_bucket"),
    _bucket(requests.c.ttft_ms).label("ttft_bucket"),
)


def _sum(column: ColumnElement[Any], name: str) -> ColumnElement[Any]:
    return func.coalesce(func.sum(column), 0).label(name)


_cached = func.coalesce(requests.c.cached_tokens, 0) + func.coalesce(requests.c.cache_write_tokens, 0)
_GROUPS = (
    select(
        *_KEYS,
        func.count().label("calls"),
        _sum(requests.c.cost_picousd, "cost_picousd"),
        _sum(case((requests.c.cost_source == CostSource.UNKNOWN.value, 1), else_=0), "unknown_price"),
        _sum(requests.c.prompt_tokens - _cached, "input"),
        _sum(requests.c.cached_tokens, "cache_read"),
        _sum(requests.c.cache_write_tokens, "cache_write"),
        _sum(requests.c.completion_tokens, "output"),
        _sum(requests.c.latency_ms, "latency_ms"),
        _sum(requests.c.ttft_ms, "ttft_ms"),
    )
    .where(one_of(requests.c.status, _SETTLED))
    .group_by(*_KEYS)
)
_ROWS = select(requests.c.id, *_LABELS, requests.c.status).where(one_of(requests.c.status, _OPEN))
_BETWEEN = (requests.c.id > bindparam("after"), requests.c.id <= bindparam("upto"))
_AMONG = requests.c.id.in_([bindparam(f"id{number}") for number in range(_AT_ONCE)])
_SETTLED_BETWEEN = Statement(_GROUPS.where(*_BETWEEN))
_SETTLED_AMONG = Statement(_GROUPS.where(_AMONG))
_OPEN_BETWEEN = Statement(_ROWS.where(*_BETWEEN))
_OPEN_AMONG = Statement(_ROWS.where(_AMONG))
_COUNT = Statement(select(func.count().label("number")).where(requests.c.id <= bindparam("upto")))


_SUMS = (
    "calls",
    "cost_picousd",
    "unknown_price",
    "input",
    "cache_read",
    "cache_write",
    "output",
    "latency_ms",
    "ttft_ms",
)
_COLUMNS = [column.name for column in pruned_calls.c]
_KEPT = Statement(select(pruned_calls))
_KEEP = Statement(
    text(
        f"INSERT INTO pruned_calls ({', '.join(_COLUMNS)}) VALUES ({', '.join(f':{name}' for name in _COLUMNS)})"
        f" ON CONFLICT ({', '.join(column.name for column in pruned_calls.primary_key)})"
        f" DO UPDATE SET {', '.join(f'{name} = pruned_calls.{name} + excluded.{name}' for name in (*PRUNED_COUNTS, *PRUNED_TIMES))}"
    )
)


def _rows_upto(tx: Tx, upto: str) -> int:
    found = tx.one(_COUNT, {"upto": upto}) if upto else None
    return 0 if found is None else int(found["number"])


def _settled(tx: Tx, after: str, upto: str) -> list[Row]:
    return tx.all(_SETTLED_BETWEEN, {"after": after, "upto": upto})


def _open(tx: Tx, after: str, upto: str) -> list[Row]:
    return tx.all(_OPEN_BETWEEN, {"after": after, "upto": upto})


def _settled_of(tx: Tx, ids: Set[str]) -> list[Row]:
    return [row for some in _batches(ids) for row in tx.all(_SETTLED_AMONG, some)]


def _open_of(tx: Tx, ids: Set[str]) -> list[Row]:
    return [row for some in _batches(ids) for row in tx.all(_OPEN_AMONG, some)]


def _batches(ids: Set[str]) -> Iterable[dict[str, str]]:
    ordered = sorted(ids)
    for start in range(0, len(ordered), _AT_ONCE):
        some = ordered[start : start + _AT_ONCE]
        some += [_NO_ID] * (_AT_ONCE - len(some))
        yield {f"id{number}": one for number, one in enumerate(some)}


def _labels(row: Row) -> Labels:
    return row["provider"], row["model"], row["workflow_name"] or ""


def _shown(row: Row, named: Set[Labels]) -> Labels:
    labels = _labels(row)
    return labels if labels in named else OTHER


def _sum_up(totals: Mapping[Labels, Totals], rows: Sequence[Row], named: Set[Labels]) -> dict[Labels, Totals]:
    sums = {labels: found.copy() for labels, found in totals.items()}
    for row in rows:
        sums.setdefault(_shown(row, named), Totals()).add(row)
    return sums


def _biggest(rows: Sequence[Row], named: Set[Labels]) -> frozenset[Labels]:
    """The new label sets that still find a place, those with the most calls first."""
    sizes: dict[Labels, int] = {}
    for row in rows:
        labels = _labels(row)
        if labels not in named:
            sizes[labels] = sizes.get(labels, 0) + int(row.get("calls", 1))
    ranked = sorted(sizes, key=lambda labels: (-sizes[labels], labels))
    return frozenset(ranked[: MOST_LABELS - len(named)])


def _first_id_at(at_us: int) -> str:
    """An id before every UUIDv7 that was made at that moment or later."""
    text = f"{max(0, at_us // 1000):012x}"
    return f"{text[:8]}-{text[8:]}-0000-0000-000000000000"
