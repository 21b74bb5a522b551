"""What people do to a run: cancel, pause, resume, retry. Each is one transaction; `Conflict` says what would be right."""

from engine.catalogue import Catalogue
from engine.errors import Conflict, NotFound
from engine.plan import PARTS, PHASES, limit_of
from engine.run_writer import CHILDREN
from engine.states import RUN_ENDED, EventType, RunStatus, StepStatus
from engine.store.database import Row, Tx
from engine.store.runs import get_run, lock_run, reopen_run, set_run_budget, set_run_phase, set_run_status
from engine.store.steps import reopen_step, steps_in_status, steps_of_run
from engine.transition import Ring, Transition
from engine.webhook_outbox import queue_webhook

_GOING_ON = {RunStatus.QUEUED.value, RunStatus.RUNNING.value, RunStatus.WAITING.value}


def cancel(tx: Tx, catalogue: Catalogue, run_id: str, now: int) -> Row:
    """End the run with all that is open; workers stop its calls when they next look. Raises: NotFound, Conflict."""
    tx.point("cancel")
    run = _lock(tx, run_id)
    if run["status"] == RunStatus.CANCELLED.value:
        return run
    if run["status"] in RUN_ENDED:
        raise Conflict("run_ended", f"the run is over ({run['status']}), only a run that goes on can be cancelled")
    transition = Transition(tx, run, catalogue.graph(tx, run["version_id"]), now)
    transition.cancel_run()
    transition.close()
    return _fresh(tx, run_id)


def pause(tx: Tx, catalogue: Catalogue, run_id: str, now: int) -> Row:
    """Claim no further step; steps under way finish. Raises: NotFound, Conflict."""
    tx.point("pause")
    run = _lock(tx, run_id)
    if run["status"] == RunStatus.PAUSED.value:
        return run
    if run["status"] not in _GOING_ON:
        raise Conflict("run_ended", f"the run is over ({run['status']}), only a run that goes on can be paused")
    set_run_status(tx, run_id, RunStatus.PAUSED, "user")
    transition = Transition(tx, run, catalogue.graph(tx, run["version_id"]), now)
    transition.history.add(EventType.RUN_PAUSED, data={"reason": "user"})
    transition.close()
    queue_webhook(tx, run_id, "run.paused", now)
    return _fresh(tx, run_id)


def resume(tx: Tx, catalogue: Catalogue, run_id: str, budget_picousd: int | None, now: int) -> tuple[Row, list[Ring]]:
    """Let a paused run go on, with a new budget where one is given. Raises: NotFound, Conflict."""
    tx.point("resume")
    run = _lock(tx, run_id)
    if run["status"] != RunStatus.PAUSED.value:
        raise Conflict("run_not_paused", f"the run is {run['status']}, only a paused run can be resumed")
    if budget_picousd is not None:
        set_run_budget(tx, run_id, budget_picousd)
    status = RunStatus.QUEUED if run["started_us"] is None else RunStatus.RUNNING
    set_run_status(tx, run_id, status)
    transition = Transition(tx, run, catalogue.graph(tx, run["version_id"]), now)
    transition.history.add(EventType.RUN_RESUMED)
    transition.close()
    if status is RunStatus.RUNNING:
        transition.settle_status()
    ready = steps_in_status(tx, run_id, StepStatus.READY)
    return _fresh(tx, run_id), [Ring(step["id"], step["priority"]) for step in ready]


def retry(tx: Tx, catalogue: Catalogue, run_id: str, now: int) -> tuple[Row, list[Ring]]:
    """Go on from what failed: finished results are kept and not paid for again. Raises: NotFound, Conflict."""
    tx.point("retry")
    run = _lock(tx, run_id)
    if run["status"] != RunStatus.FAILED.value:
        raise Conflict("run_not_failed", f"the run is {run['status']}, only a failed run can be retried")
    transition = Transition(tx, run, catalogue.graph(tx, run["version_id"]), now)
    transition.run |= {"status": RunStatus.RUNNING.value, "retries": (run["retries"] or 0) + 1}
    transition.run |= dict.fromkeys(("error_step", "error_class", "error_message"))
    reopen_run(tx, run_id, now)
    _reopen_steps(tx, transition)
    transition.history.add(EventType.RUN_RESUMED, data={"retry": True})
    transition.close()
    return _fresh(tx, run_id), transition.rings


def _reopen_steps(tx: Tx, transition: Transition) -> None:
    """What failed or was cancelled starts over; what it waited on before, it still waits on. Raises: Conflict.

    Where the main steps had all succeeded, the run goes on in the phase of what failed.
    """
    rows = steps_of_run(tx, transition.run["id"])
    for phase in PHASES:
        inside: dict[str | None, list[Row]] = {}
        for row in rows:
            if transition.graph.phase(row["key"]) == phase:
                inside.setdefault(row["parent_key"], []).append(row)
        reopened, containers = _open_again(transition, inside)
        if reopened:
            transition.run["phase"] = phase
            set_run_phase(tx, transition.run["id"], phase)
            transition.reopen_steps(reopened)
            transition.recheck(containers)
            return
    raise Conflict("nothing_to_retry", "no step of the run failed; its output did not render: submit it again")


def _open_again(transition: Transition, inside: dict[str | None, list[Row]]) -> tuple[int, list[Row]]:
    """From the outside in: nothing starts over inside what has ended for good. Gives how many rows, and the containers."""
    reopened = 0
    containers: list[Row] = []
    pending = list(inside.get(None, ()))
    while pending:
        row = pending.pop()
        if not _starts_over(row, transition.graph.step(row["key"]).on_error):
            continue
        reopened += 1
        if row["waits_for"] == CHILDREN or row["branch"] is not None:
            limit_us = limit_of(transition.graph.step(row["key"]), row["type"], transition.now)
            reopen_step(
                transition.tx, row["id"], StepStatus.WAITING, due=limit_us, waits_for=CHILDREN, started=transition.now
            )
            pending += inside.get(row["key"], ())
            containers.append(row)
        elif row["waiting_on"] > 0 or row["type"] in PARTS:
            reopen_step(transition.tx, row["id"], StepStatus.PENDING)
        else:
            reopen_step(transition.tx, row["id"], StepStatus.READY, due=transition.now)
            transition.rings.append(Ring(row["id"], row["priority"]))
    return reopened, containers


def _starts_over(row: Row, on_error: str) -> bool:
    if row["status"] == StepStatus.CANCELLED.value:
        return True
    return row["status"] == StepStatus.FAILED.value and on_error == "fail"


def _lock(tx: Tx, run_id: str) -> Row:
    run = lock_run(tx, run_id)
    if run is None:
        raise NotFound("run_not_found", f"there is no run {run_id}", param="run_id")
    return run


def _fresh(tx: Tx, run_id: str) -> Row:
    run = get_run(tx, run_id)
    assert run is not None
    return run
