"""Random programs of every flow step type, against a small interpreter of the language (`random_programs`).

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
from random_programs import Maker, Steps, expected

from engine.loader import load_data

ENDED = {"succeeded", "failed", "skipped", "cancelled"}


@st.composite
def programs(draw: st.DrawFn) -> Steps:
    return Maker(lambda items: draw(st.sampled_from(items)), agents=True).steps(0)


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
        if chance.random() < 0.1:
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
