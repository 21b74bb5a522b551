"""Queries on runs and their tags."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, bindparam, case, exists, func, insert, not_, or_, select, text, update

from engine.states import RUN_ENDED, RunStatus, StepStatus
from engine.store.database import Row, Tx
from engine.store.partial_index import ACTIVE
from engine.store.statements import Statement, one_of
from engine.store.tables import run_tags, runs, steps

_INSERT = Statement(insert(runs), columns=tuple(column.name for column in runs.c))
_INSERT_TAGS = Statement(insert(run_tags), columns=("run_id", "key", "value"))
_SEEN = runs.c.pruning_us.is_(None)  # what retention deletes is gone for everybody, whatever is left of it
LOCK_RUN = Statement(select(runs).where(runs.c.id == bindparam("run"), _SEEN).with_for_update())
_GET = Statement(select(runs).where(runs.c.id == bindparam("run"), _SEEN))
_AT_ONCE = 100
_AT = Statement(
    select(runs.c.id, runs.c.status, runs.c.event_seq).where(
        runs.c.id.in_([bindparam(f"run{number}") for number in range(_AT_ONCE)]), _SEEN
    )
)
_LOCK_IF_FREE = Statement(
    select(runs.c.id).where(runs.c.id == bindparam("run"), _SEEN).with_for_update(skip_locked=True)
)
_BY_IDEMPOTENCY_KEY = Statement(select(runs).where(runs.c.idempotency_key == bindparam("key")))
_BEGIN = Statement(
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values(
        status=RunStatus.RUNNING.value,
        started_us=func.coalesce(runs.c.started_us, bindparam("now")),
        open_steps=bindparam("open"),
        event_seq=bindparam("seq"),
    )
)
_ERROR = ("error_step", "error_class", "error_message")
RUN_COLUMNS = tuple(column.name for column in runs.c)
_SET_STATUS = Statement(
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values(status=bindparam("status"), pause_reason=bindparam("reason"))
)
_ADVANCE = Statement(
    update(runs).where(runs.c.id == bindparam("run")).values(open_steps=bindparam("open"), event_seq=bindparam("seq"))
)
_ACTIVE = exists().where(steps.c.run_id == bindparam("run"), text(ACTIVE))
_ADVANCE_AND_REST = Statement(
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values(
        status=case((_ACTIVE, runs.c.status), else_=RunStatus.WAITING.value),
        open_steps=bindparam("open"),
        event_seq=bindparam("seq"),
    )
)
_REST = Statement(
    update(runs)
    .where(
        runs.c.id == bindparam("run"),
        not_(_ACTIVE),
    )
    .values(status=RunStatus.WAITING.value, pause_reason=None)
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
        open_steps=bindparam("open"),
        event_seq=bindparam("seq"),
    )
)
_REOPEN = Statement(
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values(
        status=bindparam("status"),
        retries=func.coalesce(runs.c.retries, 0) + 1,
        pause_reason=None,
        finished_us=None,
        deadline_us=bindparam("deadline"),
        error_step=None,
        error_class=None,
        error_message=None,
    )
)
_SET_OUTPUT = Statement(
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values(output_json=bindparam("output_json"), output_digest=bindparam("output_digest"))
)
_SET_PHASE = Statement(update(runs).where(runs.c.id == bindparam("run")).values(phase=bindparam("phase")))
_BEGIN_PHASE = Statement(
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values(
        phase=bindparam("phase"),
        error_step=bindparam("error_step"),
        error_class=bindparam("error_class"),
        error_message=bindparam("error_message"),
    )
)
_ENDED = [status.value for status in sorted(RUN_ENDED)]
_UNANSWERED = Statement(
    select(runs.c.id, runs.c.parent_run_id)
    .select_from(runs.join(steps, steps.c.id == runs.c.answers_to))
    .where(
        runs.c.answers_to.is_not(None),
        or_(one_of(runs.c.status, _ENDED), steps.c.status != StepStatus.WAITING.value),
    )
    .order_by(runs.c.id)
    .limit(bindparam("most"))
)
CHILDREN_OF_RUN = Statement(
    select(runs.c.id, runs.c.parent_step_id).where(runs.c.parent_run_id == bindparam("run")).order_by(runs.c.id)
)
_LIVE_CHILDREN = Statement(
    select(runs.c.id)
    .where(
        runs.c.parent_run_id == bindparam("run"),
        not_(one_of(runs.c.status, _ENDED)),
    )
    .order_by(runs.c.id)
)
_own = (
    select(runs.c.id, runs.c.parent_run_id, runs.c.workflow_name, runs.c.version, runs.c.models_json)
    .where(runs.c.id == bindparam("run"))
    .cte("line", recursive=True)
)
_line = _own.union_all(
    select(runs.c.id, runs.c.parent_run_id, runs.c.workflow_name, runs.c.version, runs.c.models_json).where(
        runs.c.id == _own.c.parent_run_id
    )
)
_ABOVE = Statement(select(_line.c.workflow_name, _line.c.version, _line.c.models_json))
_ANSWER_TO = Statement(update(runs).where(runs.c.id == bindparam("run")).values(answers_to=bindparam("step")))
_STOP_ANSWERING = Statement(update(runs).where(runs.c.id == bindparam("run")).values(answers_to=None))
_SET_BUDGET = Statement(update(runs).where(runs.c.id == bindparam("run")).values(budget_picousd=bindparam("budget")))
_PAST_DEADLINE = Statement(
    select(runs.c.id)
    .where(
        runs.c.deadline_us <= bindparam("now"),
        runs.c.phase.is_(None),  # what comes behind the main steps has time
        not_(one_of(runs.c.status, _ENDED)),
    )
    .order_by(runs.c.id)  # whoever locks several runs locks them in this order
    .limit(bindparam("most"))
)


def insert_run(tx: Tx, row: Mapping[str, Any], tags: Mapping[str, str]) -> None:
    """Store a new run with its tags."""
    tx.send(_INSERT, row)
    if tags:
        tx.many(_INSERT_TAGS, [{"run_id": row["id"], "key": k, "value": v} for k, v in tags.items()])


def lock_run(tx: Tx, run_id: str) -> Row | None:
    """The run's row, locked: every transition of a run takes this lock first, so that they follow one another."""
    return tx.one(LOCK_RUN, {"run": run_id})


