"""What bells cannot tell: dead workers, due timers, ready steps that nobody claimed. All bounded, all safe to run twice.

Every worker process sweeps, so nothing depends on a single one being alive.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.catalogue import Catalogue
from engine.states import RANKS, RUN_ENDED, AttemptStatus, ErrorClass, EventType, RunStatus, StepStatus
from engine.store.database import Row, Tx
from engine.store.deliveries import give_back_deliveries
from engine.store.partial_index import SUSPECT_LOSSES
from engine.store.ready_steps import urgent_steps
from engine.store.requests import abandon_requests
from engine.store.runs import lock_run, runs_past_deadline, set_run_status
from engine.store.steps import (
    due_steps,
    end_attempt,
    get_step,
    locked_step,
    locked_steps,
    next_due_us,
    put_back_step,
    steps_by_keys,
    steps_held_by,
    suspect_steps,
    unclaimed_steps,
)
from engine.store.workers import delete_worker, lock_worker
from engine.timers import time_has_come
from engine.transition import AT_HAND, Ring, StepError, Transition

BATCH = 200
UNCLAIMED_AFTER_US = 1_000_000  # a bell takes milliseconds; behind this one it is taken for lost


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep found: bells to ring, how many steps were taken back, whether a process was declared dead.

    `woken`: how many steps' time had come. `more`: there was more than one transaction takes. `run_ended`: a run came to its end.
    """

    rings: tuple[Ring, ...]
    reclaimed: int = 0
    buried: bool = False
    woken: int = 0
    more: bool = False
    run_ended: bool = False


def bury(
    tx: Tx, catalogue: Catalogue, worker_id: str, now: int, *, only_if_lapsed: bool, died_alone: bool = False
) -> Swept:
    """Take back what a dead process held: steps, calls, webhooks that it was sending. With `only_if_lapsed`, a lease that was renewed meanwhile saves it.

    `died_alone`: it ran one step and nothing else, and died by itself, its supervisor being alive: that step fails.
    """
    tx.point("bury")
    worker = lock_worker(tx, worker_id)
    if worker is None or (only_if_lapsed and worker["lease_until_us"] >= now):
        return Swept(())
    abandon_requests(tx, worker_id, now)  # before the runs are locked, as `complete` does it
    give_back_deliveries(tx, worker_id, now)
    rings: list[Ring] = []
    held = steps_held_by(tx, worker_id)
    ended = False
    for step in held:
        found = _held_by(tx, catalogue, step, worker_id, now)
        if found is None:
            continue
        row, transition = found
        if died_alone:
            _fail_alone(transition, row)
        else:
            _make_ready(transition, row, losses=row["losses"] + 1)
        transition.close()
        rings += transition.all_rings()
        ended = ended or transition.ended
    delete_worker(tx, worker_id)
    return Swept(tuple(rings), len(held), buried=True, run_ended=ended)


def take_back(tx: Tx, catalogue: Catalogue, worker_id: str, forgotten: Sequence[Row], now: int) -> Swept:
    """Take back steps (rows of `steps_held_by`) that a living process holds and does not run, its claim's answer being lost."""
    rings: list[Ring] = []
    for step in forgotten:
        found = _held_by(tx, catalogue, step, worker_id, now)
        if found is not None:
            row, transition = found
            _make_ready(transition, row, losses=row["losses"])  # nobody died
            transition.close()
            rings += transition.all_rings()
    return Swept(tuple(rings), len(forgotten))


def anything_due(tx: Tx, now: int) -> bool:
    """Whether `wake_due` or `expire_runs` would find something."""
    return next_due_us(tx) <= now or bool(runs_past_deadline(tx, now, 1))


def wake_due(tx: Tx, catalogue: Catalogue, now: int) -> Swept:
    """Go on with the steps whose time has come: retries, sleeps, waits without a signal, containers past their limit."""
    tx.point("wake_due")
    due: dict[str, list[str]] = {}
    found = due_steps(tx, now, BATCH)
    for step in found:
        due.setdefault(step["run_id"], []).append(step["id"])
    rings: list[Ring] = []
    ended = False
    for transition, rows in _at_work(tx, catalogue, due, now):
        transition.fail_unloadable()
        for number, step in enumerate(rows):
            row = get_step(tx, step["id"]) if number else step  # what the one before it led to may have changed it
            if row is not None and not transition.ended:
                time_has_come(transition, row)
        transition.close()
        rings += transition.all_rings()
        ended = ended or transition.ended
    return Swept(tuple(rings), woken=len(found), more=len(found) == BATCH, run_ended=ended)


