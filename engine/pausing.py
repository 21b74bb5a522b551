"""Pausing and resuming runs together with those above and below them. Whoever locks several runs locks them from the top down.

A run is paused by a person (`user`), by a budget that its next call does not fit into (`budget_exceeded`), or with the run that
started it (`parent`). A budget stop pauses every run above too: nothing goes on there before the step has its answer.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from engine.catalogue import Catalogue
from engine.places import enter_line, pause_in_line
from engine.run_writer import Ring
from engine.states import BUDGET, EventType, RunStatus, StepStatus
from engine.store.database import Row, Tx
from engine.store.places import get_place
from engine.store.runs import live_children, lock_run, lock_runs_above, set_run_budget, set_run_status
from engine.store.steps import steps_in_status
from engine.transition import Transition
from engine.webhook_outbox import queue_webhook

USER, PARENT = "user", "parent"
GOING_ON = {RunStatus.QUEUED.value, RunStatus.RUNNING.value, RunStatus.WAITING.value}


def lock_family(tx: Tx, run: Row) -> tuple[list[Row], list[Row]]:
    """All living runs above a run, the nearest last, and all others of the same tree; locked, itself included."""
    above = lock_runs_above(tx, run)
    top = above[0] if above else lock_run(tx, run["id"])
    assert top is not None
    known = {run["id"], *(each["id"] for each in above)}
    return above, [each for each in _below(tx, top["id"]) if each["id"] not in known]


def pause_run(tx: Tx, catalogue: Catalogue, run: Row, now: int, data: Mapping[str, Any]) -> None:
    """Pause a locked run that goes on; `data` is told in its history, `reason` first of all."""
    set_run_status(tx, run["id"], RunStatus.PAUSED, data["reason"])
    graph = catalogue.graph(tx, run["version_id"])
    transition = Transition(tx, run | {"status": RunStatus.PAUSED.value}, graph, now)
    transition.history.add(EventType.RUN_PAUSED, data=data)
    transition.close()
    pause_in_line(tx, run, graph.definition)
    queue_webhook(tx, run, "run.paused", now)


def pause_below(tx: Tx, catalogue: Catalogue, run_id: str, now: int) -> None:
    """Pause the runs that a locked run has started, and theirs."""
    for child in list(_below(tx, run_id)):
        if child["status"] in GOING_ON:
            pause_run(tx, catalogue, child, now, {"reason": PARENT})


def pause_family(
    tx: Tx, catalogue: Catalogue, run: Row, family: tuple[list[Row], list[Row]], now: int, message: str
) -> None:
    """A locked run has stopped over a budget: so do those above it, and with them all that they have started."""
    above, others = family
    for each in above:
        if each["status"] in GOING_ON:
            pause_run(tx, catalogue, each, now, {"reason": BUDGET, "message": message, "run": run["id"]})
    for each in others:
        if each["status"] in GOING_ON:
            pause_run(tx, catalogue, each, now, {"reason": PARENT})


def resume_family(tx: Tx, catalogue: Catalogue, run: Row, above: list[Row], now: int) -> list[Ring]:
    """Let a locked paused run go on, with those below that had stopped with it; after a budget stop also those above."""
    top = run
    if run["pause_reason"] == BUDGET:
        for each in reversed(above):
            if (each["status"], each["pause_reason"]) != (RunStatus.PAUSED.value, BUDGET):
                break
            top = each
    return _resume_tree(tx, catalogue, top, now)


def give_budget(tx: Tx, run_id: str, budget_picousd: int) -> None:
    """Set a locked run's budget, and raise to it those of the runs below that stopped it: else they would stop it again at once."""
    set_run_budget(tx, run_id, budget_picousd)
    for child in list(_below(tx, run_id)):
        own = child["budget_picousd"]
        stopped = (child["status"], child["pause_reason"]) == (RunStatus.PAUSED.value, BUDGET)
        if stopped and own is not None and own < budget_picousd:
            set_run_budget(tx, child["id"], budget_picousd)


def _resume_tree(tx: Tx, catalogue: Catalogue, run: Row, now: int) -> list[Ring]:
    rings = _resume(tx, catalogue, run, now)
    for child_id in live_children(tx, run["id"]):
        child = lock_run(tx, child_id)
        if child and child["status"] == RunStatus.PAUSED.value and child["pause_reason"] in (BUDGET, PARENT):
            rings += _resume_tree(tx, catalogue, child, now)
    return rings


def _resume(tx: Tx, catalogue: Catalogue, run: Row, now: int) -> list[Ring]:
    graph = catalogue.graph(tx, run["version_id"])
    in_line = graph.definition.concurrency is not None and get_place(tx, run["id"]) is None
    status = RunStatus.QUEUED if run["started_us"] is None or in_line else RunStatus.RUNNING
    set_run_status(tx, run["id"], status)
    transition = Transition(tx, run | {"status": status.value}, graph, now)
    transition.history.add(EventType.RUN_RESUMED)
    transition.close()
    if in_line:
        return enter_line(tx, run, graph.definition, now)
    if status is RunStatus.RUNNING:
        transition.settle_status()
    return [Ring(step["id"], step["priority"]) for step in steps_in_status(tx, run["id"], StepStatus.READY)]


def _below(tx: Tx, run_id: str) -> Iterator[Row]:
    """The living runs that a run has started, and theirs, locked level by level."""
    pending = [run_id]
    while pending:
        found = [
            child for above in pending for child_id in live_children(tx, above) if (child := lock_run(tx, child_id))
        ]
        yield from found
        pending = [child["id"] for child in found]