def lock_run_if_free(tx: Tx, run_id: str) -> Row | None:
    """The run's id, its row locked; None where another transaction has it, without waiting for that."""
    return tx.one(_LOCK_IF_FREE, {"run": run_id})


def lock_runs_above(tx: Tx, run: Row) -> list[Row]:
    """The run that started this one, the one that started that, and so on; locked from the topmost down, before this one."""
    ids: list[str] = []
    above = run
    while above["parent_run_id"] is not None:
        ids.append(above["parent_run_id"])
        found = get_run(tx, ids[-1])
        assert found is not None
        above = found
    return [locked for run_id in reversed(ids) if (locked := lock_run(tx, run_id)) is not None]


def get_run(tx: Tx, run_id: str) -> Row | None:
    """The run's row."""
    return tx.one(_GET, {"run": run_id})


def run_by_idempotency_key(tx: Tx, key: str) -> Row | None:
    """The run that was submitted under this key."""
    return tx.one(_BY_IDEMPOTENCY_KEY, {"key": key})


def begin_run(tx: Tx, run_id: str, now: int, open_steps: int, event_seq: int) -> None:
    """Mark as running, with the counters of `advance_run`; keeps the first start."""
    tx.send(_BEGIN, {"run": run_id, "now": now, "open": open_steps, "seq": event_seq})


def let_run_rest(tx: Tx, run_id: str) -> None:
    """The run is waiting, unless a worker holds or may take one of its steps."""
    tx.send(_REST, {"run": run_id})


def set_run_status(tx: Tx, run_id: str, status: RunStatus, reason: str | None = None) -> None:
    """Set a status that is not an end."""
    tx.send(_SET_STATUS, {"run": run_id, "status": status.value, "reason": reason})


def advance_run(tx: Tx, run_id: str, open_steps: int, event_seq: int, *, may_rest: bool = False) -> None:
    """Keep how many steps are open and the number of the newest event. A run that is under way and `may_rest` is waiting where no
    worker holds or may take a step of it.
    """
    tx.send(_ADVANCE_AND_REST if may_rest else _ADVANCE, {"run": run_id, "open": open_steps, "seq": event_seq})


def end_run(tx: Tx, run_id: str, values: Mapping[str, Any], open_steps: int, event_seq: int) -> None:
    """Write the end: status, now, output_json, output_digest, error_step, error_class, error_message. Counters as in `advance_run`."""
    tx.send(_END, {**values, "run": run_id, "open": open_steps, "seq": event_seq})


def begin_phase(tx: Tx, run: Row, phase: str) -> None:
    """What comes behind the main steps begins; the run's error, where it has one, is kept for its end."""
    tx.send(_BEGIN_PHASE, {"run": run["id"], "phase": phase, **{name: run[name] for name in _ERROR}})


def set_run_output(tx: Tx, run_id: str, output_json: str | None, output_digest: str | None) -> None:
    """Keep the output of the main steps."""
    tx.send(_SET_OUTPUT, {"run": run_id, "output_json": output_json, "output_digest": output_digest})


