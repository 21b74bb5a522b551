"""Containers, played to their end on both databases: items, iterations, branches, what their names mean and what their failures do."""

from collections.abc import Iterator
from typing import Any

import pytest
from engine_hand import Hand, opened
from engine_play import play, play_on

from engine.store.payloads import unpack

EACH = """
name: each
steps:
  - id: each
    type: foreach
    items: ${input.n}
    concurrency: 2
    collect: ${doubled + index}
    output: got
    steps:
      - {id: double, type: set, value: "${item * 2}", output: doubled}
      - {id: two, type: set, value: "${doubled}"}
  - {id: after, type: set, value: "${got}"}
"""
DIVIDE = """
name: divide
steps:
  - id: each
    type: foreach
    items: [1, 0, 2]
    POLICY
    steps:
      - {id: quarter, type: set, value: "${8 // item}"}
      - {id: half, type: set, value: "${steps.quarter.output // 2}"}
  - {id: after, type: set, value: "${steps.each.output}"}
"""
COUNT = """
name: count
steps:
  - id: loop
    type: while
    condition: (score or 0) < input.until
    max_iterations: 5
    steps:
      - {id: add, type: set, value: "${(score or 0) + 1}", output: score}
"""
BESIDE = """
name: beside
steps:
  - {id: x, type: set, value: outer, output: x}
  - id: par
    type: parallel
    branches:
      left:
        - {id: a, type: set, value: 1, output: x}
        - {id: b, type: set, value: "${x + 1}"}
      right:
        - {id: a, type: set, value: "${x} seen"}
  - {id: after, type: set, value: {all: "${steps.par.output}", x: "${x}"}}
"""
ROUTE = """
name: route
steps:
  - id: route
    type: switch
    value: ${input.k}
    output: chosen
    cases:
      a: [{id: one, type: set, value: A, output: found}]
      "1": [{id: two, type: set, value: ONE, output: found}]
    DEFAULT
  - {id: after, type: set, value: "${[chosen, found]}"}
"""
HANDLED = """
name: handled
steps:
  - id: bad
    type: set
    value: ${input.missing}
    output: found
    on_error:
      steps:
        - {id: mend, type: set, value: "mended ${steps.bad.error.class}"}
  - {id: after, type: set, value: "${found}, ${steps.bad.error.class}"}
"""
PHASES = """
name: phases
steps:
  - {id: main, type: set, value: "${input.x}", output: x}
on_failure:
  - {id: tell, type: set, value: "${run.error.step} ${run.error.class}"}
finally:
  - {id: clean, type: set, value: "${input.y | default('clean')} ${steps.tell.output}"}
"""


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        yield hand


def result(hand: Hand, source: str, given: Any = None) -> Any:
    view = play(hand, hand.start(source, given))
    assert view["status"] == "succeeded", view["error"]
    return view["output"]


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_foreach_gives_one_entry_per_item_in_order(hand: Hand, count: int) -> None:
    run_id = hand.start(EACH, {"n": list(range(count))})
    assert play(hand, run_id)["output"] == [3 * number for number in range(count)]
    assert hand.run(run_id)["open_steps"] == 0


def test_no_more_items_are_under_way_than_concurrency_says(hand: Hand) -> None:
    run_id = hand.start(EACH, {"n": [1, 2, 3, 4, 5]})
    play(hand, run_id, most=1)
    seen: set[int] = set()
    while hand.run(run_id)["status"] == "running":
        rows = hand.steps(run_id)
        seen.add(sum(row["type"] == "item" and row["status"] == "waiting" for row in rows.values()))
        play(hand, run_id, most=1)
    assert max(seen) == 2


