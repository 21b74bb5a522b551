"""What is kept and for how long: finished runs with all their rows, ledger rows, results that are not good any more.

Works in short transactions, one after the other, each safe to repeat: whoever dies in between leaves runs that nobody sees and the
next one finishes. What a budget of the current period is summed from is never deleted.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from engine.budgets import current
from engine.periods import Period, span_at
from engine.store.budgets import RESERVED_AT_MOST_US, all_budgets, lock_budget
from engine.store.database import Database, Tx
from engine.store.retention import (
    PARTS,
    count_old,
    count_rows_of,
    delete_old,
    delete_payloads,
    delete_rows_of,
    give_up,
    given_up,
    look_at_payloads,
    old_roots,
    tree_of,
)

ROOTS = 20  # trees of runs that one transaction gives up
RUNS = 20  # runs whose rows one transaction deletes
ROWS = 500  # of each table of a run, and of the ledger, in one transaction
PAYLOADS_SEEN = 2_000
PAYLOADS_DELETED = 100
NOBODY_YET = (0, "")

Counts = Counter[str]


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """Runs that ended before the one, and calls that began before the other, are not kept. Microseconds."""

    runs_us: int
    requests_us: int


async def prune(database: Database, cutoffs: Cutoffs, clock: Callable[[], int]) -> AsyncGenerator[Counts]:
    """Delete what is older; yields after each transaction what it deleted, by table, so that the caller can pause or stop."""
    async for counts in _prune_runs(database, cutoffs.runs_us, clock):
        yield counts
    requests_us = await database.write(lambda tx: ledger_cutoff(tx, cutoffs.requests_us, clock()))
    singles = (("requests", requests_us), ("cached_results", clock()), ("deliveries", cutoffs.runs_us))
    for table, before_us in singles:
        more = True
        while more:
            counts = await database.write(lambda tx, which=table, until=before_us: prune_old(tx, which, until))
            more = counts[table] == ROWS
            yield counts
    async for counts in _prune_payloads(database):
        yield counts


async def count_prunable(database: Database, cutoffs: Cutoffs, now: int) -> Counts:
    """What `prune` would delete, without the large values and the definitions that would go with it. Deletes nothing."""
    counts: Counts = Counter()
    after: tuple[int, str] | None = NOBODY_YET
    while after is not None:
        trees, after = await database.read(lambda tx, behind=after: old_trees(tx, cutoffs.runs_us, behind, lock=False))
        for run_ids in trees:
            counts["runs"] += len(run_ids)
            for run_id in run_ids:
                counts.update(await database.read(lambda tx, one=run_id: count_rows_of(tx, one)))
    requests_us = await database.read(lambda tx: _ledger_bound(tx, cutoffs.requests_us, now))
    for table, before_us in (("requests", requests_us), ("cached_results", now), ("deliveries", cutoffs.runs_us)):
        counts[table] += await database.read(lambda tx, which=table, until=before_us: count_old(tx, which, until))
    return counts


def old_trees(
    tx: Tx, before_us: int, after: tuple[int, str], *, lock: bool
) -> tuple[list[list[str]], tuple[int, str] | None]:
    """Ids of runs that go together, and behind which run to look next; None: that was all. A tree goes as soon as all of it may."""
    roots = old_roots(tx, before_us, after, ROOTS, lock=lock)
    trees: list[list[str]] = []
    for root in roots:
        rows = tree_of(tx, root["id"], lock=lock)
        if all(row["finished_us"] is not None and row["finished_us"] < before_us for row in rows):
            trees.append([row["id"] for row in rows])
    following = (roots[-1]["finished_us"], roots[-1]["id"]) if len(roots) == ROOTS else None
    return trees, following


def give_up_old(tx: Tx, before_us: int, after: tuple[int, str], now: int) -> tuple[int, tuple[int, str] | None]:
    """Give up some old trees of runs; returns how many runs, and behind which to look next."""
    tx.point("give_up_runs")
    trees, following = old_trees(tx, before_us, after, lock=True)
    doomed = [run_id for tree in trees for run_id in tree]
    if doomed:
        give_up(tx, doomed, now)
    return len(doomed), following


def delete_given_up(tx: Tx) -> Counts:
    """One slice of the rows of runs that were given up."""
    tx.point("delete_runs")
    counts: Counts = Counter()
    for run in given_up(tx, RUNS):
        counts.update(delete_rows_of(tx, run, ROWS))
        if counts.total() >= ROWS:
            break
    return counts


def prune_old(tx: Tx, table: str, before_us: int) -> Counts:
    """One slice of the old rows of a table."""
    tx.point("prune_old")
    return Counter(delete_old(tx, table, before_us, ROWS))


def ledger_cutoff(tx: Tx, asked_us: int, now: int) -> int:
    """How far back the ledger has to be kept for the budgets; a sum that is to be taken anew from the rows is taken first."""
    for row in all_budgets(tx):
        locked = lock_budget(tx, row["name"])
        if locked is not None:
            current(tx, locked, now)
    return _ledger_bound(tx, asked_us, now)


def _ledger_bound(tx: Tx, asked_us: int, now: int) -> int:
    """A budget over all time keeps its sum in its own row; only what is reserved still comes from the rows."""
    bounds = [asked_us]
    for row in all_budgets(tx):
        if row["resum_us"] is not None:
            return 0  # set a moment ago: next time
        period = Period(row["period"])
        kept_us = now - RESERVED_AT_MOST_US
        bounds.append(kept_us if period is Period.TOTAL else min(kept_us, span_at(period, row["zone"], now).start_us))
    return min(bounds)


async def _prune_runs(database: Database, before_us: int, clock: Callable[[], int]) -> AsyncGenerator[Counts]:
    after: tuple[int, str] | None = NOBODY_YET
    while after is not None:
        _, after = await database.write(lambda tx, behind=after: give_up_old(tx, before_us, behind, clock()))
        while counts := await database.write(delete_given_up):
            yield counts


async def _prune_payloads(database: Database) -> AsyncGenerator[Counts]:
    """Large values that no row names any more, whatever has become of those that did."""
    after = ""
    while seen := await database.read(lambda tx, behind=after: look_at_payloads(tx, behind, PAYLOADS_SEEN)):
        after = seen[-1]["digest"]
        free = [row["digest"] for row in seen if not row["named"]]
        for first in range(0, len(free), PAYLOADS_DELETED):
            some = free[first : first + PAYLOADS_DELETED]
            yield Counter(payloads=await database.write(lambda tx, these=some: prune_payloads(tx, these)))


def prune_payloads(tx: Tx, digests: list[str]) -> int:
    """Some of the large values that no row names."""
    tx.point("prune_payloads")
    return delete_payloads(tx, digests)


TABLES = (*PARTS[-1:], *PARTS[:-1], "requests", "cached_results", "payloads")
"""What `prune` may delete from, the runs first."""
