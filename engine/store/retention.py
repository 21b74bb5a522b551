"""Deleting what is old, a few rows at a time, so that nobody waits long for the write lock.

A tree of runs (one and those that it started, down to the last) is given up in one statement: from then on nobody sees it. Then its
rows go in slices, the runs' own last. Large values go when no row names them any more: a column whose name ends with `_digest`
names one. Locks on PostgreSQL: runs from the topmost down, as everywhere; rows that somebody holds are passed over.
"""

from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import Column, text

from engine.store.database import Row, Tx
from engine.store.ledger_totals import keep_sums
from engine.store.statements import Statement
from engine.store.tables import metadata

PARTS = (
    "events",
    "attempts",
    "steps",
    "signals",
    "delivery_attempts",
    "deliveries",
    "run_tags",
    "workflow_versions",
    "runs",
)

_OLD_ROOTS = text(
    "SELECT id, finished_us FROM runs WHERE finished_us < :before AND parent_run_id IS NULL AND pruning_us IS NULL"
    " AND (finished_us > :after_us OR (finished_us = :after_us AND id > :after_id))"
    " AND NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.run_id = runs.id AND deliveries.status = 'pending')"
    " ORDER BY finished_us, id LIMIT :most"
)
_TREE = (
    "WITH RECURSIVE tree(id) AS (SELECT runs.id FROM runs WHERE runs.id = :root"
    " UNION ALL SELECT runs.id FROM runs JOIN tree ON runs.parent_run_id = tree.id)"
    " SELECT id, finished_us, pruning_us FROM runs WHERE id IN (SELECT id FROM tree) ORDER BY coalesce(depth, 0), id"
)
_GIVE_UP = Statement(text("UPDATE runs SET pruning_us = :now, idempotency_key = NULL WHERE id = :run"))
_GIVEN_UP = "SELECT id, version_id, version FROM runs WHERE pruning_us IS NOT NULL ORDER BY id LIMIT :most"
_SOME_STEPS = "SELECT id FROM steps WHERE run_id = :run ORDER BY key LIMIT :most"
_PARTS = {
    "events": "DELETE FROM events WHERE run_id = :run AND seq IN"
    " (SELECT seq FROM events WHERE run_id = :run ORDER BY seq LIMIT :most)",
    "attempts": f"DELETE FROM attempts WHERE step_id IN ({_SOME_STEPS})",
    "steps": f"DELETE FROM steps WHERE id IN ({_SOME_STEPS})",
    "signals": "DELETE FROM signals WHERE id IN (SELECT id FROM signals WHERE run_id = :run LIMIT :most)",
    "delivery_attempts": "DELETE FROM delivery_attempts WHERE delivery_id IN"
    " (SELECT id FROM deliveries WHERE run_id = :run ORDER BY id LIMIT :most)",
    "deliveries": "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE run_id = :run ORDER BY id LIMIT :most)",
    "run_tags": "DELETE FROM run_tags WHERE run_id = :run",
    "runs": "DELETE FROM runs WHERE id = :run",
}
_DELETE_PART = {name: Statement(text(sql)) for name, sql in _PARTS.items()}
# A definition that was sent with its run is that run's alone, and that of its forks.
_DELETE_INLINE = Statement(
    text(
        "DELETE FROM workflow_versions WHERE id = :version AND version IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.version_id = :version AND runs.version IS NULL)"
    )
)
_COUNT_PARTS = {
    "events": "SELECT count(*) AS number FROM events WHERE run_id = :run",
    "attempts": "SELECT count(*) AS number FROM attempts JOIN steps ON steps.id = attempts.step_id WHERE run_id = :run",
    "steps": "SELECT count(*) AS number FROM steps WHERE run_id = :run",
    "signals": "SELECT count(*) AS number FROM signals WHERE run_id = :run",
    "delivery_attempts": "SELECT count(*) AS number FROM delivery_attempts"
    " JOIN deliveries ON deliveries.id = delivery_attempts.delivery_id WHERE run_id = :run",
    "deliveries": "SELECT count(*) AS number FROM deliveries WHERE run_id = :run",
    "run_tags": "SELECT count(*) AS number FROM run_tags WHERE run_id = :run",
}
_COUNT_PART = {name: Statement(text(sql)) for name, sql in _COUNT_PARTS.items()}
_LOCKING = {"sqlite": ("", ""), "postgresql": (" FOR UPDATE", " FOR UPDATE SKIP LOCKED")}
# What a kept run's cost is summed from stays with it.
_OLD_REQUESTS = (
    "FROM requests WHERE started_us < :before AND status <> 'started'"
    " AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = requests.run_id)"
)
_OLD_RESULTS = "FROM cached_results WHERE expires_us <= :before"
_OLD_ALERTS = "FROM deliveries WHERE run_id IS NULL AND status <> 'pending' AND finished_us < :before"
_SINGLE = {
    "requests": ("id", _OLD_REQUESTS),
    "cached_results": ("digest", _OLD_RESULTS),
    "deliveries": ("id", _OLD_ALERTS),
}
_DELETE_SINGLE = {
    name: Statement(text(f"DELETE FROM {name} WHERE {key} IN (SELECT {key} {rows} LIMIT :most)"))
    for name, (key, rows) in _SINGLE.items()
}
_OLD_IDS = {
    dialect: Statement(text(f"SELECT id {_OLD_REQUESTS} LIMIT :most{skip}")) for dialect, (_, skip) in _LOCKING.items()
}
_DELETE_CALL = Statement(text("DELETE FROM requests WHERE id = :call"))
_COUNT_SINGLE = {name: Statement(text(f"SELECT count(*) AS number {rows}")) for name, (_, rows) in _SINGLE.items()}
_DELETE_ALERT_TRIES = Statement(
    text(f"DELETE FROM delivery_attempts WHERE delivery_id IN (SELECT id {_OLD_ALERTS} LIMIT :most)")
)


