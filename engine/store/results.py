"""Queries on what steps came to, for the expressions that read it."""

from collections.abc import Iterable
from dataclasses import dataclass

from engine.store.database import Row, Tx
from engine.store.requests import STEP_SUMS, whole_numbers
from engine.store.steps import STEP_BY_KEY


@dataclass(frozen=True, slots=True)
class Result:
    """A step's row, and the sums of its own calls, as `run_sums` has those of a run."""

    step: Row
    sums: Row


def results_of(tx: Tx, run_id: str, keys: Iterable[str]) -> dict[str, Result]:
    """Of the steps of a run that have these keys, by key, in one round trip; what is not there is left out."""
    wanted = [{"run": run_id, "key": key} for key in dict.fromkeys(keys)]
    if not wanted:
        return {}
    found = iter(tx.together(*((query, each) for each in wanted for query in (STEP_BY_KEY, STEP_SUMS))))
    pairs = [(next(found), next(found)) for _ in wanted]
    return {rows[0]["key"]: Result(rows[0], whole_numbers(sums[0])) for rows, sums in pairs if rows}
