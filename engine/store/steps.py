"""Queries on steps and attempts. Every update that a worker causes is guarded by its attempt number."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import and_, bindparam, func, insert, select, update

from engine.states import AttemptStatus, StepStatus
from engine.store.database import Row, Tx
from engine.store.statements import Statement, one_of
from engine.store.tables import attempts, runs, steps

_OPEN = [s.value for s in (StepStatus.PENDING, StepStatus.READY, StepStatus.RUNNING, StepStatus.WAITING)]
_CLAIMABLE_RUNS = ["queued", "running", "waiting"]

STEP_COLUMNS = tuple(column.name for column in steps.c)
_INSERT = Statement(insert(steps), columns=STEP_COLUMNS)
_GET = Statement(select(steps).where(steps.c.id == bindparam("step")))
_BY_KEY = Statement(select(steps).where(steps.c.run_id == bindparam("run"), steps.c.key == bindparam("key")))
_OF_RUN = Statement(
    select(steps)
    .where(steps.c.run_id == bindparam("run"))
    .order_by(steps.c.started_us.is_(None), steps.c.started_us, steps.c.position, steps.c.key)
)
_OF_RUN_IN_STATUS = Statement(
    select(steps.c.id, steps.c.key, steps.c.priority, steps.c.attempt, steps.c.status)
    .where(steps.c.run_id == bindparam("run"), steps.c.status == bindparam("status"))
    .order_by(steps.c.position)
)
_OPEN_OF_RUN = Statement(
    select(steps.c.id, steps.c.key, steps.c.status, steps.c.attempt)
    .where(steps.c.run_id == bindparam("run"), one_of(steps.c.status, _OPEN))
    .order_by(steps.c.position)
)
_CLAIM = Statement(
    update(steps)
    .where(steps.c.id == bindparam("step"), steps.c.status == StepStatus.READY.value)
    .values(
        status=StepStatus.RUNNING.value,
        attempt=steps.c.attempt + 1,
        worker_id=bindparam("worker"),
        due_us=None,
        started_us=func.coalesce(steps.c.started_us, bindparam("now")),
    )
    .returning(steps.c.attempt, steps.c.started_us)
)
_END = Statement(
    update(steps)
    .where(steps.c.id == bindparam("step"))
    .values(
        status=bindparam("status"),
        worker_id=None,
        due_us=None,
        finished_us=bindparam("now"),
        output_json=bindparam("output_json"),
        output_digest=bindparam("output_digest"),
        model=bindparam("model"),
        error_class=bindparam("error_class"),
        error_message=bindparam("error_message"),
    )
)
_PUT_BACK = Statement(
    update(steps)
    .where(steps.c.id == bindparam("step"))
    .values(
        status=bindparam("status"),
        worker_id=None,
        due_us=bindparam("due"),
        tries=bindparam("tries"),
        losses=bindparam("losses"),
        error_class=bindparam("error_class"),
        error_message=bindparam("error_message"),
    )
)
_REOPEN = Statement(
    update(steps)
    .where(steps.c.id == bindparam("step"))
    .values(
        status=bindparam("status"),
        due_us=bindparam("due"),
        tries=0,
        losses=0,
        error_class=None,
        error_message=None,
        started_us=None,
        finished_us=None,
    )
)
_BRANCH = Statement(
    update(steps)
    .where(steps.c.id == bindparam("step"))
    .values(
        status=StepStatus.WAITING.value, worker_id=None, branch=bindparam("branch"), waiting_on=bindparam("children")
    )
)
_ONE_LESS = Statement(
    update(steps)
    .where(steps.c.run_id == bindparam("run"), steps.c.key == bindparam("key"))
    .values(waiting_on=steps.c.waiting_on - 1)
    .returning(steps.c.id, steps.c.key, steps.c.waiting_on, steps.c.status, steps.c.priority)
)
_SET_READY = Statement(
    update(steps).where(steps.c.id == bindparam("step")).values(status=StepStatus.READY.value, due_us=bindparam("now"))
)
_WAKE = Statement(
    update(steps)
    .where(
        steps.c.id == bindparam("step"),
        steps.c.status == StepStatus.WAITING.value,
        steps.c.due_us <= bindparam("now"),
    )
    .values(status=StepStatus.READY.value, due_us=bindparam("now"))
)
_DUE = Statement(
    select(steps.c.id).where(steps.c.status == StepStatus.WAITING.value, steps.c.due_us <= bindparam("now")).limit(1)
)
# Steps that a transition of their run holds are left to the next look: waiting for them here could end in a deadlock.
_LOCK_DUE = Statement(
    select(steps.c.id, steps.c.priority)
    .where(steps.c.status == StepStatus.WAITING.value, steps.c.due_us <= bindparam("now"))
    .order_by(steps.c.due_us)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_UNCLAIMED = Statement(
    select(steps.c.id, steps.c.priority)
    .select_from(steps.join(runs, runs.c.id == steps.c.run_id))
    .where(
        steps.c.status == StepStatus.READY.value,
        steps.c.due_us <= bindparam("before"),
        one_of(runs.c.status, _CLAIMABLE_RUNS),
    )
    .order_by(steps.c.due_us)
    .limit(bindparam("most"))
)
_HELD_BY = Statement(
    select(steps.c.id, steps.c.run_id, steps.c.attempt)
    .where(steps.c.worker_id == bindparam("worker"), steps.c.status == StepStatus.RUNNING.value)
    .order_by(steps.c.run_id)
)
_COUNT = Statement(
    select(steps.c.status, func.count().label("number"), func.min(steps.c.due_us).label("oldest_us"))
    .where(one_of(steps.c.status, _OPEN))
    .group_by(steps.c.status)
)
_INSERT_ATTEMPT = Statement(insert(attempts), columns=("step_id", "number", "status", "worker_id", "started_us"))
_END_ATTEMPT = Statement(
    update(attempts)
    .where(
        attempts.c.step_id == bindparam("step"),
        attempts.c.number == bindparam("attempt"),
        attempts.c.status == AttemptStatus.RUNNING.value,
    )
    .values(
        status=bindparam("status"),
        error_class=bindparam("error_class"),
        error_message=bindparam("error_message"),
        finished_us=bindparam("now"),
    )
)
_ATTEMPTS_OF_RUN = Statement(
    select(attempts)
    .select_from(attempts.join(steps, and_(steps.c.id == attempts.c.step_id)))
    .where(steps.c.run_id == bindparam("run"))
    .order_by(attempts.c.step_id, attempts.c.number)
)


def insert_steps(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store new steps."""
    tx.many(_INSERT, rows)


