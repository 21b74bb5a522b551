"""Runs that a `workflow` step starts: begun in the step's own transaction, and looked after by every worker's sweeper.

A child's end and its parent's step are two transactions, because they lock two runs: whoever locks several locks the parent
first. Between them the child `answers_to` the step. A child whose step has ended meanwhile is cancelled.
"""

from engine.calls import StoredLibrary, circles
from engine.catalogue import Catalogue
from engine.definition import Definition
from engine.errors import UserError
from engine.pausing import PARENT, pause_run
from engine.ports import Calling
from engine.run_writer import CHILD_RUN
from engine.states import RUN_ENDED, ErrorClass, EventType, Priority, RunStatus, StepStatus
from engine.store.database import Row, Tx
from engine.store.json_text import loads
from engine.store.payloads import unpack
from engine.store.runs import lock_run, stop_answering, unanswered_runs
from engine.store.steps import get_step
from engine.submission import Parent, Submission, submit
from engine.transition import Ring, StepError, Transition
from engine.workflows import find

MAX_DEPTH = 10
_BATCH = 200


def call(transition: Transition, catalogue: Catalogue, row: Row, asked: Calling, due_us: int | None) -> None:
    """Start a run of another workflow; the step waits for its end."""
    run, tx = transition.run, transition.tx
    depth = (run["depth"] or 0) + 1
    try:
        if depth > MAX_DEPTH:
            raise UserError("too_deep", f"workflows that call each other may be at most {MAX_DEPTH} deep")
        version = find(tx, asked.workflow)
        definition = catalogue.loaded(tx, version["id"]).definition
        if definition.concurrency is not None:
            _refuse_circles(tx, catalogue, definition)
        parent = Parent(run["id"], row["id"], depth)
        started = submit(tx, catalogue, _submission(run, definition, version, asked, parent), transition.now)
    except UserError as error:
        message = (
            f"the workflow {asked.workflow!r} does not take it: {error.message}" if error.details else error.message
        )
        transition.end_step(row, StepStatus.FAILED, error=StepError(ErrorClass.INVALID_REQUEST, message))
        return
    transition.wait(row, CHILD_RUN, due=due_us)
    data = {"for": CHILD_RUN, "run": started.run["id"]}
    transition.history.add(EventType.STEP_WAITING, step=row["key"], attempt=row["attempt"], data=data)
    if run["status"] == RunStatus.PAUSED.value:
        child = lock_run(tx, started.run["id"])
        assert child is not None
        pause_run(tx, catalogue, child, transition.now, {"reason": PARENT})
    else:
        transition.rings_elsewhere += started.rings


def _refuse_circles(tx: Tx, catalogue: Catalogue, definition: Definition) -> None:
    """Definitions may have changed since the run above was submitted. Raises: UserError."""
    for mistake in circles(StoredLibrary(tx, catalogue), definition):
        raise UserError("waits_for_itself", mistake.message)


def _submission(run: Row, definition: Definition, version: Row, asked: Calling, parent: Parent) -> Submission:
    return Submission(
        definition=definition,
        version=version,
        input=asked.input,
        priority=Priority(run["priority"]),
        tags=loads(run["tags_json"]),
        key_id=run["key_id"],
        request_id=run["request_id"],
        parent=parent,
        trace_context=asked.trace_context,
    )


def unanswered(tx: Tx) -> list[Row]:
    """id, parent_run_id of child runs that have ended without their step knowing it, or whose step has ended without them."""
    return unanswered_runs(tx, _BATCH)


def answer(tx: Tx, catalogue: Catalogue, child: Row, now: int) -> tuple[list[Ring], bool]:
    """Tell a step of its child's end, or cancel a child that nobody waits for; tells also whether a run ended by it."""
    tx.point("answer")
    parent = lock_run(tx, child["parent_run_id"])
    run = lock_run(tx, child["id"])
    if parent is None or run is None or run["answers_to"] is None:
        return [], False
    step = get_step(tx, run["answers_to"])
    assert step is not None
    waits, over = step["status"] == StepStatus.WAITING.value, run["status"] in RUN_ENDED
    if waits and not over:
        return [], False
    stop_answering(tx, run["id"])
    if over and not waits:
        return [], False
    changed = parent if waits else run
    transition = Transition(tx, changed, catalogue.graph(tx, changed["version_id"]), now)
    if transition.fail_unloadable():
        pass
    elif waits:
        _end_step(transition, step, run)
    else:
        transition.cancel_run()
    transition.close()
    return transition.all_rings(), transition.ended


def _end_step(transition: Transition, step: Row, child: Row) -> None:
    if child["status"] == RunStatus.SUCCEEDED.value:
        output = unpack(transition.tx, child["output_json"], child["output_digest"])
        transition.end_step(step, StepStatus.SUCCEEDED, output=output)
        return
    kind = ErrorClass(child["error_class"] or ErrorClass.CANCELLED)
    why = f"at {child['error_step']}: {child['error_message']}" if child["error_class"] else "it was cancelled"
    message = f"the run {child['id']} of {child['workflow_name']} did not succeed, {why}"
    transition.end_step(step, StepStatus.FAILED, error=StepError(kind, message))
