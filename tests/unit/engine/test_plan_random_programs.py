"""Random programs of every flow step type, against a small interpreter of the language that knows no rows, keys or counters.

The engine plays them on a real database with the real executors, taking ready steps in random order, losing workers on the way,
and letting time pass where everything sleeps.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from engine_hand import Hand, opened
from engine_play import outcome_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.loader import load_data

Steps = list[dict[str, Any]]
ENDED = {"succeeded", "failed", "skipped", "cancelled"}


class Failure(Exception):
    """A step failed and nothing has caught it so far."""


class Maker:
    """Draws a program; ids are unique in the whole of it."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._ids = 0

    def steps(self, depth: int) -> Steps:
        return [self.step(depth) for _ in range(self._draw(st.integers(1, 3)))]

    def step(self, depth: int) -> dict[str, Any]:
        self._ids += 1
        kinds = ["value", "value", "error", "sleep"] + ["if", "switch", "foreach", "parallel", "while"] * (depth < 3)
        step = {"id": f"s{self._ids}", **getattr(self, f"_{self._draw(st.sampled_from(kinds))}")(depth)}
        match self._draw(st.sampled_from(["fail", "fail", "continue", "steps"])):
            case "continue":
                step["on_error"] = "continue"
            case "steps" if depth < 3:
                step["on_error"] = {"steps": self.steps(depth + 1)}
            case _:
                pass
        if self._draw(st.integers(0, 5)) == 0:
            step["if"] = "false"
        return step

    def _value(self, depth: int) -> dict[str, Any]:
        return {"type": "set", "value": self._draw(st.integers(0, 99))}

    def _error(self, depth: int) -> dict[str, Any]:
        return {"type": "set", "value": "${1 // 0}"}

    def _sleep(self, depth: int) -> dict[str, Any]:
        return {"type": "sleep", "duration": "1s"}

    def _if(self, depth: int) -> dict[str, Any]:
        both = {"then": self.steps(depth + 1), "else": self.steps(depth + 1)}
        return {"type": "if", "condition": self._draw(st.booleans()), **both}

    def _switch(self, depth: int) -> dict[str, Any]:
        cases = {name: self.steps(depth + 1) for name in ("a", "b")}
        return {"type": "switch", "value": self._draw(st.sampled_from("abc")), "cases": cases}

    def _foreach(self, depth: int) -> dict[str, Any]:
        policy = self._draw(st.sampled_from(["fail", "continue"]))
        items = list(range(self._draw(st.integers(0, 4))))
        more = {"concurrency": self._draw(st.integers(1, 3)), "on_item_error": policy}
        return {"type": "foreach", "items": items, "steps": self.steps(depth + 1), **more}

    def _parallel(self, depth: int) -> dict[str, Any]:
        return {"type": "parallel", "branches": {name: self.steps(depth + 1) for name in ("left", "right")}}

    def _while(self, depth: int) -> dict[str, Any]:
        rounds = self._draw(st.integers(0, 3))
        return {"type": "while", "condition": f"index < {rounds}", "max_iterations": 2, "steps": self.steps(depth + 1)}


@st.composite
def programs(draw: st.DrawFn) -> Steps:
    return Maker(draw).steps(0)


def run_list(steps: Steps) -> tuple[Any, Any]:
    """The output of the list's last step, and that of the last one that ran. Raises: Failure."""
    output, ran = None, None
    for step in steps:
        output, counts = run_step(step)
        ran = output if counts else ran
    return output, ran


def run_step(step: dict[str, Any]) -> tuple[Any, bool]:
    """A step's output, and whether it counts as one that ran. Raises: Failure."""
    if step.get("if") == "false":
        return None, False
    try:
        return body(step), True
    except Failure:
        handler = step.get("on_error", "fail")
        if handler == "fail":
            raise
        return (None, False) if handler == "continue" else (run_list(handler["steps"])[1], True)


def body(step: dict[str, Any]) -> Any:
    match step["type"]:
        case "if":
            return run_list(step["then" if step["condition"] else "else"])[1]
        case "switch":
            return run_list(step["cases"].get(step["value"], []))[1]
        case "foreach":
            return [run_item(step) for _ in step["items"]]
        case "parallel":
            return {name: run_list(steps)[0] for name, steps in step["branches"].items()}
        case "while":
            outputs = [run_list(step["steps"])[0] for _ in range(min(2, int(step["condition"][-1])))]
            return outputs[-1] if outputs else None
        case "sleep":
            return None
        case _:
            if step["value"] == "${1 // 0}":
                raise Failure
            return step["value"]


def run_item(step: dict[str, Any]) -> Any:
    try:
        return run_list(step["steps"])[0]
    except Failure:
        if step["on_item_error"] == "fail":
            raise
        return None


def expected(steps: Steps) -> tuple[str, Any]:
    try:
        return "succeeded", run_list(steps)[0]
    except Failure:
        return "failed", None


def play_at_random(hand: Hand, run_id: str, chance: Random) -> dict[str, Any]:
    for number in range(5_000):
        ready = [row for row in hand.steps(run_id).values() if row["status"] == "ready"]
        if hand.run(run_id)["status"] in ENDED:
            return hand.view(run_id)
        hand.pass_time(0.001)
        if not ready:
            assert hand.run(run_id)["status"] == "waiting"
            hand.pass_time(2)
            hand.wake()
            continue
        worker = f"{run_id[-12:]}-{number}"
        held = hand.claim(run_id, chance.choice(ready)["key"], worker)
        if chance.random() < 0.1 and hand.step(run_id, held.key)["losses"] < 2:
            hand.enter_worker(worker)
            hand.bury(worker)
            assert not hand.complete(held, outcome_of(held)).accepted
        else:
            assert hand.complete(held, outcome_of(held)).accepted
    raise AssertionError(f"the run does not end: {hand.statuses(run_id)}")


@pytest.fixture(scope="module")
def hand(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hand]:
    path = tmp_path_factory.mktemp("programs") / "runs.db"
    path.write_bytes(sqlite_template.read_bytes())
    with opened(f"sqlite:///{path}") as hand:
        yield hand


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(steps=programs(), seed=st.integers(0, 2**32))
def test_a_program_comes_to_what_the_language_says(hand: Hand, steps: Steps, seed: int) -> None:
    chance = Random(seed)
    source = load_data({"name": "random", "steps": steps}).source
    run_id = hand.start(source)
    view = play_at_random(hand, run_id, chance)
    assert (view["status"], view["output"]) == expected(steps)
    check_end(hand, run_id)
    if view["status"] == "failed":
        done = {row["id"]: row["attempt"] for row in hand.steps(run_id).values() if row["status"] == "succeeded"}
        hand.retry(run_id)
        assert play_at_random(hand, run_id, chance)["status"] == "failed"
        again = {row["id"]: row["attempt"] for row in hand.steps(run_id).values()}
        assert {step_id: again[step_id] for step_id in done} == done  # what had succeeded never ran again
        check_end(hand, run_id)


def check_end(hand: Hand, run_id: str) -> None:
    assert hand.run(run_id)["open_steps"] == 0
    assert set(hand.statuses(run_id).values()) <= ENDED
    assert all(attempt["status"] != "running" for attempt in hand.attempts(run_id))
