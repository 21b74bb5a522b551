"""A worker's side of a step: claim, complete, give back. Each is one transaction, fenced by the attempt number.

A worker that lost its lease cannot write a result: the step then has another attempt number or is not running, and `complete`
answers `accepted=False`. The money it spent is booked all the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from engine.admission import admit, left_in_budgets, settle_call, write_intent
from engine.agent_memory import over_cap
from engine.agent_steps import ASK, CALL
from engine.agents import add_calls
from engine.alerts import note_unknown_price
from engine.approvals import wait_for_approval
from engine.catalogue import Catalogue
from engine.child_runs import call
from engine.clock import iso
from engine.definition import Definition, Step
from engine.errors import AIGatewayError, BudgetExceeded, Conflict, TooLarge
from engine.fork import with_model
from engine.ledger import CallScope, Intent, Settlement
from engine.money import usd_text
from engine.pausing import lock_family, pause_family
from engine.plan import DEFAULT_RETRY, limit_of, retry_pause_s
from engine.ports import (
    AskedForTools,
    Branched,
    Calling,
    Failed,
    GoesOn,
    Listening,
    Opened,
    Outcome,
    OverBudget,
    Skipped,
    Sleeping,
    Succeeded,
    Throttled,
)
from engine.run_writer import TIMER
from engine.scope import scope_of
from engine.signals import listen
from engine.states import BUDGET, AttemptStatus, ErrorClass, EventType, RunStatus, StepStatus
from engine.store.database import Row, Tx
from engine.store.json_text import loads, storable
from engine.store.requests import run_committed_picousd
from engine.store.runs import get_run, lock_runs_above, set_run_status
from engine.store.steps import (
    begin_step,
    end_attempt,
    get_step,
    insert_attempt,
    is_suspect,
    locked_step,
    locked_to_claim,
    put_back_step,
)
from engine.transition import AT_HAND, Ring, StepError, Transition
from engine.webhook_outbox import queue_webhook

_CLAIMABLE = {RunStatus.QUEUED.value, RunStatus.RUNNING.value, RunStatus.WAITING.value}


@dataclass(frozen=True, slots=True)
class Claimed:
    """A step that this worker now holds, with all that its execution needs."""

    run: Row
    step_id: str
    key: str
    attempt: int
    worker_id: str
    definition: Definition
    step: Step
    scope: dict[str, Any]
    tags: dict[str, str]
    started_us: int  # of the step's first attempt


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a claimed step and of the calls it made. `chance` in [0, 1) is the retry jitter."""

    outcome: Outcome
    settlements: Sequence[Settlement] = ()
    chance: float = 0.5


@dataclass(frozen=True, slots=True)
class Completed:
    """`accepted` is False for a worker that no longer held the step. `rings`: steps that became ready.

    `following`: the one step that this unlocked, claimed already for the same worker, and in no ring.
    """

    accepted: bool
    rings: tuple[Ring, ...] = ()
    run_ended: bool = False
    following: Claimed | None = None


def claim(
    tx: Tx, catalogue: Catalogue, step_id: str, worker_id: str, now: int, *, alone: bool = False
) -> Claimed | None:
    """Take a ready step of a run that may go on; None where it is not there to be taken.

    A step that was on board when two workers died is there for a process that runs it `alone`, and for no other; other steps are not.
    """
    tx.point("claim")
    run, row = locked_to_claim(tx, step_id)
    if run is None or row is None or run["status"] not in _CLAIMABLE:
        return None
    if row["status"] != StepStatus.READY.value or is_suspect(row) is not alone:
        return None
    transition = Transition(tx, run, catalogue.graph(tx, run["version_id"]), now)
    if transition.graph.problem is not None:
        return _refuse(transition)
    held = _take(transition, row, worker_id, alone=alone)
    transition.close()
    return held


def _refuse(transition: Transition) -> None:
    """A run whose definition cannot be loaded ends here, once, instead of being claimed again and again."""
    transition.fail_unloadable()
    transition.close()


