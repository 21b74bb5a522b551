"""All that is kept of one run's steps, in one round trip."""

from dataclasses import dataclass

from engine.store.database import Row, Tx
from engine.store.requests import REQUESTS_OF_RUN
from engine.store.runs import CHILDREN_OF_RUN
from engine.store.steps import ATTEMPTS_OF_RUN, STEPS_OF_RUN


@dataclass(frozen=True, slots=True)
class WholeRun:
    """Steps as `steps_of_run` gives them, attempts in order per step, calls in order, the newest child run by its step's row id."""

    steps: list[Row]
    attempts: list[Row]
    calls: list[Row]
    children: dict[str, str]


def whole_run(tx: Tx, run_id: str) -> WholeRun:
    """Its steps with their attempts, calls and child runs."""
    run = {"run": run_id}
    steps, attempts, calls, children = tx.together(
        (STEPS_OF_RUN, run), (ATTEMPTS_OF_RUN, run), (REQUESTS_OF_RUN, run), (CHILDREN_OF_RUN, run)
    )
    return WholeRun(steps, attempts, calls, {row["parent_step_id"]: row["id"] for row in children})
