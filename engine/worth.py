"""What a result was worth: the cost and the tokens of the calls that made it, in the run that made it.

A fork pays for nothing that it copies, so its own sums leave that out. An expression that reads `steps.ID.cost_usd` asks what the
result has cost, though, and reads the same in a fork as in the run that it was forked from, for as long as that run is kept.
"""

from engine.agent_steps import AGENT
from engine.store.database import Row, Tx
from engine.store.requests import agent_sums, run_sums
from engine.store.results import Result
from engine.store.runs import get_run
from engine.store.worth import calls_of_step, newest_child, tried_inside, tried_step

_MOST_FORKS = 100  # that are gone back through
_CALLS = "workflow"  # the type of steps whose calls are those of another run


def worth(tx: Tx, run: Row, result: Result) -> tuple[int, int]:
    """Pico-dollars and tokens of a step's result; of an agent all its turns, of a child run all that is below it."""
    step = result.step
    if run["forked_from"] is None and step["type"] != _CALLS:
        sums = agent_sums(tx, run["id"], step["key"]) if step["type"] == AGENT else result.sums
        return sums["cost_picousd"], sums["total_tokens"]
    cost = tokens = 0
    wanted: set[str] | None = None
    source: Row | None = run
    for _ in range(_MOST_FORKS):
        if source is None or wanted == set():
            break
        rows = (tried_inside if step["type"] == AGENT else tried_step)(tx, source["id"], step["key"])
        wanted = {row["key"] for row in rows} if wanted is None else wanted
        for row in rows:
            if row["tried"] and row["key"] in wanted:
                wanted.discard(row["key"])
                sums = _sums(tx, source["id"], row, step["type"])
                cost, tokens = cost + sums["cost_picousd"], tokens + sums["total_tokens"]
        source = None if source["forked_from"] is None else get_run(tx, source["forked_from"])
    return cost, tokens


def _sums(tx: Tx, run_id: str, row: Row, kind: str) -> Row:
    child = newest_child(tx, run_id, row["id"]) if kind == _CALLS else None
    return calls_of_step(tx, run_id, row["key"]) if child is None else run_sums(tx, child)
