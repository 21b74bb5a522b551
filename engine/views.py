"""Rows as the JSON that users see (contract §3): runs, steps, requests, deliveries, events, workflows."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from engine.clock import iso
from engine.money import to_usd
from engine.plan import PARTS
from engine.states import BUDGET, StepStatus
from engine.store.database import Row, Tx
from engine.store.deliveries import attempts_of_deliveries, deliveries_of_run
from engine.store.events import last_pause
from engine.store.json_text import loads
from engine.store.payloads import unpack
from engine.store.requests import run_sums
from engine.store.step_pages import attempts_among, calls_among, children_among, steps_among
from engine.store.whole_runs import WholeRun, whole_run


def run_view(tx: Tx, run: Row) -> dict[str, Any]:
    """A run with its totals, computed from the ledger's rows."""
    sums = run_sums(tx, run["id"])
    error = None
    if run["error_class"] is not None:
        error = {"step": run["error_step"], "class": run["error_class"], "message": run["error_message"]}
    return {
        "id": run["id"],
        "workflow": run["workflow_name"],
        "version": run["version"],
        "status": run["status"],
        "pause_reason": run["pause_reason"],
        "input": unpack(tx, run["input_json"], run["input_digest"]),
        "output": unpack(tx, run["output_json"], run["output_digest"]),
        "error": error,
        "cost_usd": to_usd(sums["cost_picousd"]),
        "cost_unknown_calls": sums["unknown_calls"],
        "tokens": sums["total_tokens"],
        "usage": usage_view(sums),
        "latency_ms": _elapsed_ms(run["created_us"], run["finished_us"]),
        "budget_usd": None if run["budget_picousd"] is None else to_usd(run["budget_picousd"]),
        "priority": run["priority"],
        "tags": loads(run["tags_json"]),
        "forked_from": run["forked_from"],
        "parent": run["parent_run_id"],
        "schedule": None
        if run["schedule_id"] is None
        else {"id": run["schedule_id"], "due_at": iso(run["scheduled_us"])},
        "start_at": _iso(run["start_us"]),
        "created_at": iso(run["created_us"]),
        "started_at": _iso(run["started_us"]),
        "finished_at": _iso(run["finished_us"]),
        "links": run_links(run["id"]) | _stopped_by(tx, run),
    }


def _stopped_by(tx: Tx, run: Row) -> dict[str, str]:
    """Where to look why a run stands still because one that it started, or that one's, is over a budget."""
    below = last_pause(tx, run["id"]).get("run") if run["pause_reason"] == BUDGET else None
    return {"paused_by": f"/v1/runs/{below}"} if below else {}


def run_links(run_id: str) -> dict[str, str]:
    """Where to go on from a run."""
    here = f"/v1/runs/{run_id}"
    return {"self": here, "steps": f"{here}/steps", "events": f"{here}/events", "cancel": f"{here}/cancel"}


def usage_view(sums: Row) -> dict[str, int]:
    """Token sums: prompt_tokens include cached ones, as OpenAI counts."""
    names = (
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
    )
    return {name: sums[name] for name in names}


def steps_view(tx: Tx, run_id: str) -> list[dict[str, Any]]:
    """A run's steps in the order they ran, each with its attempts and their calls."""
    whole = whole_run(tx, run_id)
    return _views(tx, whole, _parts(whole.steps))


def step_ids(order: Sequence[Row]) -> list[Row]:
    """Of rows of `steps_in_order` those that `steps_view` tells, each with nothing but its `id`."""
    return [{"id": row["key"]} for row in order if row["type"] not in PARTS]


def some_steps_view(tx: Tx, run_id: str, order: Sequence[Row], keys: Collection[str]) -> list[dict[str, Any]]:
    """What `steps_view` tells of the steps with these ids, at most a page of them; `order` are all as `steps_in_order` gives them."""
    ids = [row["id"] for row in order if row["key"] in keys]
    calls = calls_among(tx, run_id, list(keys))
    page = WholeRun(steps_among(tx, ids), attempts_among(tx, ids), calls, children_among(tx, run_id, ids))
    return _views(tx, page, _parts(order))


def _parts(rows: Sequence[Row]) -> dict[str, str | None]:
    """What stands for the steps inside it, and is not told itself, with where it stands."""
    return {row["key"]: row["parent_key"] for row in rows if row["type"] in PARTS}


