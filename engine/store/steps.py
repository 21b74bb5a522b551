"""Queries on steps and attempts. Every update that a worker causes is guarded by its attempt number."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import and_, bindparam, case, delete, func, insert, not_, or_, select, text, update

from engine.plan import PARTS
from engine.states import AttemptStatus, StepStatus
from engine.store.database import Row, Tx
from engine.store.partial_index import SUSPECT, SUSPECT_LOSSES
from engine.store.runs import LOCK_RUN
from engine.store.statements import ManyRows, Statement, one_of
from engine.store.tables import attempts, runs, steps

_OPEN = [s.value for s in (StepStatus.PENDING, StepStatus.READY, StepStatus.RUNNING, StepStatus.WAITING)]
NEVER_US = 2**63 - 1
_CLAIMABLE_RUNS = ["queued", "running", "waiting"]

STEP_COLUMNS = tuple(column.name for column in steps.c)
_INSERT = ManyRows(steps, STEP_COLUMNS)
_GET = Statement(select(steps).where(steps.c.id == bindparam("step")))
_OF_READY = select(steps.c.run_id).where(steps.c.id == bindparam("step"), steps.c.status == StepStatus.READY.value)
_LOCK_RUN_OF = Statement(
    select(runs).where(runs.c.id == _OF_READY.scalar_subquery(), runs.c.pruning_us.is_(None)).with_for_update()
)
STEP_BY_KEY = Statement(select(steps).where(steps.c.run_id == bindparam("run"), steps.c.key == bindparam("key")))
STEPS_OF_RUN = Statement(
    select(steps)
    .where(steps.c.run_id == bindparam("run"))
    .order_by(steps.c.started_us.is_(None), steps.c.started_us, steps.c.position, steps.c.key)
)
_OF_RUN_IN_STATUS = Statement(
    select(steps.c.id, steps.c.key, steps.c.priority, steps.c.attempt, steps.c.status)
    .where(steps.c.run_id == bindparam("run"), steps.c.status == bindparam("status"))
    .order_by(steps.c.position)
)
_OPEN_COLUMNS = (
    steps.c.id,
    steps.c.key,
    steps.c.type,
    steps.c.status,
    steps.c.attempt,
    steps.c.branch,
    steps.c.error_class,
    steps.c.error_message,
)
_OPEN_OF_RUN = Statement(
    select(*_OPEN_COLUMNS)
    .where(steps.c.run_id == bindparam("run"), one_of(steps.c.status, _OPEN))
    .order_by(steps.c.position)
)
_OPEN_INSIDE = Statement(
    select(*_OPEN_COLUMNS).where(
        steps.c.run_id == bindparam("run"), steps.c.parent_key == bindparam("parent"), one_of(steps.c.status, _OPEN)
    )
)
_INSIDE = Statement(
    select(steps)
    .where(steps.c.run_id == bindparam("run"), steps.c.parent_key == bindparam("parent"))
    .order_by(steps.c.position)
)
_WAITING_FOR = Statement(
    select(steps)
    .where(
        steps.c.run_id == bindparam("run"),
        steps.c.waits_for == bindparam("what"),
        steps.c.status == StepStatus.WAITING.value,
    )
    .order_by(steps.c.started_us, steps.c.position)
)
_BEGIN = Statement(
    update(steps)
    .where(steps.c.id == bindparam("step"))
    .values(
        status=StepStatus.RUNNING.value,
        waiting_on=bindparam("needs"),
        attempt=bindparam("number"),
        worker_id=bindparam("worker"),
        due_us=None,
        started_us=bindparam("started"),
    )
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
_HANDLED = steps.c.branch == "on_error"  # its error is what its steps handle
_REOPEN = Statement(
    update(steps)
    .where(steps.c.id == bindparam("step"))
    .values(
        status=bindparam("status"),
        due_us=bindparam("due"),
        waits_for=bindparam("what"),
        tries=0,
        losses=0,
        error_class=case((_HANDLED, steps.c.error_class)),
        error_message=case((_HANDLED, steps.c.error_message)),
        started_us=bindparam("started"),
        finished_us=None,
    )
)
_WAIT = Statement(
    update(steps)
    .where(steps.c.id == bindparam("step"))
    .values(
        status=StepStatus.WAITING.value,
        worker_id=None,
        due_us=bindparam("due"),
        waits_for=bindparam("what"),
        branch=bindparam("branch"),
        waiting_on=bindparam("children"),
        error_class=bindparam("error_class"),
        error_message=bindparam("error_message"),
    )
)
_SIZE = Statement(
    update(steps)
    .where(steps.c.id == bindparam("step"))
    .values(
        input_json=bindparam("input_json"),
        input_digest=bindparam("input_digest"),
        size=bindparam("items"),
        waiting_on=bindparam("items"),
    )
)
_PROGRESS = Statement(
    update(steps)
    .where(steps.c.id == bindparam("step"))
    .values(progress=bindparam("started"), waiting_on=bindparam("open"))
)
_ALLOW = Statement(
    update(steps)
    .where(steps.c.id == bindparam("step"))
    .values(status=StepStatus.READY.value, due_us=bindparam("now"), waits_for=None, progress=1)
)
_DELETE = Statement(delete(steps).where(steps.c.id == bindparam("step")))
_RESET = Statement(
    update(steps)
    .where(steps.c.id == bindparam("step"))
    .values(
        status=bindparam("status"),
        due_us=bindparam("due"),
        waiting_on=bindparam("needs"),
        input_json=bindparam("input_json"),
        input_digest=bindparam("input_digest"),
        **dict.fromkeys(
            ("worker_id", "branch", "waits_for", "size", "progress", "output_json", "output_digest", "model",
             "error_class", "error_message", "started_us", "finished_us")
        ),
        tries=0,
        losses=0,
    )
)  # fmt: skip
_ONE_LESS = Statement(
    update(steps)
    .where(steps.c.run_id == bindparam("run"), steps.c.key == bindparam("key"))
    .values(waiting_on=steps.c.waiting_on - 1)
    .returning(steps)
)
_WAITS_ON = Statement(update(steps).where(steps.c.id == bindparam("step")).values(waiting_on=bindparam("needs")))
_SET_READY = Statement(
    update(steps)
    .where(steps.c.id == bindparam("step"))
    .values(status=StepStatus.READY.value, waiting_on=bindparam("needs"), due_us=bindparam("now"))
)
_RELEASE = Statement(
    update(steps)
    .where(
        steps.c.run_id == bindparam("run"),
        steps.c.status == StepStatus.PENDING.value,
        steps.c.waiting_on == 0,
        not_(one_of(steps.c.type, sorted(PARTS))),
    )
    .values(status=StepStatus.READY.value, due_us=bindparam("now"))
    .returning(steps.c.id, steps.c.priority)
)
_NEXT_DUE = Statement(select(func.min(steps.c.due_us).label("due")).where(steps.c.status == StepStatus.WAITING.value))
_DUE_STEPS = Statement(
    select(steps.c.id, steps.c.run_id)
    .where(steps.c.status == StepStatus.WAITING.value, steps.c.due_us <= bindparam("now"))
    .order_by(steps.c.due_us)
    .limit(bindparam("most"))
)
_UNCLAIMED = Statement(
    select(steps.c.id, steps.c.priority)
    .select_from(steps.join(runs, runs.c.id == steps.c.run_id))
    .where(
        steps.c.status == StepStatus.READY.value,
        or_(steps.c.due_us <= bindparam("before"), steps.c.due_us > bindparam("ahead")),
        steps.c.losses < SUSPECT_LOSSES,
        one_of(runs.c.status, _CLAIMABLE_RUNS),
    )
    .order_by(steps.c.due_us)
    .limit(bindparam("most"))
)
_SUSPECTS = Statement(
    select(steps.c.id)
    .select_from(steps.join(runs, runs.c.id == steps.c.run_id))
    .where(text(SUSPECT), one_of(runs.c.status, _CLAIMABLE_RUNS))
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
ATTEMPTS_OF_RUN = Statement(
    select(attempts)
    .select_from(attempts.join(steps, and_(steps.c.id == attempts.c.step_id)))
    .where(steps.c.run_id == bindparam("run"))
    .order_by(attempts.c.step_id, attempts.c.number)
)


def insert_steps(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store new steps."""
    tx.insert(_INSERT, rows)


