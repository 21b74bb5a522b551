"""What follows from what, through the database: needs, branches, guards, continued errors, outputs."""

from collections.abc import Iterator
from typing import Any

import pytest
from engine_hand import CHAIN, PARALLEL, Hand, opened

from engine.ports import Branched, Failed, Skipped, Succeeded
from engine.states import ErrorClass

DIAMOND = """
name: diamond
steps:
  - {id: a, type: set, value: 1, output: start}
  - {id: b, type: set, value: "${start}", needs: [a], output: left}
  - {id: c, type: set, value: "${start}", needs: [a], output: right}
  - {id: d, type: set, value: "${left} ${right}", needs: [b, c]}
"""
BRANCHES = """
name: branches
steps:
  - {id: before, type: set, value: 1}
  - id: choose
    type: if
    condition: "true"
    output: chosen
    then:
      - {id: yes1, type: set, value: 1}
      - {id: yes2, type: set, value: 1, output: answer}
    else:
      - {id: no1, type: set, value: 1, output: answer}
  - {id: after, type: set, value: "${answer} ${chosen}"}
output: {answer: "${answer}", chosen: "${chosen}"}
"""
NESTED = """
name: nested
steps:
  - id: outer
    type: if
    condition: "true"
    then:
      - id: inner
        type: if
        condition: "true"
        then:
          - {id: deep, type: set, value: 1}
      - {id: beside, type: set, value: 1, needs: []}
"""
CONTINUING = """
name: continuing
steps:
  - {id: risky, type: set, value: 1, on_error: continue, output: found}
  - {id: after, type: set, value: "${found} ${steps.risky.error.message}"}
output: {found: "${found}", error: "${steps.risky.error}"}
"""
NO_OUTPUT = "name: unfit\nsteps:\n  - {id: only, type: set, value: 1, output: found}\noutput: ${found.missing}\n"


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        yield hand


def ready(hand: Hand, run_id: str) -> set[str]:
    return {key for key, status in hand.statuses(run_id).items() if status == "ready"}


def fail(hand: Hand, run_id: str, key: str, message: str = "broke") -> None:
    hand.complete(hand.claim(run_id, key), Failed(ErrorClass.TOOL_ERROR, message, final=True))


def test_a_plain_list_runs_in_order_and_ends_with_the_last_output(hand: Hand) -> None:
    run_id = hand.start(CHAIN)
    for key, next_key in (("first", "second"), ("second", "third")):
        assert ready(hand, run_id) == {key}
        done = hand.finish(run_id, key, key)
        assert [ring.step_id for ring in done.rings] == [hand.step(run_id, next_key)["id"]]
        assert not done.run_ended
    assert hand.finish(run_id, "third", {"deep": [1]}).run_ended
    view = hand.view(run_id)
    assert (view["status"], view["output"], view["error"]) == ("succeeded", {"deep": [1]}, None)
    assert hand.run(run_id)["open_steps"] == 0


def test_a_diamond_waits_for_both_sides(hand: Hand) -> None:
    run_id = hand.start(DIAMOND)
    assert len(hand.finish(run_id, "a", 7).rings) == 2
    assert ready(hand, run_id) == {"b", "c"}
    assert hand.claim(run_id, "b").scope["start"] == 7
    assert hand.finish(run_id, "c", "C").rings == ()
    assert ready(hand, run_id) == set()
    assert hand.statuses(run_id)["d"] == "pending"


def test_the_scope_holds_what_the_step_reads_and_no_more(hand: Hand) -> None:
    run_id = hand.start(DIAMOND, {"x": 1})
    for key in "abc":
        hand.finish(run_id, key, key.upper())
    scope = hand.claim(run_id, "d").scope
    assert {name: scope[name] for name in ("input", "left", "right")} == {"input": {"x": 1}, "left": "B", "right": "C"}
    assert set(scope["steps"]) == {"b", "c"}
    assert scope["steps"]["b"] == {"output": "B", "cost_usd": 0.0, "tokens": 0, "model": None, "error": None}


def test_needs_of_nothing_start_at_once(hand: Hand) -> None:
    assert ready(hand, hand.start(PARALLEL)) == {"left", "right"}


@pytest.mark.parametrize(
    ("branch", "inner", "outputs"),
    [("then", ["yes1", "yes2"], ["Y1", "Y2"]), ("else", ["no1"], ["N1"])],
)
def test_branches_that_set_the_same_name(hand: Hand, branch: str, inner: list[str], outputs: list[str]) -> None:
    run_id = hand.start(BRANCHES)
    hand.finish(run_id, "before", 0)
    done = hand.complete(hand.claim(run_id, "choose"), Branched(branch))
    assert [ring.step_id for ring in done.rings] == [hand.step(run_id, inner[0])["id"]]
    assert hand.statuses(run_id)["choose"] == "waiting"
    for key, output in zip(inner, outputs, strict=True):
        hand.finish(run_id, key, output)
    assert hand.step(run_id, "choose")["branch"] == branch
    held = hand.claim(run_id, "after")
    assert (held.scope["answer"], held.scope["chosen"]) == (outputs[-1], outputs[-1])
    hand.complete(held, Succeeded("done"))
    assert hand.view(run_id)["output"] == {"answer": outputs[-1], "chosen": outputs[-1]}