def get_step(tx: Tx, step_id: str) -> Row | None:
    """A step's row by its id."""
    return tx.one(_GET, {"step": step_id})


def step_by_key(tx: Tx, run_id: str, key: str) -> Row | None:
    """A step's row by its key within its run."""
    return tx.one(_BY_KEY, {"run": run_id, "key": key})


def steps_of_run(tx: Tx, run_id: str) -> list[Row]:
    """All steps in the order they ran, those that have not started behind them."""
    return tx.all(_OF_RUN, {"run": run_id})


def steps_in_status(tx: Tx, run_id: str, status: StepStatus) -> list[Row]:
    """id, key, priority, attempt of a run's steps in one status."""
    return tx.all(_OF_RUN_IN_STATUS, {"run": run_id, "status": status.value})


def open_steps(tx: Tx, run_id: str) -> list[Row]:
    """id, key, status, attempt of a run's steps that have not ended."""
    return tx.all(_OPEN_OF_RUN, {"run": run_id})


def claim_step(tx: Tx, step_id: str, worker_id: str, now: int) -> Row | None:
    """Take a ready step; its new attempt and started_us, or None where it is not ready any more."""
    return tx.one(_CLAIM, {"step": step_id, "worker": worker_id, "now": now})


def end_step(tx: Tx, step_id: str, status: StepStatus, now: int, **values: Any) -> None:
    """Write an end; values: output_json, output_digest, model, error_class, error_message, None where not given."""
    empty = dict.fromkeys(("output_json", "output_digest", "model", "error_class", "error_message"))
    tx.run(_END, {**empty, **values, "step": step_id, "status": status.value, "now": now})