def get_step(tx: Tx, step_id: str) -> Row | None:
    """A step's row by its id."""
    return tx.one(_GET, {"step": step_id})


def locked_step(tx: Tx, run_id: str, step_id: str, *keys: str) -> tuple[Row | None, Row | None, list[Row]]:
    """A run's row, locked as by `lock_run`, and a step's as it is then, with those of the same run that have these keys."""
    others = [(STEP_BY_KEY, {"run": run_id, "key": key}) for key in keys]
    run, step, *more = tx.together((LOCK_RUN, {"run": run_id}), (_GET, {"step": step_id}), *others)
    return _only(run), _only(step), [row for rows in more for row in rows]


def locked_to_claim(tx: Tx, step_id: str) -> tuple[Row | None, Row | None]:
    """The row of a ready step's run, locked as by `lock_run`, and the step's as it is then. None for the run, and no lock taken, where
    the step was not ready: most bells that come too late wait for nobody.
    """
    run, step = tx.together((_LOCK_RUN_OF, {"step": step_id}), (_GET, {"step": step_id}))
    return _only(run), _only(step)


def locked_steps(tx: Tx, wanted: Mapping[str, Sequence[str]]) -> list[tuple[Row, list[Row]]]:
    """The rows of runs, by id, locked in the order of their ids, each with the rows of these steps of it (by id) as they are then.

    One round trip. What is not there is left out.
    """
    order = sorted(wanted)
    asked = [
        each for run in order for each in ((LOCK_RUN, {"run": run}), *((_GET, {"step": step}) for step in wanted[run]))
    ]
    answers = iter(tx.together(*asked))
    found = [(next(answers), [row for _ in wanted[run] for row in next(answers)]) for run in order]
    return [(runs[0], rows) for runs, rows in found if runs]


