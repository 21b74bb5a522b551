"""Living processes and their leases: one row each, so that one statement renews all steps of a process."""

from sqlalchemy import bindparam, delete, func, insert, select, update

from engine.store.database import Row, Tx
from engine.store.statements import Statement
from engine.store.tables import workers

_INSERT = Statement(insert(workers), columns=tuple(column.name for column in workers.c))
_RENEW = Statement(update(workers).where(workers.c.id == bindparam("worker")).values(lease_until_us=bindparam("until")))
_ALL = Statement(select(workers))
_LIVE = Statement(select(workers).where(workers.c.lease_until_us >= bindparam("now")))
_COUNT = Statement(
    select(func.count().label("number")).where(workers.c.kind == "worker", workers.c.lease_until_us >= bindparam("now"))
)
_LOCK = Statement(select(workers).where(workers.c.id == bindparam("worker")).with_for_update())
_DELETE = Statement(delete(workers).where(workers.c.id == bindparam("worker")))


def insert_worker(tx: Tx, row: Row) -> None:
    """A process begins."""
    tx.point("insert_worker")
    tx.run(_INSERT, row)


def renew_lease(tx: Tx, worker_id: str, until_us: int) -> bool:
    """Extend the lease of all the process's steps; False where it has been declared dead."""
    tx.point("renew_lease")
    return tx.run(_RENEW, {"worker": worker_id, "until": until_us}) == 1


def all_workers(tx: Tx) -> list[Row]:
    """All processes that nobody has buried yet."""
    return tx.all(_ALL)


def live_workers(tx: Tx, now: int) -> list[Row]:
    """All processes whose lease holds."""
    return tx.all(_LIVE, {"now": now})


def count_workers(tx: Tx, now: int) -> int:
    """Number of worker processes whose lease holds."""
    row = tx.one(_COUNT, {"now": now})
    return 0 if row is None else int(row["number"])


def lock_worker(tx: Tx, worker_id: str) -> Row | None:
    """The process's row, locked."""
    return tx.one(_LOCK, {"worker": worker_id})


def delete_worker(tx: Tx, worker_id: str) -> None:
    """The process has ended."""
    tx.run(_DELETE, {"worker": worker_id})
