"""The names that a step's expressions may use, read from the results stored so far."""

from typing import Any

from engine.definition import Reads, Step
from engine.keys import HANDLERS
from engine.money import to_usd
from engine.plan import Graph, address, index_of, item_key_of, prefix_of
from engine.store.database import Row, Tx
from engine.store.payloads import unpack
from engine.store.results import Result, results_of
from engine.store.steps import step_by_key
from engine.worth import worth

_NOTHING = {"output": None, "cost_usd": 0.0, "tokens": 0, "model": None, "error": None}


def scope_of(tx: Tx, run: Row, graph: Graph, reads: Reads, key: str = "") -> dict[str, Any]:
    """What the step of that key may read, see `scope_inside`; without a key, what the run's output may."""
    return scope_inside(tx, run, graph, reads, prefix_of(key))


def scope_inside(tx: Tx, run: Row, graph: Graph, reads: Reads, prefix: str) -> dict[str, Any]:
    """`input`, `run`, `steps.ID` and output names of what is read, as seen from where keys begin with `prefix`; unset names are null."""
    scope: dict[str, Any] = {"run": {"id": run["id"], "error": _run_error(run)}}
    if reads.input or run["input_digest"] is None:  # a large one is read only for those who need it
        scope["input"] = unpack(tx, run["input_json"], run["input_digest"])
    results: dict[str, Any] = {}
    scopes: dict[str, str] = {}  # of the names: the paths' prefix; what stands further inside hides what stands outside
    found = [(path, address(prefix, path)) for path in reads.references]
    found += [(path, address(prefix, path, back=1)) for path in reads.carried]
    stored = results_of(tx, run["id"], (key for _, key in found if key is not None))
    for path, key in sorted(found, key=_inner_first):
        step = graph.step(path)
        result = _result(tx, run, stored.get(key or ""))
        results.setdefault(step.id, result)
        _name(scope, scopes, step, result["output"])
    scope["steps"] = results
    _add_item(tx, run, graph, scope, prefix if reads.item else "")
    index = index_of(prefix)
    return scope if index is None else scope | {"index": index}


def _inner_first(entry: tuple[str, str | None]) -> tuple[int, str]:
    path, _ = entry
    return -path.count("."), path


def _name(scope: dict[str, Any], scopes: dict[str, str], step: Step, output: Any) -> None:
    """Of several steps that set a name in one place, the one that ran has set it."""
    if step.output is None:
        return
    place = prefix_of(step.path)
    if scopes.setdefault(step.output, place) == place and scope.get(step.output) is None:
        scope[step.output] = output


def _add_item(tx: Tx, run: Row, graph: Graph, scope: dict[str, Any], prefix: str) -> None:
    key = item_key_of(prefix, graph) if prefix else None
    part = None if key is None else step_by_key(tx, run["id"], key)
    if part is not None:
        scope["item"] = unpack(tx, part["input_json"], part["input_digest"])


def _run_error(run: Row) -> dict[str, Any] | None:
    if run["error_class"] is None:
        return None
    return {"step": run["error_step"], "class": run["error_class"], "message": run["error_message"]}


def _result(tx: Tx, run: Row, stored: Result | None) -> dict[str, Any]:
    if stored is None:
        return _NOTHING
    row = stored.step
    cost_picousd, tokens = worth(tx, run, stored)
    failed = row["error_class"] is not None and (row["status"] == "failed" or row["branch"] == HANDLERS[0])
    return {
        "output": unpack(tx, row["output_json"], row["output_digest"]),
        "cost_usd": to_usd(cost_picousd),
        "tokens": tokens,
        "model": row["model"],
        "error": {"class": row["error_class"], "message": row["error_message"]} if failed else None,
    }