def steps_by_keys(tx: Tx, wanted: Sequence[tuple[str, str]]) -> list[Row]:
    """The rows of steps, each by its run and its key, in one round trip; what is not there is left out."""
    asked = [(STEP_BY_KEY, {"run": run_id, "key": key}) for run_id, key in wanted]
    return [row for rows in tx.together(*asked) for row in rows] if asked else []


def _only(rows: list[Row]) -> Row | None:
    return rows[0] if rows else None


def step_by_key(tx: Tx, run_id: str, key: str) -> Row | None:
    """A step's row by its key within its run."""
    return tx.one(STEP_BY_KEY, {"run": run_id, "key": key})


def steps_of_run(tx: Tx, run_id: str) -> list[Row]:
    """All steps in the order they ran, those that have not started behind them."""
    return tx.all(STEPS_OF_RUN, {"run": run_id})


def steps_in_status(tx: Tx, run_id: str, status: StepStatus) -> list[Row]:
    """id, key, priority, attempt of a run's steps in one status."""
    return tx.all(_OF_RUN_IN_STATUS, {"run": run_id, "status": status.value})


def open_steps(tx: Tx, run_id: str) -> list[Row]:
    """id, key, type, status, attempt, branch, error_class, error_message of a run's steps that have not ended."""
    return tx.all(_OPEN_OF_RUN, {"run": run_id})


def is_suspect(step: Row) -> bool:
    """Whether the step was on board when so many workers died that only a process of its own may take it."""
    return step["losses"] >= SUSPECT_LOSSES


def begin_step(tx: Tx, step: Row, worker_id: str, now: int) -> Row:
    """Take a step whose row this transaction has read under the run's lock, and found to be ready or to wait for nothing any more.

    Returns its key, new attempt and started_us.
    """
    taken = {"key": step["key"], "attempt": step["attempt"] + 1, "started_us": step["started_us"] or now}
    values = {"number": taken["attempt"], "started": taken["started_us"], "needs": step["waiting_on"]}
    tx.send(_BEGIN, {"step": step["id"], "worker": worker_id, **values})
    return taken


def end_step(tx: Tx, step_id: str, status: StepStatus, now: int, **values: Any) -> None:
    """Write an end; values: output_json, output_digest, model, error_class, error_message, None where not given."""
    empty = dict.fromkeys(("output_json", "output_digest", "model", "error_class", "error_message"))
    tx.send(_END, {**empty, **values, "step": step_id, "status": status.value, "now": now})


def put_back_step(tx: Tx, step: Row, status: StepStatus, due_us: int | None, **values: Any) -> None:
    """Make a step ready or waiting again; values may replace tries, losses, error_class, error_message."""
    kept = {name: step[name] for name in ("tries", "losses")}
    none = {"error_class": None, "error_message": None}
    tx.send(_PUT_BACK, {**kept, **none, **values, "step": step["id"], "status": status.value, "due": due_us})


def reopen_step(tx: Tx, step_id: str, status: StepStatus, **values: Any) -> None:
    """Let an ended step start over; values: due, waits_for, started. Tries and losses begin anew, the attempt numbers go on."""
    due, waits_for, started = (values.get(name) for name in ("due", "waits_for", "started"))
    tx.send(_REOPEN, {"step": step_id, "status": status.value, "due": due, "what": waits_for, "started": started})


def wait_step(tx: Tx, step_id: str, waits_for: str, **values: Any) -> None:
    """Let a step wait; values: due, branch, children, error_class, error_message."""
    empty = {"due": None, "branch": None, "children": 0, "error_class": None, "error_message": None}
    tx.send(_WAIT, {**empty, **values, "step": step_id, "what": waits_for})


def set_items(tx: Tx, step_id: str, items_json: str | None, items_digest: str | None, count: int) -> None:
    """A foreach has its items; it waits on all of them."""
    tx.send(_SIZE, {"step": step_id, "input_json": items_json, "input_digest": items_digest, "items": count})


