"""What is told of a run to whoever started it: that it was accepted, or what it came to."""

from dataclasses import dataclass, field
from typing import Any

from api.run_watch import SETTLED
from engine.states import RunStatus
from engine.store.database import Row, Tx
from engine.store.events import why_paused
from engine.views import run_links, run_view, steps_view


@dataclass(frozen=True, slots=True)
class Answer:
    """A body with its status and headers."""

    body: dict[str, Any]
    status: int
    headers: dict[str, str] = field(default_factory=dict[str, str])


def accepted(run: Row) -> Answer:
    """The run is stored and goes on by itself."""
    links = run_links(run["id"])
    return Answer({"id": run["id"], "status": run["status"], "links": links}, 202, {"location": links["self"]})


def outcome(tx: Tx, run: Row) -> Answer:
    """What a synchronous run came to, once it has ended or paused; until then that it was accepted."""
    if run["status"] not in SETTLED:
        return accepted(run)
    view = run_view(tx, run)
    body = {"run_id": run["id"], "status": run["status"], "output": view["output"], "metrics": _metrics(tx, view)}
    if run["status"] == RunStatus.SUCCEEDED.value:
        return Answer(body, 200)
    failed = run["status"] == RunStatus.FAILED.value
    told = view["error"] or {"step": None, "class": run["status"], "message": _why_stopped(tx, run)}
    shape = {
        "type": "server_error" if failed else "invalid_request_error",
        "code": f"run_{run['status']}",
        "param": None,
    }
    headers = {"x-should-retry": "false"}  # the same key would give the same run
    return Answer({**body, "error": {**told, **shape}}, 502 if failed else 409, headers)


def _metrics(tx: Tx, run: dict[str, Any]) -> dict[str, Any]:
    steps = [
        {
            "id": step["id"],
            "status": step["status"],
            "cost": step["cost_usd"],
            "tokens": step["tokens"],
            "latency_ms": step["latency_ms"],
            "model": step["model"],
        }
        for step in steps_view(tx, run["id"])
    ]
    return {
        "total_cost_usd": run["cost_usd"],
        "cost_unknown_calls": run["cost_unknown_calls"],
        "total_tokens": run["tokens"],
        "latency_ms": run["latency_ms"],
        "steps": steps,
    }


def _why_stopped(tx: Tx, run: Row) -> str:
    if run["pause_reason"] == "budget_exceeded":
        limit = ": ".join(filter(None, ("its next call does not fit into a budget", why_paused(tx, run["id"]))))
        return f"the run is paused: {limit}; resume it then, or with a larger budget_usd where the run's own is used up"
    return f"the run was {run['status']}"
