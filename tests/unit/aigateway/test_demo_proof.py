"""The demo's judgement: it accepts an honest story, and each doctored row breaks it."""

import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aigateway.demo_proof import Evidence, Kill, broken, facts, proof

Json = dict[str, Any]
START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat()


def call(step: str, attempt: int, second: float, cost: float | None) -> Json:
    unknown = cost is None
    return {
        "step_id": step,
        "attempt": attempt,
        "timestamp": at(second),
        "status": "unknown" if unknown else "succeeded",
        "cost_usd": cost,
        "cost_source": "unknown" if unknown else "priced",
    }


def attempt(number: int, status: str, worker: str, calls: list[Json]) -> Json:
    return {"number": number, "status": status, "worker": worker, "started_at": calls[0]["timestamp"], "calls": calls}


def step(name: str, end: float, attempts: list[Json]) -> Json:
    return {"id": name, "status": "succeeded", "finished_at": at(end), "attempts": attempts}


def honest() -> Evidence:
    """Two steps end at 1 s and 2 s, the worker is killed at 3 s, the report ends at 5 s."""
    search, summarize = call("search", 1, 0, 0.0), call("summarize", 1, 1, 0.0000481)
    lost, again = call("report", 1, 2, None), call("report", 2, 3.3, 0.003675)
    steps = [
        step("search", 1, [attempt(1, "succeeded", "a", [search])]),
        step("summarize", 2, [attempt(1, "succeeded", "a", [summarize])]),
        step("report", 5, [attempt(1, "lost", "a", [lost]), attempt(2, "succeeded", "b", [again])]),
    ]
    run = {"status": "succeeded", "output": "text", "error": None, "cost_usd": 0.0037231, "cost_unknown_calls": 1}
    kill = Kill("report", 1, "a", 11, START + timedelta(seconds=3))
    return Evidence(run, steps, [search, summarize, lost, again], kill, {"a": 11, "b": 12})


def test_an_honest_story_holds() -> None:
    told = proof(honest())
    assert broken(honest()) == []
    assert "3 steps, 4 attempts, 1 worker killed" in told
    assert "`search` and `summarize` had ended before the kill: each called once" in told
    assert "$0.0037231 in 4 calls, 1 of unknown cost; $0.0000481 of it" in told
    assert (facts(honest())["holds"], facts(honest())["takeover_ms"]) == (True, 300.0)


def paid_twice(evidence: Evidence) -> None:
    twice = call("summarize", 1, 3.2, 0.0000481)
    evidence.steps[1]["attempts"][0]["calls"].append(twice)
    evidence.calls.append(twice)
    evidence.run["cost_usd"] = 0.0037712


def ran_again(evidence: Evidence) -> None:
    evidence.steps[0]["attempts"].append(attempt(2, "succeeded", "b", [evidence.calls[0]]))


def killed_call_gone(evidence: Evidence) -> None:
    del evidence.calls[2]
    evidence.steps[2]["attempts"][0]["calls"].clear()


def killed_call_free(evidence: Evidence) -> None:
    evidence.calls[2].update(status="succeeded", cost_usd=0.0, cost_source="free")
    evidence.run["cost_unknown_calls"] = 0


def same_worker(evidence: Evidence) -> None:
    evidence.steps[2]["attempts"][1]["worker"] = "a"


def not_lost(evidence: Evidence) -> None:
    evidence.steps[2]["attempts"][0]["status"] = "failed"


def no_takeover(evidence: Evidence) -> None:
    del evidence.steps[2]["attempts"][1]


def third_call(evidence: Evidence) -> None:
    third = call("report", 2, 4, 0.003675)
    evidence.calls.append(third)
    evidence.steps[2]["attempts"][1]["calls"].append(third)
    evidence.run["cost_usd"] = 0.0073981


def wrong_sum(evidence: Evidence) -> None:
    evidence.run["cost_usd"] = 0.0037232


def no_output(evidence: Evidence) -> None:
    evidence.run["output"] = ""


def failed(evidence: Evidence) -> None:
    evidence.run.update(status="failed", error={"step": "report", "message": "why"})


def failed_step(evidence: Evidence) -> None:
    evidence.steps[2]["status"] = "failed"


def nothing_finished(evidence: Evidence) -> None:
    for ended in evidence.steps:
        ended["finished_at"] = at(5)


def row_without_attempt(evidence: Evidence) -> None:
    evidence.steps[0]["attempts"][0]["calls"].clear()


@pytest.mark.parametrize(
    ("doctor", "told"),
    [
        (paid_twice, "`summarize` was called after the kill"),
        (paid_twice, "`summarize` has 2 calls"),
        (ran_again, "`search` ran again"),
        (killed_call_gone, "has 0 calls in the ledger where the killed one is to be"),
        (killed_call_free, "and not as unknown"),
        (killed_call_free, "0 calls of unknown cost"),
        (same_worker, "attempt 2 of `report` succeeded on worker a"),
        (not_lost, "is failed and not lost"),
        (no_takeover, "not the lost one and one in its place"),
        (third_call, "`report` attempt 2 has 2 calls"),
        (wrong_sum, "its ledger rows sum to $0.0037231"),
        (no_output, "the run has no output"),
        (failed, "the run failed"),
        (failed_step, "step `report` failed"),
        (nothing_finished, "nothing could have been paid twice"),
        (row_without_attempt, "4 ledger rows, but the steps show 3"),
    ],
)
def test_a_doctored_story_breaks(doctor: Callable[[Evidence], None], told: str) -> None:
    evidence = copy.deepcopy(honest())
    doctor(evidence)
    problems = broken(evidence)
    assert any(told in problem for problem in problems), problems
    assert facts(evidence)["holds"] is False