def set_progress(tx: Tx, step_id: str, started: int, open_parts: int) -> None:
    """How many items or iterations a container has started, and on how many it waits."""
    tx.send(_PROGRESS, {"step": step_id, "started": started, "open": open_parts})


def allow_step(tx: Tx, step_id: str, now: int) -> None:
    """A call that waited for approval has it, and may be claimed."""
    tx.send(_ALLOW, {"step": step_id, "now": now})


def reset_step(tx: Tx, row: Row) -> None:
    """As if the step had never run: the row as it was first stored; its attempt numbers go on."""
    values = {name: row[name] for name in ("status", "input_json", "input_digest")}
    tx.send(_RESET, values | {"step": row["id"], "due": row["due_us"], "needs": row["waiting_on"]})


def delete_step(tx: Tx, step_id: str) -> None:
    """Forget a row that nobody ever claimed."""
    tx.send(_DELETE, {"step": step_id})


def steps_inside(tx: Tx, run_id: str, parent_key: str) -> list[Row]:
    """The rows right inside a container, by position."""
    return tx.all(_INSIDE, {"run": run_id, "parent": parent_key})


def open_steps_inside(tx: Tx, run_id: str, parent_key: str) -> list[Row]:
    """id, key, type, status, attempt, branch, error_class, error_message of the rows right inside a container that have not ended."""
    return tx.all(_OPEN_INSIDE, {"run": run_id, "parent": parent_key})


def steps_waiting_for(tx: Tx, run_id: str, what: str) -> list[Row]:
    """A run's steps that wait for something, those that began first in front."""
    return tx.all(_WAITING_FOR, {"run": run_id, "what": what})


def one_less(tx: Tx, run_id: str, key: str) -> Row | None:
    """One of the things a step waits on has ended; returns the row as it is then."""
    return tx.one(_ONE_LESS, {"run": run_id, "key": key})


def still_waits(tx: Tx, step: Row) -> None:
    """Write on how many things a step waits now, for a row that was read under the run's lock."""
    tx.send(_WAITS_ON, {"step": step["id"], "needs": step["waiting_on"]})


def set_ready(tx: Tx, step: Row, now: int) -> None:
    """The step may be claimed from now on; on how many things it waits is written as its row has it."""
    tx.send(_SET_READY, {"step": step["id"], "needs": step["waiting_on"], "now": now})


def release_steps(tx: Tx, run_id: str, now: int) -> list[Row]:
    """Make ready what waits for nothing but the run's place; id and priority of each."""
    return tx.all(_RELEASE, {"run": run_id, "now": now})


def next_due_us(tx: Tx) -> int:
    """When the time of a waiting step comes next, or came; NEVER_US where none waits for a time."""
    row = tx.one(_NEXT_DUE)
    return NEVER_US if row is None or row["due"] is None else row["due"]


def due_steps(tx: Tx, now: int, most: int) -> list[Row]:
    """id, run_id of waiting steps whose time has come."""
    return tx.all(_DUE_STEPS, {"now": now, "most": most})


def unclaimed_steps(tx: Tx, before: int, most: int, *, ahead: int = NEVER_US) -> list[Row]:
    """id, priority of steps that have been ready since before that moment, oldest first; also those of a time `ahead`, which a clock
    that was set back has left there.
    """
    return tx.all(_UNCLAIMED, {"before": before, "ahead": ahead, "most": most})


def suspect_steps(tx: Tx, most: int) -> list[str]:
    """Ids of the ready steps that only a process of their own may take, oldest first."""
    return [row["id"] for row in tx.all(_SUSPECTS, {"most": most})]


def steps_held_by(tx: Tx, worker_id: str) -> list[Row]:
    """id, run_id, attempt of the steps that a worker is running."""
    return tx.all(_HELD_BY, {"worker": worker_id})


def count_open_steps(tx: Tx) -> list[Row]:
    """status, number, oldest_us of the steps that have not ended."""
    return tx.all(_COUNT)


def insert_attempt(tx: Tx, step_id: str, number: int, worker_id: str, now: int) -> None:
    """A claim begins."""
    tx.send(
        _INSERT_ATTEMPT,
        {"step_id": step_id, "number": number, "status": "running", "worker_id": worker_id, "started_us": now},
    )


def end_attempt(tx: Tx, step_id: str, number: int, status: AttemptStatus, now: int, **error: Any) -> None:
    """A claim ends; error: error_class, error_message."""
    none = {"error_class": None, "error_message": None}
    tx.send(_END_ATTEMPT, {**none, **error, "step": step_id, "attempt": number, "status": status.value, "now": now})
