"""What happens to a waiting step whose time has come, by what it waits for. Called by the sweeper under the run's lock."""

from engine.agent_steps import CALL
from engine.approvals import refuse
from engine.states import ErrorClass, StepStatus
from engine.store.database import Row
from engine.transition import StepError, Transition


def time_has_come(transition: Transition, row: Row) -> None:
    """Go on with a step; one that was woken already, or has got a later time, is left alone."""
    if row["status"] != StepStatus.WAITING.value or row["due_us"] is None or row["due_us"] > transition.now:
        return
    match row["waits_for"]:
        case None:  # a retry, or the run's start
            transition.make_ready(row)
        case "timer":
            transition.end_step(row, StepStatus.SUCCEEDED)
        case "children" | "run":
            _expire(transition, row, "it did not end")
        case _:
            _no_signal(transition, row)


def _no_signal(transition: Transition, row: Row) -> None:
    step = transition.graph.step(row["key"])
    if step.type == CALL:
        refuse(transition, row, f"nobody answered within {(row['due_us'] - row['started_us']) / 1_000_000:g} s")
        return
    match step.fields.get("on_timeout", "fail"):
        case "continue":
            transition.end_step(row, StepStatus.SUCCEEDED)
        case "steps":
            transition.branch(row, step, "on_timeout")
        case _:
            _expire(transition, row, f"no signal '{row['waits_for'].partition(':')[2]}' came")


def _expire(transition: Transition, row: Row, what: str) -> None:
    seconds = (row["due_us"] - row["started_us"]) / 1_000_000
    transition.cancel_inside(row["key"])
    error = StepError(ErrorClass.TIMEOUT, f"{what} within {seconds:g} s")
    transition.end_step(row, StepStatus.FAILED, error=error)
