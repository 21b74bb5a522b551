"""Queries on outgoing webhooks and their tries."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Integer, String, and_, bindparam, func, insert, not_, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from engine.store.database import Row, Tx
from engine.store.statements import Statement
from engine.store.tables import deliveries, delivery_attempts

_INSERT = Statement(insert(deliveries), columns=tuple(column.name for column in deliveries.c))
_GET = Statement(select(deliveries).where(deliveries.c.id == bindparam("delivery")))
_OF_RUN = Statement(select(deliveries).where(deliveries.c.run_id == bindparam("run")).order_by(deliveries.c.id))
_earlier = deliveries.alias("earlier")
MOST_BUSY = 10  # receivers that one look can leave out


def _not_to(name: str) -> ColumnElement[bool]:
    """An empty name leaves out nothing."""
    receiver = bindparam(name, type_=String)
    behind = func.substr(deliveries.c.url + "/", func.length(receiver) + 1, 1)
    ends = or_(*(behind == mark for mark in "/?#"))
    return not_(and_(func.substr(deliveries.c.url, 1, func.length(receiver)) == receiver, ends))


_DUE = Statement(
    select(deliveries)
    .where(
        deliveries.c.status == "pending",
        deliveries.c.next_attempt_us <= bindparam("now"),
        *(_not_to(f"busy{number}") for number in range(MOST_BUSY)),
        # In order per run: a delivery waits for the ones before it.
        ~select(_earlier.c.id)
        .where(
            and_(
                _earlier.c.run_id == deliveries.c.run_id,
                _earlier.c.id < deliveries.c.id,
                _earlier.c.status == "pending",
            )
        )
        .exists(),
    )
    .order_by(deliveries.c.next_attempt_us)
    .limit(bindparam("most"))
)
_number = bindparam("number", type_=Integer)
# Taking a delivery moves its next try behind this one's time limit, should nobody see its process die. Safe to repeat.
_TAKE = Statement(
    update(deliveries)
    .where(
        deliveries.c.id == bindparam("delivery"),
        deliveries.c.status == "pending",
        or_(
            and_(deliveries.c.next_attempt_us == bindparam("seen"), deliveries.c.tries == _number - 1),
            and_(deliveries.c.worker_id == bindparam("worker"), deliveries.c.tries == _number),
        ),
    )
    .values(next_attempt_us=bindparam("until"), tries=_number, worker_id=bindparam("worker"))
)
_GIVE_BACK = Statement(
    update(deliveries)
    .where(deliveries.c.worker_id == bindparam("worker"), deliveries.c.status == "pending")
    .values(next_attempt_us=bindparam("now"), worker_id=None)
)
_TRY_COLUMNS = ("delivery_id", "number", "at_us", "status_code", "error")
_RECORD = {
    "sqlite": Statement(sqlite.insert(delivery_attempts).on_conflict_do_nothing(), columns=_TRY_COLUMNS),
    "postgresql": Statement(postgresql.insert(delivery_attempts).on_conflict_do_nothing(), columns=_TRY_COLUMNS),
}
_SETTLED: dict[str, Any] = {
    "status": bindparam("status"),
    "next_attempt_us": bindparam("next"),
    "finished_us": bindparam("finished"),
    "worker_id": None,
}
_SETTLE = Statement(update(deliveries).where(deliveries.c.id == bindparam("delivery")).values(**_SETTLED))
# Not where it was delivered or taken once more since that try began: by a process that was believed dead.
_SETTLE_FAILED = Statement(
    update(deliveries)
    .where(
        deliveries.c.id == bindparam("delivery"),
        deliveries.c.status == "pending",
        deliveries.c.tries == bindparam("number"),
    )
    .values(**_SETTLED)
)
_RECORDED_TRIES = Statement(
    select(func.count().label("number")).where(delivery_attempts.c.delivery_id == bindparam("delivery"))
)
_ATTEMPTS = Statement(
    select(delivery_attempts)
    .select_from(delivery_attempts.join(deliveries, deliveries.c.id == delivery_attempts.c.delivery_id))
    .where(deliveries.c.run_id == bindparam("run"))
    .order_by(delivery_attempts.c.delivery_id, delivery_attempts.c.number)
)

_last = delivery_attempts.alias("last")
_LIST = Statement(
    select(deliveries, _last.c.status_code, _last.c.error, _last.c.number)
    .select_from(
        deliveries.outerjoin(
            _last,
            and_(
                _last.c.delivery_id == deliveries.c.id,
                _last.c.number
                == select(func.max(delivery_attempts.c.number))
                .where(delivery_attempts.c.delivery_id == deliveries.c.id)
                .scalar_subquery(),
            ),
        )
    )
    .where(
        or_(bindparam("status") == "", deliveries.c.status == bindparam("status")),
        or_(bindparam("before") == "", deliveries.c.id < bindparam("before")),
    )
    .order_by(deliveries.c.id.desc())
    .limit(bindparam("most"))
)


def insert_delivery(tx: Tx, row: Mapping[str, Any]) -> None:
    """A webhook to be sent."""
    tx.send(_INSERT, row)


def get_delivery(tx: Tx, delivery_id: str) -> Row | None:
    """One delivery."""
    return tx.one(_GET, {"delivery": delivery_id})


def deliveries_of_run(tx: Tx, run_id: str) -> list[Row]:
    """A run's deliveries in order."""
    return tx.all(_OF_RUN, {"run": run_id})


