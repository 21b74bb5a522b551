"""Queries on schedules. A firing locks its schedule's row first; whoever comes second finds that it has moved on."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import and_, bindparam, delete, insert, or_, select, text, update

from engine.store.database import Row, Tx
from engine.store.partial_index import SCHEDULED_OPEN
from engine.store.statements import Statement
from engine.store.tables import runs, schedules

_INSERT = Statement(insert(schedules), columns=tuple(column.name for column in schedules.c))
_GET = Statement(
    select(schedules).where(or_(schedules.c.id == bindparam("told"), schedules.c.name == bindparam("told")))
)
_LOCK = Statement(select(schedules).where(schedules.c.id == bindparam("schedule")).with_for_update())
_LOCK_OF_DEFINITION = Statement(
    select(schedules)
    .where(schedules.c.workflow_name == bindparam("workflow"), schedules.c.origin == "definition")
    .order_by(schedules.c.id)
    .with_for_update()
)
_LIST = Statement(
    select(schedules)
    .where(
        or_(bindparam("before") == "", schedules.c.id < bindparam("before")),
        or_(bindparam("workflow") == "", schedules.c.workflow_name == bindparam("workflow")),
    )
    .order_by(schedules.c.id.desc())
    .limit(bindparam("most"))
)
DEFINED = ("cron", "zone", "overlap", "catch_up", "input_json", "tags_json", "priority", "budget_picousd", "key_id", "enabled",
           "next_us", "backlog_json", "updated_us", "paused_us")  # fmt: skip
MOVED = ("next_us", "backlog_json", "last_due_us", "last_run_id", "fired", "skipped", "missed", "failed", "error_message",
         "error_us")  # fmt: skip
_DEFINE = Statement(
    update(schedules)
    .where(schedules.c.id == bindparam("schedule"))
    .values(**{name: bindparam(f"new_{name}") for name in DEFINED})
)
_MOVE = Statement(
    update(schedules)
    .where(schedules.c.id == bindparam("schedule"))
    .values(**{name: bindparam(f"new_{name}") for name in MOVED})
)
_DELETE = Statement(delete(schedules).where(schedules.c.id == bindparam("schedule")))
_OPEN_RUN = select(runs.c.id).where(text(SCHEDULED_OPEN), runs.c.schedule_id == schedules.c.id)
_DUE = Statement(
    select(schedules.c.id)
    .where(
        or_(
            schedules.c.next_us <= bindparam("now"),
            and_(schedules.c.backlog_json.is_not(None), ~_OPEN_RUN.exists()),
        )
    )
    .order_by(schedules.c.next_us)
    .limit(bindparam("most"))
)
_BUSY = Statement(select(runs.c.id).where(text(SCHEDULED_OPEN), runs.c.schedule_id == bindparam("schedule")).limit(1))


def insert_schedule(tx: Tx, row: Mapping[str, Any]) -> None:
    """Store a new one."""
    tx.run(_INSERT, row)


def get_schedule(tx: Tx, told: str) -> Row | None:
    """The schedule of that id or name."""
    return tx.one(_GET, {"told": told})


def lock_schedule(tx: Tx, schedule_id: str) -> Row | None:
    """One schedule, locked."""
    return tx.one(_LOCK, {"schedule": schedule_id})


def lock_schedules_of_definition(tx: Tx, workflow: str) -> list[Row]:
    """Those that a workflow's own definition asked for, locked."""
    return tx.all(_LOCK_OF_DEFINITION, {"workflow": workflow})


def list_schedules(tx: Tx, before: str | None, most: int, workflow: str | None = None) -> list[Row]:
    """Newest first; of one workflow, where one is named."""
    return tx.all(_LIST, {"before": before or "", "most": most, "workflow": workflow or ""})


def define_schedule(tx: Tx, row: Row) -> None:
    """Write what it is made of, and when it comes next."""
    tx.run(_DEFINE, {"schedule": row["id"]} | {f"new_{name}": row[name] for name in DEFINED})


def move_schedule(tx: Tx, row: Row) -> None:
    """Write what has become of its firings."""
    tx.run(_MOVE, {"schedule": row["id"]} | {f"new_{name}": row[name] for name in MOVED})


def delete_schedule(tx: Tx, schedule_id: str) -> None:
    """Forget one; its runs go on."""
    tx.run(_DELETE, {"schedule": schedule_id})


def due_schedules(tx: Tx, now: int, most: int) -> list[str]:
    """Ids of those that have come due, and of those whose waiting firing may start since the run before it has ended."""
    return [row["id"] for row in tx.all(_DUE, {"now": now, "most": most})]


def has_open_run(tx: Tx, schedule_id: str) -> bool:
    """Whether a run of this schedule has not ended."""
    return tx.one(_BUSY, {"schedule": schedule_id}) is not None