def put_back_step(tx: Tx, step: Row, status: StepStatus, due_us: int | None, **values: Any) -> None:
    """Make a step ready or waiting again; values may replace tries, losses, error_class, error_message."""
    kept = {name: step[name] for name in ("tries", "losses")}
    none = {"error_class": None, "error_message": None}
    tx.run(_PUT_BACK, {**kept, **none, **values, "step": step["id"], "status": status.value, "due": due_us})


def reopen_step(tx: Tx, step_id: str, status: StepStatus, due_us: int | None) -> None:
    """Let an ended step start over: tries, losses and its clock begin anew, the attempt numbers go on."""
    tx.run(_REOPEN, {"step": step_id, "status": status.value, "due": due_us})


def branch_step(tx: Tx, step_id: str, branch: str, children: int) -> None:
    """A container waits for the children of the branch it chose."""
    tx.run(_BRANCH, {"step": step_id, "branch": branch, "children": children})


def one_less(tx: Tx, run_id: str, key: str) -> Row | None:
    """One of the things a step waits on has ended; returns id, key, waiting_on, status, priority."""
    return tx.one(_ONE_LESS, {"run": run_id, "key": key})


def set_ready(tx: Tx, step_id: str, now: int) -> None:
    """The step may be claimed from now on."""
    tx.run(_SET_READY, {"step": step_id, "now": now})


def wake_step(tx: Tx, step_id: str, now: int) -> bool:
    """Make a waiting step whose time has come ready; False where that has happened already."""
    return tx.run(_WAKE, {"step": step_id, "now": now}) == 1


def any_step_due(tx: Tx, now: int) -> bool:
    """Whether there is a waiting step whose time has come."""
    return tx.one(_DUE, {"now": now}) is not None


def lock_due_steps(tx: Tx, now: int, most: int) -> list[Row]:
    """id, priority of waiting steps whose time has come, locked; those that others have locked are left out."""
    return tx.all(_LOCK_DUE, {"now": now, "most": most})


def unclaimed_steps(tx: Tx, before: int, most: int) -> list[Row]:
    """id, priority of steps that have been ready since before that moment, oldest first."""
    return tx.all(_UNCLAIMED, {"before": before, "most": most})


def steps_held_by(tx: Tx, worker_id: str) -> list[Row]:
    """id, run_id, attempt of the steps that a worker is running."""
    return tx.all(_HELD_BY, {"worker": worker_id})


def count_open_steps(tx: Tx) -> list[Row]:
    """status, number, oldest_us of the steps that have not ended."""
    return tx.all(_COUNT)


def insert_attempt(tx: Tx, step_id: str, number: int, worker_id: str, now: int) -> None:
    """A claim begins."""
    tx.run(
        _INSERT_ATTEMPT,
        {"step_id": step_id, "number": number, "status": "running", "worker_id": worker_id, "started_us": now},
    )


def end_attempt(tx: Tx, step_id: str, number: int, status: AttemptStatus, now: int, **error: Any) -> None:
    """A claim ends; error: error_class, error_message."""
    none = {"error_class": None, "error_message": None}
    tx.run(_END_ATTEMPT, {**none, **error, "step": step_id, "attempt": number, "status": status.value, "now": now})


def attempts_of_run(tx: Tx, run_id: str) -> list[Row]:
    """All attempts of a run's steps, in order per step."""
    return tx.all(_ATTEMPTS_OF_RUN, {"run": run_id})