def digest_columns() -> Iterator[Column[str]]:
    """The columns that name a payload."""
    for table in metadata.tables.values():
        yield from (column for column in table.c if column.name.endswith("_digest"))


_NAMED = " OR ".join(
    f"EXISTS (SELECT 1 FROM {column.table.name} WHERE {column.table.name}.{column.name} = payloads.digest)"
    for column in digest_columns()
)
_LOOK = Statement(
    text(
        f"SELECT digest, CASE WHEN {_NAMED} THEN 1 ELSE 0 END AS named FROM payloads WHERE digest > :after"
        " ORDER BY digest LIMIT :most"
    )
)
_LOCK_PAYLOAD = Statement(text("SELECT digest FROM payloads WHERE digest = :digest FOR UPDATE SKIP LOCKED"))
_DELETE_PAYLOAD = Statement(text(f"DELETE FROM payloads WHERE digest = :digest AND NOT ({_NAMED})"))
_LOCK_TREE = {dialect: Statement(text(_TREE + wait)) for dialect, (wait, _) in _LOCKING.items()}
_LOCK_GIVEN_UP = {dialect: Statement(text(_GIVEN_UP + skip)) for dialect, (_, skip) in _LOCKING.items()}
_LOCK_OLD_ROOTS = {dialect: Statement(text(_OLD_ROOTS.text + skip)) for dialect, (_, skip) in _LOCKING.items()}
_READ_TREE = Statement(text(_TREE))
_READ_OLD_ROOTS = Statement(_OLD_ROOTS)


def old_roots(tx: Tx, before_us: int, after: tuple[int, str], most: int, *, lock: bool) -> list[Row]:
    """id, finished_us of runs that no run started, ended before that time, in that order; with nothing left to deliver."""
    statement = _LOCK_OLD_ROOTS[tx.dialect] if lock else _READ_OLD_ROOTS
    return tx.all(statement, {"before": before_us, "after_us": after[0], "after_id": after[1], "most": most})


def tree_of(tx: Tx, root: str, *, lock: bool) -> list[Row]:
    """id, finished_us, pruning_us of a run and of all that it started, the topmost first."""
    return tx.all(_LOCK_TREE[tx.dialect] if lock else _READ_TREE, {"root": root})


def give_up(tx: Tx, run_ids: Sequence[str], now: int) -> None:
    """From now on nobody sees these runs. Safe to repeat."""
    tx.many(_GIVE_UP, [{"run": run_id, "now": now} for run_id in run_ids])


def given_up(tx: Tx, most: int) -> list[Row]:
    """id, version_id, version of runs whose rows are to go, locked; those that somebody else is at are left out."""
    return tx.all(_LOCK_GIVEN_UP[tx.dialect], {"most": most})


def delete_rows_of(tx: Tx, run: Row, most: int) -> dict[str, int]:
    """Delete up to `most` rows of each part of a run, and the run itself where nothing else was left; how many by table."""
    gone = {name: tx.run(_DELETE_PART[name], {"run": run["id"], "most": most}) for name in _PARTS if name != "runs"}
    if all(number < most for number in gone.values()):
        gone["runs"] = tx.run(_DELETE_PART["runs"], {"run": run["id"]})
        gone["workflow_versions"] = 0
        if run["version"] is None:
            gone["workflow_versions"] = tx.run(_DELETE_INLINE, {"version": run["version_id"]})
    return gone


def count_rows_of(tx: Tx, run_id: str) -> dict[str, int]:
    """How many rows a run has, by table."""
    return {name: _number(tx, statement, {"run": run_id}) for name, statement in _COUNT_PART.items()}


def delete_old(tx: Tx, table: str, before_us: int, most: int) -> dict[str, int]:
    """Delete up to `most` old rows that belong to no run: ledger rows, kept results, or alerts that were delivered."""
    told = {"before": before_us, "most": most}
    if table == "requests":
        return {table: _delete_calls(tx, told)}
    tries = {"delivery_attempts": tx.run(_DELETE_ALERT_TRIES, told)} if table == "deliveries" else {}
    return {**tries, table: tx.run(_DELETE_SINGLE[table], told)}


def _delete_calls(tx: Tx, told: Mapping[str, int]) -> int:
    """Ledger rows, whose sums the counters of /metrics go on telling."""
    ids = [str(row["id"]) for row in tx.all(_OLD_IDS[tx.dialect], told)]
    keep_sums(tx, ids)
    tx.many(_DELETE_CALL, [{"call": one} for one in ids])
    return len(ids)


def count_old(tx: Tx, table: str, before_us: int) -> int:
    """How many there are."""
    return _number(tx, _COUNT_SINGLE[table], {"before": before_us})


def look_at_payloads(tx: Tx, after: str, most: int) -> list[Row]:
    """digest, named (whether a row names it) of the payloads behind a digest, in order."""
    return tx.all(_LOOK, {"after": after, "most": most})


def delete_payloads(tx: Tx, digests: Sequence[str]) -> int:
    """Delete those that still no row names.

    On PostgreSQL the payload is locked first: whoever stores the same value meanwhile (`pack` locks it too) has committed the
    row that names it before the next statement looks, or waits and stores it anew.
    """
    gone = 0
    for digest in digests:
        if tx.dialect == "sqlite" or tx.one(_LOCK_PAYLOAD, {"digest": digest}) is not None:
            gone += tx.run(_DELETE_PAYLOAD, {"digest": digest})
    return gone


def _number(tx: Tx, statement: Statement, parameters: Mapping[str, object]) -> int:
    row = tx.one(statement, parameters)
    return 0 if row is None else int(row["number"])
