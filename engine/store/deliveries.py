"""Queries on outgoing webhooks and their tries."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, String, and_, bindparam, func, insert, not_, or_, select, update
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
# Taking a delivery moves its next try behind this one's time limit: if the process dies, another finds it then.
_TAKE = Statement(
    update(deliveries)
    .where(
        deliveries.c.id == bindparam("delivery"),
        deliveries.c.status == "pending",
        deliveries.c.next_attempt_us == bindparam("seen"),
    )
    .values(next_attempt_us=bindparam("until"), tries=deliveries.c.tries + 1)
)
_TRY_COLUMNS = ("delivery_id", "number", "at_us", "status_code", "error")
_RECORD = {
    "sqlite": Statement(sqlite.insert(delivery_attempts).on_conflict_do_nothing(), columns=_TRY_COLUMNS),
    "postgresql": Statement(postgresql.insert(delivery_attempts).on_conflict_do_nothing(), columns=_TRY_COLUMNS),
}
_SETTLE = Statement(
    update(deliveries)
    .where(deliveries.c.id == bindparam("delivery"))
    .values(status=bindparam("status"), next_attempt_us=bindparam("next"), finished_us=bindparam("finished"))
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


def take_delivery(tx: Tx, delivery: Row, until_us: int) -> bool:
    """Take a due delivery for one try; False where another process was faster."""
    tx.point("take_delivery")
    seen = delivery["next_attempt_us"]
    return tx.run(_TAKE, {"delivery": delivery["id"], "seen": seen, "until": until_us}) == 1


def record_try(tx: Tx, row: Mapping[str, Any]) -> None:
    """One try: delivery_id, number, at_us, status_code, error. Safe to repeat."""
    tx.send(_RECORD[tx.dialect], row)


def settle_delivery(tx: Tx, delivery_id: str, status: str, next_us: int | None, finished_us: int | None) -> None:
    """What becomes of a delivery after a try."""
    tx.send(_SETTLE, {"delivery": delivery_id, "status": status, "next": next_us, "finished": finished_us})
