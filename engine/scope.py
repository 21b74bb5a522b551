"""The names that a step's expressions may use, read from the results stored so far."""

from collections.abc import Iterable
from typing import Any

from engine.money import to_usd
from engine.plan import Graph
from engine.store.database import Row, Tx
from engine.store.payloads import unpack
from engine.store.requests import step_sums
from engine.store.steps import step_by_key


def scope_of(tx: Tx, run: Row, graph: Graph, references: Iterable[str]) -> dict[str, Any]:
    """`input`, `run`, `steps.ID` and output names of the referenced steps; unset names are null."""
    scope: dict[str, Any] = {
        "input": unpack(tx, run["input_json"], run["input_digest"]),
        "run": {"id": run["id"]},
    }
    results: dict[str, Any] = {}
    for step_id in references:
        result = _result(tx, run["id"], step_id)
        results[step_id] = result
        name = graph.step(step_id).output
        if name is not None and (scope.get(name) is None):
            scope[name] = result["output"]
    scope["steps"] = results
    return scope


def _result(tx: Tx, run_id: str, key: str) -> dict[str, Any]:
    row = step_by_key(tx, run_id, key)
    if row is None:
        return {"output": None, "cost_usd": 0.0, "tokens": 0, "model": None, "error": None}
    sums = step_sums(tx, run_id, key)
    failed = row["error_class"] is not None and row["status"] == "failed"
    return {
        "output": unpack(tx, row["output_json"], row["output_digest"]),
        "cost_usd": to_usd(sums["cost_picousd"]),
        "tokens": sums["total_tokens"],
        "model": row["model"],
        "error": {"class": row["error_class"], "message": row["error_message"]} if failed else None,
    }