def attempts_of_deliveries(tx: Tx, run_id: str) -> list[Row]:
    """All tries of a run's deliveries."""
    return tx.all(_ATTEMPTS, {"run": run_id})


def list_deliveries(tx: Tx, status: str, before: str, most: int) -> list[Row]:
    """Newest first, with how the last try ended; empty texts do not narrow."""
    return tx.all(_LIST, {"status": status, "before": before, "most": most})


def due_deliveries(tx: Tx, now: int, most: int, busy: Sequence[str] = ()) -> list[Row]:
    """Deliveries whose next try is due, but for those to `busy` receivers (`https://host:port`, at most MOST_BUSY)."""
    names = [*busy, *[""] * (MOST_BUSY - len(busy))]
    return tx.all(_DUE, {"now": now, "most": most} | {f"busy{number}": name for number, name in enumerate(names)})


def take_delivery(tx: Tx, delivery: Row, worker_id: str, until_us: int) -> bool:
    """Take a due delivery for one try of that process; False where another was faster. Safe to repeat."""
    tx.point("take_delivery")
    seen, number = delivery["next_attempt_us"], delivery["tries"] + 1
    taken = {"delivery": delivery["id"], "seen": seen, "number": number, "worker": worker_id, "until": until_us}
    return tx.run(_TAKE, taken) == 1


def give_back_deliveries(tx: Tx, worker_id: str, now: int) -> None:
    """What a process that has ended was sending is due at once."""
    tx.run(_GIVE_BACK, {"worker": worker_id, "now": now})


def record_try(tx: Tx, row: Mapping[str, Any]) -> None:
    """One try: delivery_id, number, at_us, status_code, error. Safe to repeat."""
    tx.send(_RECORD[tx.dialect], row)


def recorded_tries(tx: Tx, delivery_id: str) -> int:
    """How many tries have been recorded; those whose process died are not among them."""
    row = tx.one(_RECORDED_TRIES, {"delivery": delivery_id})
    return 0 if row is None else int(row["number"])


def settle_delivery(tx: Tx, delivery_id: str, status: str, next_us: int | None, finished_us: int | None) -> None:
    """What becomes of a delivery, whoever has it."""
    tx.send(_SETTLE, {"delivery": delivery_id, "status": status, "next": next_us, "finished": finished_us})


def settle_failed_try(tx: Tx, delivery: Row, number: int, next_us: int | None, finished_us: int | None) -> None:
    """What becomes of a delivery after its try of that number failed: tried again at `next_us`, or dead without one."""
    status = "dead" if next_us is None else "pending"
    settled = {"delivery": delivery["id"], "status": status, "next": next_us, "finished": finished_us}
    tx.send(_SETTLE_FAILED, settled | {"number": number})
