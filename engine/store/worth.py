"""Queries on what single results were worth: the steps of a run that were tried in it, and the calls and the child run of each."""

from sqlalchemy import bindparam, exists, func, select

from engine.store.database import Row, Tx
from engine.store.statements import Statement
from engine.store.tables import attempts, requests, runs, steps

_TRIED = exists(select(attempts.c.number).where(attempts.c.step_id == steps.c.id)).label("tried")
_ONE = Statement(
    select(steps.c.id, steps.c.key, _TRIED).where(steps.c.run_id == bindparam("run"), steps.c.key == bindparam("key"))
)
_turns = steps.alias()
_INSIDE_TURNS = Statement(
    select(steps.c.id, steps.c.key, _TRIED)
    .select_from(steps.join(_turns, (_turns.c.run_id == steps.c.run_id) & (_turns.c.key == steps.c.parent_key)))
    .where(_turns.c.run_id == bindparam("run"), _turns.c.parent_key == bindparam("key"))
)
_CALLS = Statement(
    select(
        func.coalesce(func.sum(requests.c.cost_picousd), 0).label("cost_picousd"),
        func.coalesce(func.sum(requests.c.total_tokens), 0).label("total_tokens"),
    ).where(requests.c.run_id == bindparam("run"), requests.c.step_id == bindparam("key"))
)
_NEWEST_CHILD = Statement(
    select(func.max(runs.c.id).label("id")).where(
        runs.c.parent_run_id == bindparam("run"), runs.c.parent_step_id == bindparam("step")
    )
)


def tried_step(tx: Tx, run_id: str, key: str) -> list[Row]:
    """id, key and `tried` (whether it was run in that run and not copied into it) of a step, in a list."""
    return tx.all(_ONE, {"run": run_id, "key": key})


def tried_inside(tx: Tx, run_id: str, agent_key: str) -> list[Row]:
    """The same for each question and call of an agent."""
    return tx.all(_INSIDE_TURNS, {"run": run_id, "key": agent_key})


def calls_of_step(tx: Tx, run_id: str, key: str) -> Row:
    """cost_picousd and total_tokens of a step's own calls."""
    found = tx.one(_CALLS, {"run": run_id, "key": key})
    assert found is not None
    return {name: int(value) for name, value in found.items()}


def newest_child(tx: Tx, run_id: str, step_id: str) -> str | None:
    """The newest run that a `workflow` step, given by its row id, has started; the others of its run are not fetched."""
    found = tx.one(_NEWEST_CHILD, {"run": run_id, "step": step_id})
    return None if found is None else found["id"]