def _views(tx: Tx, found: WholeRun, parts: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """`found`: these steps, with attempts and calls of theirs, and of others too."""
    calls: dict[tuple[str, int | None], list[Row]] = defaultdict(list)
    for call in found.calls:
        calls[call["step_id"], call["attempt"]].append(call)
    attempts: dict[str, list[Row]] = defaultdict(list)
    for attempt in found.attempts:
        attempts[attempt["step_id"]].append(attempt)
    views: list[dict[str, Any]] = []
    for row in found.steps:
        if row["type"] in PARTS:
            continue
        view = _step_view(tx, row, attempts[row["id"]], calls)
        view["parent"] = parts.get(row["parent_key"], row["parent_key"])
        if row["type"] == "mcp_tool" and (row["input_json"] or row["input_digest"]):
            view["call"] = _call_view(tx, row)
        views.append(view | _child_view(tx, found.children[row["id"]]) if row["id"] in found.children else view)
    return views


def _call_view(tx: Tx, row: Row) -> dict[str, Any]:
    """What an agent's call asks for: the tool (null where the agent has none of that name) and its arguments."""
    told = unpack(tx, row["input_json"], row["input_digest"])
    return {name: told[name] for name in ("name", "tool", "arguments")}


def _child_view(tx: Tx, run_id: str) -> dict[str, Any]:
    """What a child run adds to its step: its id, and its sums."""
    sums = run_sums(tx, run_id)
    return {
        "run": run_id,
        "cost_usd": to_usd(sums["cost_picousd"]),
        "cost_unknown_calls": sums["unknown_calls"],
        "tokens": sums["total_tokens"],
    }


def _step_view(
    tx: Tx, step: Row, attempts: list[Row], calls: dict[tuple[str, int | None], list[Row]]
) -> dict[str, Any]:
    waiting = step["status"] == StepStatus.WAITING.value
    own = [call for attempt in attempts for call in calls[step["key"], attempt["number"]]]
    error = None
    if step["error_class"] is not None and step["status"] != StepStatus.SUCCEEDED.value:
        error = {"class": step["error_class"], "message": step["error_message"]}
    return {
        "id": step["key"],
        "type": step["type"],
        "parent": step["parent_key"],
        "status": step["status"],
        "output": unpack(tx, step["output_json"], step["output_digest"]),
        "error": error,
        "model": step["model"],
        "cost_usd": to_usd(sum(call["cost_picousd"] or 0 for call in own)),
        "cost_unknown_calls": sum(call["cost_source"] == "unknown" and call["status"] != "started" for call in own),
        "tokens": sum(call["total_tokens"] or 0 for call in own),
        "latency_ms": _elapsed_ms(step["started_us"], step["finished_us"]),
        "started_at": _iso(step["started_us"]),
        "finished_at": _iso(step["finished_us"]),
        "next_attempt_at": _iso(step["due_us"]) if waiting and step["waits_for"] is None else None,
        "waits_for": step["waits_for"] if waiting else None,
        "waits_until": _iso(step["due_us"]) if waiting and step["waits_for"] is not None else None,
        "attempts": [_attempt_view(attempt, calls[step["key"], attempt["number"]]) for attempt in attempts],
    }


def _attempt_view(attempt: Row, calls: list[Row]) -> dict[str, Any]:
    error = None
    if attempt["error_class"] is not None:
        error = {"class": attempt["error_class"], "message": attempt["error_message"]}
    return {
        "number": attempt["number"],
        "status": attempt["status"],
        "worker": attempt["worker_id"],
        "error": error,
        "started_at": iso(attempt["started_us"]),
        "finished_at": _iso(attempt["finished_us"]),
        "calls": [request_view(call) for call in calls],
    }


def request_view(row: Row) -> dict[str, Any]:
    """A row of the ledger."""
    plain = (
        "id",
        "request_id",
        "workflow_name",
        "run_id",
        "step_id",
        "attempt",
        "kind",
        "provider",
        "model",
        "requested_model",
        "key_id",
        "status",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "cache_write_1h_tokens",
        "reasoning_tokens",
        "cost_source",
        "latency_ms",
        "ttft_ms",
        "status_code",
        "error_class",
        "error",
    )
    return {
        **{name: row[name] for name in plain},
        "timestamp": iso(row["started_us"]),
        "finished_at": _iso(row["finished_us"]),
        "cost_usd": None if row["cost_picousd"] is None else to_usd(row["cost_picousd"]),
        "saved_usd": None if row["saved_picousd"] is None else to_usd(row["saved_picousd"]),
        "streamed": bool(row["streamed"]),
        "success": None if row["success"] is None else bool(row["success"]),
        "tags": loads(row["tags"]),
    }


def deliveries_view(tx: Tx, run_id: str) -> list[dict[str, Any]]:
    """A run's webhook deliveries with every try."""
    tries: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in attempts_of_deliveries(tx, run_id):
        tries[row["delivery_id"]].append(
            {"at": iso(row["at_us"]), "status_code": row["status_code"], "error": row["error"]}
        )
    return [
        {
            "id": row["id"],
            "type": row["type"],
            "url": row["url"],
            "status": row["status"],
            "attempts": tries[row["id"]],
            "next_attempt_at": _iso(row["next_attempt_us"]),
        }
        for row in deliveries_of_run(tx, run_id)
    ]


def event_view(row: Row) -> dict[str, Any]:
    """One event of a run's history."""
    return {
        "id": row["seq"],
        "type": row["type"],
        "step": row["step_key"],
        "attempt": row["attempt"],
        "at": iso(row["at_us"]),
        "data": loads(row["data_json"]) if row["data_json"] else None,
    }


def workflow_view(row: Row, *, text: bool = True) -> dict[str, Any]:
    """A definition with its newest version."""
    view = {
        "name": row["name"],
        "version": row["version"],
        "digest": row["digest"],
        "origin": row["origin"],
        "created_at": iso(row["created_us"]),
    }
    if "updated_us" in row:
        view["updated_at"] = iso(row["updated_us"])
    return view | {"config_yaml": row["config_yaml"]} if text else view


def _iso(at_us: int | None) -> str | None:
    return None if at_us is None else iso(at_us)


def _elapsed_ms(from_us: int | None, until_us: int | None) -> float | None:
    return None if from_us is None or until_us is None else (until_us - from_us) / 1000
