"""A value over the limits of size and depth fails its step, or is refused at the door, with its name, its size and the limit."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from engine_hand import Hand, opened
from engine_play import play
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import signals
from engine.depth import MAX_DEPTH
from engine.errors import TooLarge
from engine.expressions import ExpressionError, evaluate, render
from engine.loader import load
from engine.ports import Calling, Opened, Succeeded
from engine.result_cache import recall, remember
from engine.store.payloads import VALUE_LIMIT
from engine.workflows import put

SOURCE = """
name: large
steps:
  - {id: get, type: set, value: 1, retry: {max_attempts: 5}}
  - {id: after, type: set, value: 2}
"""
EACH = """
name: each
steps:
  - id: each
    type: foreach
    items: [0, 1, 2]
    steps: [{id: get, type: set, value: 1}]
    ON_ERROR
  - {id: after, type: set, value: after}
"""
TOO_MUCH = "x" * (VALUE_LIMIT + 1)
MESSAGE = "has 16.0 MiB, a value may have at most 16"

DEEP = "is nested too deeply: 200 levels are the limit"


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        yield hand


def test_a_result_over_the_limit_fails_its_step_at_once_and_one_of_just_that_size_does_not(hand: Hand) -> None:
    fits, large = hand.start(SOURCE), hand.start(SOURCE)
    hand.finish(fits, "get", "x" * (VALUE_LIMIT - 2))
    assert play(hand, fits)["status"] == "succeeded"
    hand.complete(hand.claim(large, "get"), Succeeded(TOO_MUCH))
    view = hand.view(large)
    assert (view["status"], view["error"]["step"], view["error"]["class"]) == ("failed", "get", "invalid_output")
    assert view["error"]["message"] == f"the result {MESSAGE}"
    assert [row["status"] for row in hand.attempts(large)] == ["failed"]


def test_bytes_are_counted(hand: Hand) -> None:
    run_id = hand.start(SOURCE)
    hand.complete(hand.claim(run_id, "get"), Succeeded("ä" * (VALUE_LIMIT // 2 + 1)))
    assert hand.run(run_id)["status"] == "failed"


def test_an_input_over_the_limit_is_refused_with_nothing_stored(hand: Hand) -> None:
    with pytest.raises(TooLarge, match=f"input {MESSAGE}") as refused:
        hand.submit(SOURCE, {"text": TOO_MUCH})
    assert refused.value.param == "input"
    run_id = hand.start("name: w\nsteps:\n  - {id: ask, type: wait, signal: go}\n")
    play(hand, run_id)
    with pytest.raises(TooLarge, match=f"payload {MESSAGE}"):
        hand.do(lambda tx: signals.send(tx, hand.catalogue, run_id, ("go", TOO_MUCH), hand.now))


@pytest.mark.parametrize(
    ("on_error", "status"),
    [
        ("", "failed"),
        ("on_error: continue", "succeeded"),
        ("on_error: {steps: [{id: mend, type: set, value: 1}]}", "succeeded"),
    ],
)
def test_what_a_foreach_comes_to_and_its_items_are_values_too(hand: Hand, on_error: str, status: str) -> None:
    run_id = hand.start(EACH.replace("ON_ERROR", on_error))
    hand.complete(hand.claim(run_id, "each"), Opened([0, 1, 2]))
    for number in range(3):
        hand.finish(run_id, f"each[{number}].get", "x" * (VALUE_LIMIT // 3 + 1))
    assert play(hand, run_id)["status"] == status
    assert hand.step(run_id, "each")["error_message"] == f"the result {MESSAGE}"
    run_id = hand.start(EACH.replace("ON_ERROR", on_error))
    hand.complete(hand.claim(run_id, "each"), Opened([TOO_MUCH]))
    assert play(hand, run_id)["status"] == status
    assert hand.step(run_id, "each")["error_message"] == f"items {MESSAGE}"


def test_what_mended_a_step_and_the_output_of_the_run_are_values_too(hand: Hand) -> None:
    mended = hand.start(
        "name: m\nsteps:\n  - {id: get, type: set, value: '${1 // 0}', on_error: {steps: [{id: mend, type: set, value: 1}, {id: last, type: set, value: 2}]}}\n"
    )
    play(hand, mended, most=1)
    hand.finish(mended, "mend", 1)
    hand.finish(mended, "last", "x" * (VALUE_LIMIT - 2))
    assert play(hand, mended)["status"] == "succeeded"
    half: Any = "x" * (VALUE_LIMIT // 2)
    run_id = hand.start(SOURCE + "output: ['${steps.get.output}', '${steps.after.output}']\n")
    hand.finish(run_id, "get", half)
    hand.finish(run_id, "after", half)
    view = hand.view(run_id)
    assert (view["status"], view["error"]["class"]) == ("failed", "invalid_output")
    assert view["error"]["message"] == f"output: the result {MESSAGE}"


def test_the_input_of_a_child_is_refused_at_its_step(hand: Hand) -> None:
    run_id = hand.start("name: p\nsteps:\n  - {id: call, type: workflow, workflow: large}\n")

    hand.do(lambda tx: put(tx, load(SOURCE), "api", hand.now))
    hand.complete(hand.claim(run_id, "call"), Calling("large", {"text": TOO_MUCH}))
    assert hand.view(run_id)["error"]["message"] == f"input {MESSAGE}"


def test_a_result_over_the_limit_is_not_kept(hand: Hand) -> None:
    hand.do(lambda tx: remember(tx, "digest", Succeeded(TOO_MUCH), 60, hand.now))
    assert hand.do(lambda tx: recall(tx, "digest", hand.now)) is None


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value] if levels % 2 else {"a": value}
    return value


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(levels=st.sampled_from([1, 199, 200, 201, 202, 254, 255, 960, 20_000]) | st.integers(150, 300))
def test_a_value_of_more_than_200_levels_fails_its_step_whoever_gave_it(hand: Hand, levels: int) -> None:
    fits = levels <= MAX_DEPTH
    run_id = hand.start(SOURCE)
    hand.complete(hand.claim(run_id, "get"), Succeeded(nested(levels)))
    step = hand.step(run_id, "get")
    assert (step["status"], step["error_message"]) == (
        ("succeeded", None) if fits else ("failed", f"the result {DEEP}")
    )
    json.dumps(hand.view(run_id))
    run_id = hand.start("name: w\nsteps:\n  - {id: ask, type: wait, signal: go}\n")
    play(hand, run_id)
    with nullcontext() if fits else pytest.raises(TooLarge, match=f"payload {DEEP}"):
        hand.do(lambda tx: signals.send(tx, hand.catalogue, run_id, ("go", nested(levels)), hand.now))
    run_id = hand.start("name: p\nsteps:\n  - {id: call, type: workflow, workflow: large}\n")
    hand.do(lambda tx: put(tx, load(SOURCE), "api", hand.now))
    hand.complete(hand.claim(run_id, "call"), Calling("large", {"deep": nested(levels)}))
    assert hand.step(run_id, "call")["error_message"] == (None if levels < MAX_DEPTH else f"input {DEEP}")


def test_what_nests_a_value_in_others_fails_where_the_limit_is_passed(hand: Hand) -> None:
    run_id = hand.start(SOURCE + "output: {a: '${[steps.get.output]}'}\n")
    hand.finish(run_id, "get", nested(MAX_DEPTH - 1))
    play(hand, run_id)
    assert hand.view(run_id)["error"]["message"] == f"output: value: {DEEP}"
    run_id = hand.start(EACH.replace("ON_ERROR", ""))
    hand.complete(hand.claim(run_id, "each"), Opened([0]))
    hand.finish(run_id, "each[0].get", nested(MAX_DEPTH))
    play(hand, run_id)
    assert hand.step(run_id, "each")["error_message"] == f"the result {DEEP}"
    with pytest.raises(ExpressionError, match=DEEP):
        render({"params": "${[input]}"}, {"input": nested(MAX_DEPTH - 1)})
    assert evaluate("[input]", {"input": nested(MAX_DEPTH - 1)}) == [nested(MAX_DEPTH - 1)]