def complete(tx: Tx, catalogue: Catalogue, held: Claimed, ended: Ended, now: int, *, go_on: bool = False) -> Completed:
    """Write what came of a claimed step, its calls' costs included. With `go_on` the worker takes the one step that this unlocks."""
    tx.point("complete")
    for settlement in ended.settlements:
        settle_call(tx, settlement)
    family = lock_family(tx, held.run) if isinstance(ended.outcome, OverBudget) else None
    graph = catalogue.graph(tx, held.run["version_id"])
    locked = _hold(tx, held, *graph.dependents(held.key)[:AT_HAND])
    if locked is None:
        return Completed(accepted=False)
    run, row, waiting = locked
    transition = Transition(tx, run, graph, now)
    transition.at_hand = {each["key"]: each for each in waiting}
    _apply(transition, row, held, ended, catalogue)
    following = _take_next(transition, held.worker_id) if go_on else None
    transition.close()
    if family is not None and isinstance(ended.outcome, OverBudget):
        pause_family(tx, catalogue, run, family, now, ended.outcome.message)
    return Completed(True, tuple(transition.all_rings()), transition.ended, following)


def _take_next(transition: Transition, worker_id: str) -> Claimed | None:
    """Where just one step has become ready: one commit less, and no bell. Several are rung, so that other processes take part."""
    if len(transition.rings) != 1 or transition.rings_elsewhere or transition.run["status"] not in _CLAIMABLE:
        return None
    transition.tx.point("claim")
    step_id = transition.rings[0].step_id
    unlocked = transition.take_unlocked()
    if unlocked is not None:
        return _take(transition, unlocked, worker_id)
    row = get_step(transition.tx, step_id)
    if row is None or row["status"] != StepStatus.READY.value or is_suspect(row):
        return None
    transition.rings.clear()
    return _take(transition, row, worker_id)


def _take(transition: Transition, row: Row, worker_id: str, *, alone: bool = False) -> Claimed:
    """Begin an attempt of a step that is ready, or is as good as ready, under the run's lock."""
    tx, run, graph, now = transition.tx, transition.run, transition.graph, transition.now
    taken = begin_step(tx, row, worker_id, now)
    step_id, key, attempt = row["id"], taken["key"], taken["attempt"]
    insert_attempt(tx, step_id, attempt, worker_id, now)
    if run["status"] != RunStatus.RUNNING.value:
        transition.begin_run()
        if run["status"] == RunStatus.QUEUED.value:
            transition.history.add(EventType.RUN_STARTED)
    data = {"alone": True} if alone else None
    transition.history.add(EventType.STEP_STARTED, step=key, attempt=attempt, data=data)
    transition.stays_active()
    step = with_model(graph.step(key), run["models_json"])
    return Claimed(
        run=run,
        step_id=step_id,
        key=key,
        attempt=attempt,
        worker_id=worker_id,
        definition=graph.definition,
        step=step,
        scope=scope_of(tx, run, graph, step.reads, graph.reads_from(key)),
        tags=loads(run["tags_json"]),
        started_us=taken["started_us"],
    )


def give_back(tx: Tx, held: Claimed, now: int) -> Completed:
    """Hand a claimed step back, as a draining worker does: another may take it at once, and no attempt is counted."""
    tx.point("give_back")
    locked = _hold(tx, held)
    if locked is None:
        return Completed(accepted=False)
    run, row, _ = locked
    end_attempt(tx, held.step_id, held.attempt, AttemptStatus.RETURNED, now)
    put_back_step(tx, row, StepStatus.READY, now)
    return Completed(True, (Ring(held.step_id, run["priority"]),))


def open_call(tx: Tx, held: Claimed, intent: Intent) -> AIGatewayError | None:
    """Write a call's intent, in the same transaction as the check that it may be made and fits into every budget.

    Returns why not, else None. Raises: Conflict where the worker no longer holds the step.
    """
    tx.point("open_call")
    note_unknown_price(tx, intent)
    admission = admit(tx, intent)  # before the run is locked, as `complete` does it
    above = lock_runs_above(tx, held.run)
    locked = _hold(tx, held)
    if locked is None:
        raise Conflict("attempt_superseded", "another worker holds this step now")
    refused = admission.refused
    for run in (locked[0], *above):
        refused = refused or _over_run_budget(tx, run, intent)
    if held.step.type == ASK:
        refused = over_cap(tx, held.run["id"], held.key, held.step, intent.reserve_picousd) or refused
    if refused is None:
        write_intent(tx, intent, held.worker_id, admission)
    return refused