@pytest.mark.parametrize("items", [5, "text", {"a": 1}, None])
def test_what_is_no_list_fails_the_foreach(hand: Hand, items: Any) -> None:
    view = play(hand, hand.start(EACH, {"n": items}))
    assert view["error"]["step"] == "each"
    assert "items has to be a list" in view["error"]["message"]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("{id: s, type: foreach, items: '${input.x}', steps: [{id: a, type: set, value: 1}]}", "${input.x}: items has to be a list, not text"),
        ("{id: s, type: sleep, duration: '${input.x}'}", "${input.x}: duration, here text: not a duration"),
        ("{id: s, type: wait, signal: '${input.x}'}", "${input.x}: a signal's name has"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_names_its_expression(hand: Hand, step: str, message: str) -> None:
    view = play(hand, hand.start(f"{{name: n, steps: [{step}]}}", {"x": "some words"}))
    assert view["error"]["step"] == "s" and view["error"]["message"].startswith(message)


@pytest.mark.parametrize(
    ("policy", "status", "output"),
    [
        ("on_item_error: continue", "succeeded", [4, None, 2]),
        ("on_error: continue", "succeeded", None),
        ("", "failed", None),
    ],
)
def test_an_item_that_fails(hand: Hand, policy: str, status: str, output: Any) -> None:
    run_id = hand.start(DIVIDE.replace("POLICY", policy or "concurrency: 3"))
    view = play(hand, run_id)
    assert (view["status"], view["output"]) == (status, output)
    assert hand.run(run_id)["open_steps"] == 0
    if not policy:
        assert view["error"]["step"] == "each[1].quarter"


def test_a_retry_goes_on_at_the_failed_item(hand: Hand) -> None:
    run_id = hand.start(EACH.replace("${item * 2}", "${[1, 2][item]}"), {"n": [0, 1, 2, 1]})
    assert play(hand, run_id)["error"]["step"] == "each[2].double"
    done = {key for key, row in hand.steps(run_id).items() if row["status"] == "succeeded"}
    hand.retry(run_id)
    assert play(hand, run_id)["error"]["step"] == "each[2].double"
    attempts = {row["key"]: row["attempt"] for row in hand.steps(run_id).values()}
    assert attempts["each[2].double"] == 2 and "each[0].two" in done
    assert all(attempts[key] <= 1 for key in done)


def test_a_retry_asks_again_what_did_not_render_at_an_items_end(hand: Hand) -> None:
    run_id = hand.start(EACH.replace("doubled + index", "8 // doubled"), {"n": [1, 0, 2]})
    for _ in range(2):
        view = play(hand, run_id)
        assert (view["status"], view["error"]["step"]) == ("failed", "each[1]")
        assert view["error"]["message"].startswith("collect: ")
        assert hand.run(run_id)["open_steps"] == 0
        hand.retry(run_id)


def test_while_carries_names_from_iteration_to_iteration(hand: Hand) -> None:
    run_id = hand.start(COUNT, {"until": 3})
    assert play(hand, run_id)["output"] == 3
    assert [key for key in hand.steps(run_id) if key.endswith(".add")] == ["loop[0].add", "loop[1].add", "loop[2].add"]


@pytest.mark.parametrize(("until", "output", "collected"), [(0, None, []), (9, 5, [1, 2, 3, 4, 5])])
def test_while_ends_before_the_first_and_behind_the_last(hand: Hand, until: int, output: Any, collected: Any) -> None:
    assert result(hand, COUNT, {"until": until}) == output
    assert result(hand, COUNT.replace("max_it", "collect: ${score}\n    max_it"), {"until": until}) == collected


def test_a_retry_goes_on_at_the_failed_iteration(hand: Hand) -> None:
    run_id = hand.start(COUNT.replace("+ 1}", "+ [1, 1][index]}"), {"until": 9})
    for attempt in (1, 2):
        assert play(hand, run_id)["error"]["step"] == "loop[2].add"
        attempts = {key: row["attempt"] for key, row in hand.steps(run_id).items() if key.endswith("add")}
        assert attempts == {"loop[0].add": 1, "loop[1].add": 1, "loop[2].add": attempt}
        hand.retry(run_id)


def test_a_condition_that_is_no_boolean_fails_the_while(hand: Hand) -> None:
    view = play(hand, hand.start(COUNT.replace("(score or 0) < input.until", "score or 0")))
    assert (view["error"]["step"], "must give a boolean" in view["error"]["message"]) == ("loop", True)


def test_parallel_gives_an_object_and_keeps_its_names_inside(hand: Hand) -> None:
    assert result(hand, BESIDE) == {"all": {"left": 2, "right": "outer seen"}, "x": "outer"}


@pytest.mark.parametrize(("k", "found"), [("a", "A"), (1, "ONE"), ("1", "ONE"), ("b", None)])
def test_switch_takes_the_case_of_the_value(hand: Hand, k: Any, found: Any) -> None:
    assert result(hand, ROUTE.replace("DEFAULT", ""), {"k": k}) == [found, found]
    default = "default: [{id: three, type: set, value: D, output: found}]"
    assert result(hand, ROUTE.replace("DEFAULT", default), {"k": k}) == [found or "D"] * 2


def test_steps_in_on_error_mend_a_failure(hand: Hand) -> None:
    run_id = hand.start(HANDLED)
    view = play(hand, run_id)
    assert (view["status"], view["output"]) == ("succeeded", "mended invalid_request, invalid_request")
    assert hand.statuses(run_id) == {"bad": "failed", "mend": "succeeded", "after": "succeeded"}


def test_an_error_in_on_error_fails_the_run_and_a_retry_mends_again(hand: Hand) -> None:
    run_id = hand.start(HANDLED.replace("mended ${steps", "${input.tool} ${steps"))
    assert play(hand, run_id)["error"]["step"] == "mend"
    hand.retry(run_id)
    view = play(hand, run_id)
    assert (view["status"], view["error"]["step"], hand.step(run_id, "bad")["attempt"]) == ("failed", "mend", 1)


def test_a_failure_runs_on_failure_and_then_finally(hand: Hand) -> None:
    run_id = hand.start(PHASES, {})
    view = play(hand, run_id)
    assert (view["status"], view["error"]["step"]) == ("failed", "main")
    steps = {key: row_output(hand, run_id, key) for key in ("tell", "clean")}
    assert steps == {"tell": "main invalid_request", "clean": "clean main invalid_request"}


def test_a_success_runs_finally_alone_and_keeps_its_output(hand: Hand) -> None:
    run_id = hand.start(PHASES, {"x": 7})
    assert (play(hand, run_id)["output"], set(hand.statuses(run_id))) == (7, {"main", "clean"})


def test_an_error_in_finally_fails_the_run_and_a_retry_goes_on_there(hand: Hand) -> None:
    run_id = hand.start(PHASES.replace("'clean'", "input.z"), {"x": 7})
    assert play(hand, run_id)["error"]["step"] == "clean"
    hand.retry(run_id)
    view = play(hand, run_id)
    assert (view["error"]["step"], hand.step(run_id, "main")["attempt"]) == ("clean", 1)
    assert hand.step(run_id, "clean")["attempt"] == 2


def test_a_retry_runs_finally_once_more(hand: Hand) -> None:
    run_id = hand.start(PHASES, {})
    play(hand, run_id)
    hand.retry(run_id)
    assert play(hand, run_id)["error"]["step"] == "main"
    assert {key: row["attempt"] for key, row in hand.steps(run_id).items()} == {"main": 2, "tell": 2, "clean": 2}


def test_a_container_past_its_limit_fails_with_all_inside(hand: Hand) -> None:
    slow = "name: slow\nsteps:\n  - id: each\n    type: foreach\n    items: [1]\n    deadline: 5s\n"
    run_id = hand.start(slow + "    steps: [{id: nap, type: sleep, duration: 1h}]\n")
    assert play(hand, run_id)["status"] == "waiting"
    view = play_on(hand, run_id, 6)
    assert (view["status"], view["error"]["class"], view["error"]["step"]) == ("failed", "timeout", "each")
    assert hand.statuses(run_id)["each[0].nap"] == "cancelled"


def row_output(hand: Hand, run_id: str, key: str) -> Any:
    row = hand.step(run_id, key)
    return hand.do(lambda tx: unpack(tx, row["output_json"], row["output_digest"]))