def _at_work(
    tx: Tx, catalogue: Catalogue, due: Mapping[str, Sequence[str]], now: int
) -> list[tuple[Transition, list[Row]]]:
    """A transition of each run, locked, with the rows of its steps that are due; what waits for these is at hand, in one round trip."""
    found = [
        (Transition(tx, run, catalogue.graph(tx, run["version_id"]), now), rows) for run, rows in locked_steps(tx, due)
    ]
    wanted = [
        (transition.run["id"], key)
        for transition, rows in found
        if len(rows) == 1  # of several one may change what another waits for
        for key in transition.graph.dependents(rows[0]["key"])[:AT_HAND]
    ]
    waiting: dict[str, list[Row]] = {}
    for row in steps_by_keys(tx, wanted):
        waiting.setdefault(row["run_id"], []).append(row)
    for transition, _ in found:
        transition.at_hand = {row["key"]: row for row in waiting.get(transition.run["id"], ())}
    return found


def overlooked(tx: Tx, now: int) -> Swept:
    """Ready steps whose bell was lost, the most urgent first, and of those the oldest."""
    found = unclaimed_steps(tx, now - UNCLAIMED_AFTER_US, BATCH, ahead=now + UNCLAIMED_AFTER_US)
    if len(found) == BATCH:  # a flood: what is more urgent may have come behind it
        found = urgent_steps(tx, BATCH) + found
    rings = dict.fromkeys(Ring(step["id"], step["priority"]) for step in found)
    return Swept(tuple(sorted(rings, key=lambda ring: RANKS[ring.priority])))


def suspects(tx: Tx) -> list[str]:
    """Ids of ready steps that only a process of their own may take, oldest first."""
    return suspect_steps(tx, BATCH)


def expire_runs(tx: Tx, catalogue: Catalogue, now: int) -> Swept:
    """Fail the runs whose deadline has passed; paused and waiting ones too, since a deadline counts on."""
    tx.point("expire_runs")
    rings: list[Ring] = []
    ended = False
    for run_id in runs_past_deadline(tx, now, BATCH):
        run = lock_run(tx, run_id)
        assert run is not None
        if run["status"] in RUN_ENDED:
            continue  # while this waited for the lock
        if run["status"] == RunStatus.PAUSED.value:  # what comes behind the main steps is not paused
            set_run_status(tx, run_id, RunStatus.RUNNING)
        transition = Transition(tx, run, catalogue.graph(tx, run["version_id"]), now)
        transition.fail_run(None, StepError(ErrorClass.TIMEOUT, "the run's deadline has passed"))
        transition.close()
        rings += transition.all_rings()
        ended = ended or transition.ended
    return Swept(tuple(rings), run_ended=ended)


def _held_by(tx: Tx, catalogue: Catalogue, step: Row, worker_id: str, now: int) -> tuple[Row, Transition] | None:
    """The step's row with its run locked and its attempt ended as lost; None where the worker does not hold it any more."""
    run, row, _ = locked_step(tx, step["run_id"], step["id"])
    if run is None or row is None or row["worker_id"] != worker_id or row["attempt"] != step["attempt"]:
        return None
    transition = Transition(tx, run, catalogue.graph(tx, run["version_id"]), now)
    end_attempt(tx, row["id"], row["attempt"], AttemptStatus.LOST, now, error_class=ErrorClass.WORKER_LOST.value)
    transition.history.add(EventType.STEP_LOST, step=row["key"], attempt=row["attempt"])
    return row, transition


def _make_ready(transition: Transition, row: Row, *, losses: int) -> None:
    """A suspect is rung for nobody: whoever finds it asks for a process of its own."""
    if transition.fail_unloadable():
        return
    put_back_step(transition.tx, row, StepStatus.READY, transition.now, losses=losses)
    if losses < SUSPECT_LOSSES:
        transition.rings.append(Ring(row["id"], row["priority"]))


def _fail_alone(transition: Transition, row: Row) -> None:
    if transition.fail_unloadable():
        return
    message = (
        f"{row['losses'] + 1} worker processes died while they ran this step, "
        "the last one while it ran this step alone and nothing else"
    )
    transition.end_step(row, StepStatus.FAILED, error=StepError(ErrorClass.WORKER_LOST, message))