def test_no_branch_leaves_the_names_null(hand: Hand) -> None:
    run_id = hand.start(BRANCHES)
    hand.finish(run_id, "before", 0)
    done = hand.complete(hand.claim(run_id, "choose"), Branched(None))
    assert [ring.step_id for ring in done.rings] == [hand.step(run_id, "after")["id"]]
    hand.finish(run_id, "after", "done")
    assert hand.view(run_id)["output"] == {"answer": None, "chosen": None}


def test_the_result_of_a_branch_is_that_of_the_last_step_that_ran(hand: Hand) -> None:
    run_id = hand.start(BRANCHES)
    hand.finish(run_id, "before", 0)
    hand.complete(hand.claim(run_id, "choose"), Branched("then"))
    hand.finish(run_id, "yes1", "ran")
    hand.complete(hand.claim(run_id, "yes2"), Skipped())
    held = hand.claim(run_id, "after")
    assert (held.scope["chosen"], held.scope["answer"]) == ("ran", None)


def test_nested_branches_end_from_the_inside_out(hand: Hand) -> None:
    run_id = hand.start(NESTED)
    hand.complete(hand.claim(run_id, "outer"), Branched("then"))
    assert ready(hand, run_id) == {"inner", "beside"}
    hand.complete(hand.claim(run_id, "inner"), Branched("then"))
    hand.finish(run_id, "beside", "B")
    assert hand.statuses(run_id)["outer"] == "waiting"
    assert hand.finish(run_id, "deep", "D").run_ended
    assert set(hand.statuses(run_id).values()) == {"succeeded"}
    assert hand.run(run_id)["open_steps"] == 0


def test_a_failure_inside_a_branch_ends_the_run(hand: Hand) -> None:
    run_id = hand.start(NESTED)
    hand.complete(hand.claim(run_id, "outer"), Branched("then"))
    hand.complete(hand.claim(run_id, "inner"), Branched("then"))
    fail(hand, run_id, "deep")
    assert hand.statuses(run_id) == {
        "outer": "cancelled",
        "inner": "cancelled",
        "beside": "cancelled",
        "deep": "failed",
    }
    assert hand.view(run_id)["error"] == {"step": "deep", "class": "tool_error", "message": "broke"}
    assert hand.run(run_id)["open_steps"] == 0


def test_an_error_that_is_continued_is_told_to_later_steps_and_fails_nothing(hand: Hand) -> None:
    run_id = hand.start(CONTINUING)
    fail(hand, run_id, "risky", "no luck")
    held = hand.claim(run_id, "after")
    error = {"class": "tool_error", "message": "no luck"}
    assert (held.scope["found"], held.scope["steps"]["risky"]["error"]) == (None, error)
    hand.complete(held, Succeeded("fine"))
    view = hand.view(run_id)
    assert (view["status"], view["output"], view["error"]) == ("succeeded", {"found": None, "error": error}, None)


def test_an_output_that_does_not_render_fails_the_run_and_says_why(hand: Hand) -> None:
    run_id = hand.start(NO_OUTPUT)
    assert hand.finish(run_id, "only", {"other": 1}).run_ended
    view = hand.view(run_id)
    assert (view["status"], view["output"]) == ("failed", None)
    assert (view["error"]["step"], view["error"]["class"]) == (None, "invalid_output")
    assert view["error"]["message"].startswith("output: ")
    assert "missing" in view["error"]["message"]
    assert hand.statuses(run_id) == {"only": "succeeded"}


@pytest.mark.parametrize("output", [None, False, 0, "", [], {"a": None}])
def test_the_output_of_the_run_keeps_its_type(hand: Hand, output: Any) -> None:
    run_id = hand.start("name: typed\nsteps:\n  - {id: only, type: set, value: 1, output: found}\noutput: ${found}\n")
    hand.finish(run_id, "only", output)
    got = hand.view(run_id)["output"]
    assert (type(got), got) == (type(output), output)


def test_events_tell_the_whole_story_without_gaps(hand: Hand) -> None:
    run_id = hand.start(BRANCHES)
    hand.finish(run_id, "before")
    hand.complete(hand.claim(run_id, "choose"), Branched("else"))
    hand.finish(run_id, "no1")
    hand.finish(run_id, "after")
    events = hand.events(run_id)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [(event["type"], event["step_key"]) for event in events] == [
        ("run.submitted", None),
        ("run.started", None),
        ("step.started", "before"),
        ("step.succeeded", "before"),
        ("step.started", "choose"),
        ("step.started", "no1"),
        ("step.succeeded", "no1"),
        ("step.succeeded", "choose"),
        ("step.started", "after"),
        ("step.succeeded", "after"),
        ("run.succeeded", None),
    ]
    assert hand.run(run_id)["event_seq"] == len(events)
