"""A run's steps a page at a time: their order, which is cheap to read for all of them, and all that is shown of some."""

from collections.abc import Sequence

from sqlalchemy import BindParameter, bindparam, select

from engine.store.database import Row, Tx
from engine.store.statements import Statement
from engine.store.tables import attempts, requests, runs, steps

MOST = 200
"""Steps of a page: what the API gives at once."""

_PARAMETERS: list[BindParameter[str]] = [bindparam(f"one{number}") for number in range(MOST)]
_ORDER = (steps.c.started_us.is_(None), steps.c.started_us, steps.c.position, steps.c.key)
_OF_RUN = Statement(
    select(steps.c.id, steps.c.key, steps.c.type, steps.c.parent_key)
    .where(steps.c.run_id == bindparam("run"))
    .order_by(*_ORDER)
)
_STEPS = Statement(select(steps).where(steps.c.id.in_(_PARAMETERS)).order_by(*_ORDER))
_ATTEMPTS = Statement(
    select(attempts).where(attempts.c.step_id.in_(_PARAMETERS)).order_by(attempts.c.step_id, attempts.c.number)
)
_CALLS = Statement(
    select(requests)
    .where(requests.c.run_id == bindparam("run"), requests.c.step_id.in_(_PARAMETERS))
    .order_by(requests.c.id)
)
_CHILDREN = Statement(
    select(runs.c.id, runs.c.parent_step_id)
    .where(runs.c.parent_run_id == bindparam("run"), runs.c.parent_step_id.in_(_PARAMETERS))
    .order_by(runs.c.id)
)


def steps_in_order(tx: Tx, run_id: str) -> list[Row]:
    """id, key, type and parent_key of all steps as `steps_of_run` orders them."""
    return tx.all(_OF_RUN, {"run": run_id})


def steps_among(tx: Tx, ids: Sequence[str]) -> list[Row]:
    """The rows of at most MOST steps, in the same order."""
    return tx.all(_STEPS, _padded(ids))


def attempts_among(tx: Tx, ids: Sequence[str]) -> list[Row]:
    """Their attempts, in order per step."""
    return tx.all(_ATTEMPTS, _padded(ids))


def calls_among(tx: Tx, run_id: str, keys: Sequence[str]) -> list[Row]:
    """The calls of at most MOST steps of a run, given by their keys, in order."""
    return tx.all(_CALLS, {"run": run_id, **_padded(keys)})


def children_among(tx: Tx, run_id: str, ids: Sequence[str]) -> dict[str, str]:
    """The newest run that each of these steps has started, by step."""
    found = tx.all(_CHILDREN, {"run": run_id, **_padded(ids)})
    return {row["parent_step_id"]: row["id"] for row in found}


def _padded(values: Sequence[str]) -> dict[str, str]:
    return {f"one{number}": values[number] if number < len(values) else "" for number in range(MOST)}