def reopen_run(tx: Tx, run_id: str, status: RunStatus, deadline_us: int | None) -> None:
    """Take back a bad end, with a new deadline where there is one."""
    tx.send(_REOPEN, {"run": run_id, "status": status.value, "deadline": deadline_us})


def set_run_phase(tx: Tx, run_id: str, phase: str | None) -> None:
    """In which phase the run goes on; None: the main steps."""
    tx.send(_SET_PHASE, {"run": run_id, "phase": phase})


def unanswered_runs(tx: Tx, most: int) -> list[Row]:
    """id, parent_run_id of child runs that have ended and whose step was not told, or whose step waits no more."""
    return tx.all(_UNANSWERED, {"most": most})


def child_run_ids(tx: Tx, run_id: str) -> dict[str, str]:
    """The newest run that each `workflow` step of a run has started, by the step's row id."""
    return {row["parent_step_id"]: row["id"] for row in tx.all(CHILDREN_OF_RUN, {"run": run_id})}


def live_children(tx: Tx, run_id: str) -> list[str]:
    """Ids of the runs that the steps of a run have started and that have not ended."""
    return [row["id"] for row in tx.all(_LIVE_CHILDREN, {"run": run_id})]


def answer_to(tx: Tx, run_id: str, step_id: str) -> None:
    """The step that started this run is to be told of its end."""
    tx.run(_ANSWER_TO, {"run": run_id, "step": step_id})


def stop_answering(tx: Tx, run_id: str) -> None:
    """The step that started this run knows its end, or wants no answer any more."""
    tx.send(_STOP_ANSWERING, {"run": run_id})


def set_run_budget(tx: Tx, run_id: str, budget_picousd: int) -> None:
    """Replace the budget."""
    tx.send(_SET_BUDGET, {"run": run_id, "budget": budget_picousd})


def runs_past_deadline(tx: Tx, now: int, most: int) -> list[str]:
    """Ids of unfinished runs whose deadline has passed."""
    return [row["id"] for row in tx.all(_PAST_DEADLINE, {"now": now, "most": most})]


def _found(sought: str) -> ColumnElement[bool]:
    tagged = select(run_tags.c.run_id).where(run_tags.c.key + ":" + run_tags.c.value == sought)
    return or_(
        runs.c.id.startswith(sought.lower(), autoescape=True),
        func.lower(runs.c.workflow_name).contains(sought.lower(), autoescape=True),
        runs.c.id.in_(tagged),
    )


def list_runs(tx: Tx, filters: Mapping[str, Any], limit: int) -> list[Row]:
    """Newest first. Filters: status, workflow, schedule (id), since (us), before (id), tag (key, value) and text, which is how the id
    begins, a part of the workflow's name, or a tag as `key:value`; absent ones do not filter.
    """
    query = select(runs).where(_SEEN).order_by(runs.c.id.desc()).limit(limit)
    if filters.get("status"):
        query = query.where(runs.c.status == filters["status"])
    if filters.get("workflow"):
        query = query.where(runs.c.workflow_name == filters["workflow"])
    if filters.get("schedule"):
        query = query.where(runs.c.schedule_id == filters["schedule"])
        query = query.order_by(None).order_by(runs.c.scheduled_us.desc())  # as its index has them
    if filters.get("since") is not None:
        query = query.where(runs.c.created_us >= filters["since"])
    if filters.get("before"):
        query = query.where(runs.c.id < filters["before"])
    if filters.get("tag"):
        key, value = filters["tag"]
        query = query.join(run_tags, run_tags.c.run_id == runs.c.id)
        query = query.where(run_tags.c.key == key, run_tags.c.value == value)
    if filters.get("text"):
        query = query.where(_found(filters["text"]))
    return tx.all(Statement(query))


def runs_above(tx: Tx, run_id: str) -> list[Row]:
    """workflow_name, version, models_json of a run, and of each run whose step started the one before."""
    return tx.all(_ABOVE, {"run": run_id})


@dataclass(frozen=True, slots=True)
class RunAt:
    """Where a run stands: its status, and the number of its newest event."""

    status: str
    event_seq: int


def runs_at(tx: Tx, run_ids: Sequence[str]) -> dict[str, RunAt]:
    """Where each of the runs stands; those that are not there are left out."""
    at: dict[str, RunAt] = {}
    for start in range(0, len(run_ids), _AT_ONCE):
        some = [*run_ids[start : start + _AT_ONCE]]
        some += [""] * (_AT_ONCE - len(some))
        rows = tx.all(_AT, {f"run{number}": run_id for number, run_id in enumerate(some)})
        at |= {row["id"]: RunAt(row["status"], row["event_seq"]) for row in rows}
    return at