def _over_run_budget(tx: Tx, run: Row, intent: Intent) -> BudgetExceeded | None:
    budget = run["budget_picousd"]
    if budget is None or not intent.reserve_picousd:
        return None
    committed = run_committed_picousd(tx, run["id"])
    if committed + intent.reserve_picousd <= budget:
        return None
    return BudgetExceeded(
        f"the call can cost {usd_text(intent.reserve_picousd)} USD, of the run's {usd_text(budget)} USD "
        f"only {usd_text(max(0, budget - committed))} are left"
    )


def remaining_picousd(tx: Tx, scope: CallScope, now: int) -> int | None:
    """What is left for a step's next call in its run's budget and all others, every open call at its worst case; None: no limit."""
    assert scope.run_id is not None
    left = left_in_budgets(tx, scope, now)
    run = get_run(tx, scope.run_id)
    while run is not None:
        if run["budget_picousd"] is not None:
            own = run["budget_picousd"] - run_committed_picousd(tx, run["id"])
            left = own if left is None else min(own, left)
        run = get_run(tx, run["parent_run_id"]) if run["parent_run_id"] else None
    return left


def _hold(tx: Tx, held: Claimed, *keys: str) -> tuple[Row, Row, list[Row]] | None:
    """Lock the run and see whether the worker still holds the step; its row, and those of the same run with these keys."""
    run, row, others = locked_step(tx, held.run["id"], held.step_id, *keys)
    if run is None or row is None:
        return None
    mine = (
        row["status"] == StepStatus.RUNNING.value
        and row["attempt"] == held.attempt
        and row["worker_id"] == held.worker_id
    )
    return (run, row, others) if mine else None


def _apply(transition: Transition, row: Row, held: Claimed, ended: Ended, catalogue: Catalogue) -> None:
    """Write the attempt's end, and what follows for the step."""
    outcome = ended.outcome
    match outcome:
        case Failed():
            _fail(transition, row, held, outcome, ended.chance)
        case OverBudget():
            _stop_over_budget(transition, row, held, outcome)
        case Throttled():
            _throttle(transition, row, held, outcome)
        case AskedForTools(message, calls, model):
            end_attempt(transition.tx, row["id"], held.attempt, AttemptStatus.SUCCEEDED, transition.now)
            add_calls(transition, row, held.step, calls)
            transition.end_step(row, StepStatus.SUCCEEDED, output=message, model=model)
        case Succeeded():
            _succeed(transition, row, held, outcome)
        case Skipped():
            end_attempt(transition.tx, row["id"], held.attempt, AttemptStatus.SUCCEEDED, transition.now)
            transition.end_step(row, StepStatus.SKIPPED)
        case _:
            end_attempt(transition.tx, row["id"], held.attempt, AttemptStatus.SUCCEEDED, transition.now)
            _go_on(transition, row, held.step, outcome, catalogue)


def _succeed(transition: Transition, row: Row, held: Claimed, outcome: Succeeded) -> None:
    """A result that is too large to be stored fails the step at once: a further attempt would be as large."""
    try:
        kept = transition.keep(outcome.output)
    except TooLarge as error:
        _fail(transition, row, held, Failed(ErrorClass.INVALID_OUTPUT, error.message, final=True), chance=0.0)
        return
    end_attempt(transition.tx, row["id"], held.attempt, AttemptStatus.SUCCEEDED, transition.now)
    transition.end_step(row, StepStatus.SUCCEEDED, kept=kept, model=outcome.model)


def _go_on(transition: Transition, row: Row, step: Step, outcome: GoesOn, catalogue: Catalogue) -> None:
    """The attempt is over and the step is not: it waits."""
    limit_us = limit_of(step, row["type"], row["started_us"])
    match outcome:
        case Branched(branch):
            transition.branch(row, step, branch, limit_us)
        case Opened(items):
            transition.open(row, step, items, limit_us)
        case Sleeping(seconds, until_us):
            _sleep(transition, row, until_us if seconds is None else transition.now + int(seconds * 1_000_000))
        case Listening() if step.type == CALL:
            wait_for_approval(transition, row, limit_us)
        case Listening(signal):
            listen(transition, row, step, signal, limit_us)
        case Calling():
            call(transition, catalogue, row, outcome, limit_us)
        case _:
            assert_never(outcome)


