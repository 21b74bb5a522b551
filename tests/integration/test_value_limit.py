"""A value over the limit fails its step, or is refused at the door, with its name, its size and the limit."""

from collections.abc import Iterator
from typing import Any

import pytest
from engine_hand import Hand, opened
from engine_play import play

from engine import signals
from engine.errors import TooLarge
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
