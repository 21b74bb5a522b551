"""Queries on runs and their tags."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update

from engine.states import RunStatus
from engine.store.database import Row, Tx
from engine.store.statements import Statement, one_of
from engine.store.tables import run_tags, runs

_INSERT = Statement(insert(runs), columns=tuple(column.name for column in runs.c))
_INSERT_TAGS = Statement(insert(run_tags), columns=("run_id", "key", "value"))
_LOCK = Statement(select(runs).where(runs.c.id == bindparam("run")).with_for_update())
_GET = Statement(select(runs).where(runs.c.id == bindparam("run")))
_BY_IDEMPOTENCY_KEY = Statement(select(runs).where(runs.c.idempotency_key == bindparam("key")))
_BEGIN = Statement(
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values(status=RunStatus.RUNNING.value, started_us=func.coalesce(runs.c.started_us, bindparam("now")))
)
_SET_STATUS = Statement(
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values(status=bindparam("status"), pause_reason=bindparam("reason"))
)
_ADVANCE = Statement(
    update(runs).where(runs.c.id == bindparam("run")).values(open_steps=bindparam("open"), event_seq=bindparam("seq"))
)
_END = Statement(
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values(
        status=bindparam("status"),
        pause_reason=None,
        finished_us=bindparam("now"),
        output_json=bindparam("output_json"),
        output_digest=bindparam("output_digest"),
        error_step=bindparam("error_step"),
        error_class=bindparam("error_class"),
        error_message=bindparam("error_message"),
    )
)
_REOPEN = Statement(
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values(
        status=RunStatus.RUNNING.value,
        pause_reason=None,
        finished_us=None,
        deadline_us=bindparam("now") + runs.c.deadline_us - runs.c.created_us,
        error_step=None,
        error_class=None,
        error_message=None,
    )
)
_SET_BUDGET = Statement(update(runs).where(runs.c.id == bindparam("run")).values(budget_picousd=bindparam("budget")))
_PAST_DEADLINE = Statement(
    select(runs.c.id)
    .where(
        runs.c.deadline_us <= bindparam("now"),
        one_of(runs.c.status, [s.value for s in (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING)]),
    )
    .order_by(runs.c.id)  # whoever locks several runs locks them in this order
    .limit(bindparam("most"))
)


def insert_run(tx: Tx, row: Mapping[str, Any], tags: Mapping[str, str]) -> None:
    """Store a new run with its tags."""
    tx.run(_INSERT, row)
    if tags:
        tx.many(_INSERT_TAGS, [{"run_id": row["id"], "key": k, "value": v} for k, v in tags.items()])


def lock_run(tx: Tx, run_id: str) -> Row | None:
    """The run's row, locked: every transition of a run takes this lock first, so that they follow one another."""
    return tx.one(_LOCK, {"run": run_id})


def get_run(tx: Tx, run_id: str) -> Row | None:
    """The run's row."""
    return tx.one(_GET, {"run": run_id})


def run_by_idempotency_key(tx: Tx, key: str) -> Row | None:
    """The run that was submitted under this key."""
    return tx.one(_BY_IDEMPOTENCY_KEY, {"key": key})


def begin_run(tx: Tx, run_id: str, now: int) -> None:
    """Mark as running; keeps the first start."""
    tx.run(_BEGIN, {"run": run_id, "now": now})


def set_run_status(tx: Tx, run_id: str, status: RunStatus, reason: str | None = None) -> None:
    """Set a status that is not an end."""
    tx.run(_SET_STATUS, {"run": run_id, "status": status.value, "reason": reason})


def advance_run(tx: Tx, run_id: str, open_steps: int, event_seq: int) -> None:
    """Keep how many steps are open and the number of the newest event."""
    tx.run(_ADVANCE, {"run": run_id, "open": open_steps, "seq": event_seq})


def end_run(tx: Tx, run_id: str, values: Mapping[str, Any]) -> None:
    """Write the end: status, now, output_json, output_digest, error_step, error_class, error_message."""
    tx.run(_END, {"run": run_id, **values})


def reopen_run(tx: Tx, run_id: str, now: int) -> None:
    """Take back a failed end; a deadline counts from now on."""
    tx.run(_REOPEN, {"run": run_id, "now": now})


def set_run_budget(tx: Tx, run_id: str, budget_picousd: int) -> None:
    """Replace the budget."""
    tx.run(_SET_BUDGET, {"run": run_id, "budget": budget_picousd})


def runs_past_deadline(tx: Tx, now: int, most: int) -> list[str]:
    """Ids of unfinished runs whose deadline has passed."""
    return [row["id"] for row in tx.all(_PAST_DEADLINE, {"now": now, "most": most})]


def list_runs(tx: Tx, filters: Mapping[str, Any], limit: int) -> list[Row]:
    """Newest first. Filters: status, workflow, since (us), before (id), tag (key, value); absent ones do not filter."""
    query = select(runs).order_by(runs.c.id.desc()).limit(limit)
    if filters.get("status"):
        query = query.where(runs.c.status == filters["status"])
    if filters.get("workflow"):
        query = query.where(runs.c.workflow_name == filters["workflow"])
    if filters.get("since") is not None:
        query = query.where(runs.c.created_us >= filters["since"])
    if filters.get("before"):
        query = query.where(runs.c.id < filters["before"])
    if filters.get("tag"):
        key, value = filters["tag"]
        query = query.join(run_tags, run_tags.c.run_id == runs.c.id)
        query = query.where(run_tags.c.key == key, run_tags.c.value == value)
    return tx.all(Statement(query))