def _sleep(transition: Transition, row: Row, until_us: int) -> None:
    if until_us <= transition.now:
        transition.end_step(row, StepStatus.SUCCEEDED)
        return
    transition.wait(row, TIMER, due=until_us)
    data = {"for": TIMER, "until": iso(until_us)}
    transition.history.add(EventType.STEP_WAITING, step=row["key"], attempt=row["attempt"], data=data)


def _stop_over_budget(transition: Transition, row: Row, held: Claimed, over: OverBudget) -> None:
    tx, error = transition.tx, StepError(ErrorClass.BUDGET_EXCEEDED, over.message)
    end_attempt(tx, row["id"], held.attempt, AttemptStatus.RETURNED, transition.now, **error.columns())
    put_back_step(tx, row, StepStatus.READY, transition.now)
    _pause_over_budget(transition, row, over.message)


def _pause_over_budget(transition: Transition, row: Row, message: str) -> None:
    """Pause the run; where a step beside this one, or a person, has paused it already, that stands."""
    tx, run = transition.tx, transition.run
    if run["status"] == RunStatus.PAUSED.value:
        return
    set_run_status(tx, run["id"], RunStatus.PAUSED, BUDGET)
    data = {"reason": BUDGET, "message": message}
    transition.history.add(EventType.RUN_PAUSED, step=row["key"], data=data)
    queue_webhook(tx, run, "run.paused", transition.now)


def _throttle(transition: Transition, row: Row, held: Claimed, throttled: Throttled) -> None:
    """Wait until the key may go on; no attempt is counted."""
    due = transition.now + max(1, int(throttled.retry_after_s * 1_000_000))
    deadline_s = held.step.deadline_s
    if deadline_s is not None and due >= held.started_us + deadline_s * 1_000_000:
        failed = Failed(ErrorClass.RATE_LIMIT, throttled.message, final=True)
        _fail(transition, row, held, failed, chance=0.0)
        return
    error = {"error_class": ErrorClass.RATE_LIMIT.value, "error_message": storable(throttled.message)}
    end_attempt(transition.tx, row["id"], held.attempt, AttemptStatus.RETURNED, transition.now, **error)
    transition.retry_later()
    put_back_step(transition.tx, row, StepStatus.WAITING, due)


def _retry_in_s(held: Claimed, failed: Failed, tries: int, chance: float, now: int) -> float | None:
    """The pause before the next attempt; None where there is none, or where it would begin behind the step's deadline."""
    if failed.final:
        return None
    pause = retry_pause_s(
        held.step.retry or DEFAULT_RETRY,
        failures=tries,
        error_class=failed.error_class,
        retry_after_s=failed.retry_after_s,
        chance=chance,
    )
    deadline_s = held.step.deadline_s
    if pause is None or deadline_s is None:
        return pause
    spent_s = (now - held.started_us) / 1_000_000
    return pause if spent_s + pause < deadline_s else None


def _fail(transition: Transition, row: Row, held: Claimed, failed: Failed, chance: float) -> None:
    error = {"error_class": failed.error_class.value, "error_message": storable(failed.message)}
    tx, now = transition.tx, transition.now
    end_attempt(tx, row["id"], held.attempt, AttemptStatus.FAILED, now, **error)
    tries = row["tries"] + 1
    pause = _retry_in_s(held, failed, tries, chance, now)
    if pause is None:
        transition.end_step(row, StepStatus.FAILED, error=StepError(failed.error_class, failed.message))
        return
    due = now + int(pause * 1_000_000)
    # One that was run alone and lives to tell has shown that it kills nobody: its losses were others' doing.
    losses = 0 if is_suspect(row) else row["losses"]
    put_back_step(tx, row, StepStatus.WAITING, due, tries=tries, losses=losses, **error)
    transition.retry_later()
    data = {"class": failed.error_class.value, "message": failed.message, "pause_s": round(pause, 3)}
    transition.history.add(EventType.STEP_RETRYING, step=row["key"], attempt=held.attempt, data=data)
