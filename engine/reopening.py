"""Taking back a run's end: what failed or was cancelled starts over, every result is kept. Used by `engine.control.retry`.

A `workflow` step goes on in the run that it had started, from where that one failed, so that nothing is paid for twice.
"""

from collections.abc import Sequence

from engine.catalogue import Catalogue
from engine.errors import Conflict
from engine.places import enter_line
from engine.plan import PARTS, PHASES, Graph, limit_of
from engine.run_writer import CHILD_RUN, CHILDREN
from engine.states import EventType, RunStatus, StepStatus
from engine.store.database import Row, Tx
from engine.store.runs import answer_to, child_run_ids, lock_run, reopen_run, set_run_phase
from engine.store.steps import reopen_step, steps_of_run
from engine.transition import Ring, Transition

_ENDED_BADLY = (RunStatus.FAILED.value, RunStatus.CANCELLED.value)
_Inside = dict[str | None, list[Row]]


def go_on(tx: Tx, catalogue: Catalogue, run: Row, now: int) -> list[Ring]:
    """Let a locked run that failed or was cancelled go on. Where its workflow has a limit it stands in line again.

    Raises: Conflict where no step of it starts over; nothing was written then.
    """
    graph = catalogue.loaded(tx, run["version_id"])
    found = _what_starts_over(graph, steps_of_run(tx, run["id"]))
    if found is None:
        raise Conflict("nothing_to_retry", "no step of the run failed; its output did not render: submit it again")
    phase, inside = found
    status = RunStatus.RUNNING if graph.definition.concurrency is None else RunStatus.QUEUED
    fresh = {"status": status.value, "retries": (run["retries"] or 0) + 1, "phase": phase}
    transition = Transition(tx, run | fresh | dict.fromkeys(("error_step", "error_class", "error_message")), graph, now)
    deadline_s = graph.definition.deadline_s  # counts from now on
    reopen_run(tx, run["id"], status, None if deadline_s is None else now + int(deadline_s * 1_000_000))
    set_run_phase(tx, run["id"], phase)
    reopened = _Reopened(transition, catalogue)
    reopened.open_again(inside)
    transition.reopen_steps(reopened.count)
    transition.recheck(reopened.containers)
    transition.history.add(EventType.RUN_RESUMED, data={"retry": True})
    transition.close()
    if status is RunStatus.RUNNING and not (transition.ended or transition.rings):
        transition.settle_status()
    return [*transition.all_rings(), *([] if transition.ended else enter_line(tx, run, graph.definition, now))]


def _what_starts_over(graph: Graph, rows: list[Row]) -> tuple[str | None, _Inside] | None:
    """The phase of what failed, and its rows by what they stand in: where the main steps had all succeeded, a later one."""
    for phase in PHASES:
        inside: _Inside = {}
        for row in rows:
            if graph.phase(row["key"]) == phase:
                inside.setdefault(row["parent_key"], []).append(row)
        if any(_starts_over(row, graph.step(row["key"]).on_error) for row in inside.get(None, ())):
            return phase, inside
    return None


def _starts_over(row: Row, on_error: str) -> bool:
    if row["status"] == StepStatus.CANCELLED.value:
        return True
    return row["status"] == StepStatus.FAILED.value and on_error == "fail"


class _Reopened:
    """What was opened again: how many rows, and the containers among them."""

    def __init__(self, transition: Transition, catalogue: Catalogue) -> None:
        self.count = 0
        self.containers: list[Row] = []
        self._transition = transition
        self._catalogue = catalogue
        self._children: dict[str, str] | None = None

    def open_again(self, inside: _Inside) -> None:
        """From the outside in: nothing starts over inside what has ended for good."""
        pending = list(inside.get(None, ()))
        while pending:
            row = pending.pop()
            if not _starts_over(row, self._transition.graph.step(row["key"]).on_error):
                continue
            self.count += 1
            if row["waits_for"] == CHILDREN or row["branch"] is not None:
                self._wait(row, CHILDREN)
                pending += self._goes_on_inside(row, inside.get(row["key"], ()))
                self.containers.append(row)
            elif row["waits_for"] == CHILD_RUN and self._goes_on_below(row):
                self._wait(row, CHILD_RUN)
            else:
                self._begin(row)

    def _goes_on_inside(self, row: Row, inner: Sequence[Row]) -> Sequence[Row]:
        """Where a failure was being handled, the handlers alone: what they handle is over."""
        if row["branch"] != "on_error" or row["type"] in PARTS:
            return inner
        graph = self._transition.graph
        return [each for each in inner if graph.is_handler(row["key"], each["key"], each["type"])]

    def _wait(self, row: Row, waits_for: str) -> None:
        transition = self._transition
        limit_us = limit_of(transition.graph.step(row["key"]), row["type"], transition.now)
        reopen_step(
            transition.tx, row["id"], StepStatus.WAITING, due=limit_us, waits_for=waits_for, started=transition.now
        )

    def _begin(self, row: Row) -> None:
        transition = self._transition
        if row["waiting_on"] > 0 or row["type"] in PARTS or transition.held_back:
            reopen_step(transition.tx, row["id"], StepStatus.PENDING)
            return
        reopen_step(transition.tx, row["id"], StepStatus.READY, due=transition.now)
        transition.rings.append(Ring(row["id"], row["priority"]))

    def _goes_on_below(self, row: Row) -> bool:
        """Whether the run that the step had started can go on, and does. Its lock comes behind its parent's."""
        transition = self._transition
        if self._children is None:
            self._children = child_run_ids(transition.tx, transition.run["id"])
        child_id = self._children.get(row["id"])
        child = None if child_id is None else lock_run(transition.tx, child_id)
        if child is None:
            return False
        if child["status"] in _ENDED_BADLY:
            try:
                transition.rings_elsewhere += go_on(transition.tx, self._catalogue, child, transition.now)
            except Conflict:
                return False
        answer_to(transition.tx, child["id"], row["id"])
        return True
