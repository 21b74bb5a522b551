"""Sleeps, waits and signals, start times, child runs and forks, played on both databases without processes."""

from collections.abc import Iterator
from typing import Any

import pytest
from engine_hand import CHAIN, Hand, opened, settled
from engine_play import answer_all, play, play_on

from engine import fork as forks
from engine import signals
from engine.errors import Conflict, UserError
from engine.loader import load
from engine.ports import Succeeded
from engine.result_cache import call_digest, recall, remember
from engine.store.requests import settle_request
from engine.store.runs import child_run_ids
from engine.workflows import put

NAP = "name: nap\nsteps:\n  - {id: nap, type: sleep, duration: 5s}\n  - {id: after, type: set, value: done}\n"
WAIT = """
name: approval
steps:
  - id: ask
    type: wait
    signal: approval
    schema: {type: object, required: [ok], properties: {ok: {type: boolean}}}
    timeout: 1h
    ON_TIMEOUT
    output: answer
  - {id: after, type: set, value: "${answer.ok if answer else 'nobody'}"}
"""
PARENT = """
name: parent
steps:
  - {id: call, type: workflow, workflow: child, input: {x: 4}, output: got}
  - {id: after, type: set, value: "${got + 1}"}
"""
CHILD = "name: child\ninputs: {x: {type: integer}}\nsteps:\n  - {id: only, type: set, value: '${input.x * 10}'}\n"
DEEP = """
name: deep
steps:
  - {id: first, type: set, value: 1}
  - id: each
    type: foreach
    items: [0, 1, 2]
    steps:
      - {id: a, type: set, value: "${item}"}
      - {id: b, type: set, value: "${steps.a.output + 1}"}
  - id: loop
    type: while
    condition: index < 3
    max_iterations: 3
    steps: [{id: c, type: set, value: "${index}"}]
  - {id: last, type: set, value: "${[steps.each.output, steps.loop.output]}"}
"""


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        yield hand


def send(hand: Hand, run_id: str, payload: Any, name: str = "approval") -> None:
    hand.do(lambda tx: signals.send(tx, hand.catalogue, run_id, (name, payload), hand.now))


def fork(hand: Hand, run_id: str, step: str, **more: Any) -> str:
    asked = forks.Fork(step, **more)
    return hand.do(lambda tx: forks.fork(tx, hand.catalogue, run_id, asked, hand.now))[0]["id"]


def test_a_sleep_ends_by_itself_and_costs_one_attempt(hand: Hand) -> None:
    run_id = hand.start(NAP)
    assert play(hand, run_id)["status"] == "waiting"
    assert play_on(hand, run_id, 4)["status"] == "waiting"
    assert play_on(hand, run_id, 2)["status"] == "succeeded"
    assert [row["number"] for row in hand.attempts(run_id)] == [1, 1]


@pytest.mark.parametrize("until", ["2001-01-01", "2001-01-01T00:00:00Z", "2001-01-01T00:00:00+02:00"])
def test_a_time_that_has_passed_is_not_waited_for(hand: Hand, until: str) -> None:
    assert play(hand, hand.start(NAP.replace("duration: 5s", f"until: '{until}'")))["status"] == "succeeded"


def test_what_is_due_together_in_one_run_is_taken_as_the_first_of_it_left_it(hand: Hand) -> None:
    both = "name: both\nsteps:\n" + "".join(
        f"  - {{id: {key}, type: wait, signal: {key}, timeout: 5s, needs: []}}\n" for key in "ab"
    )
    run_id = hand.start(both + "on_failure:\n  - {id: mend, type: set, value: mended}\n")
    play(hand, run_id)
    run = play_on(hand, run_id, 5)  # the first one's failure cancels the second
    assert run["status"] == "failed" and run["error"]["step"] == "a"
    assert hand.statuses(run_id) == {"a": "failed", "b": "cancelled", "mend": "succeeded"}
    assert hand.event_types(run_id).count("step.failed") == 1


def test_many_sleeps_of_runs_that_go_on_differently_end_together(hand: Hand) -> None:
    fan = "name: fan\nsteps:\n  - {id: nap, type: sleep, duration: 5s}\n" + "".join(
        f"  - {{id: s{number}, type: set, value: {number}, needs: [nap]}}\n" for number in range(6)
    )
    last = "name: last\nsteps:\n  - {id: nap, type: sleep, duration: 5s}\n"
    runs = [hand.start(source) for source in (NAP, fan, last, NAP)]
    for run_id in runs:
        play(hand, run_id)
    outputs = [run["output"] for run in [play_on(hand, runs[0], 5), *(play(hand, each) for each in runs[1:])]]
    assert outputs == ["done", 5, None, "done"]


def test_a_sleep_can_be_cancelled_and_retried_runs_sleep_again(hand: Hand) -> None:
    run_id = hand.start(NAP)
    play(hand, run_id)
    hand.cancel(run_id)
    assert play_on(hand, run_id, 10)["status"] == "cancelled"
    assert hand.statuses(run_id) == {"nap": "cancelled", "after": "cancelled"}


def test_a_signal_is_the_waits_result(hand: Hand) -> None:
    run_id = hand.start(WAIT.replace("ON_TIMEOUT", ""))
    assert play(hand, run_id)["status"] == "waiting"
    with pytest.raises(UserError, match="payload") as wrong:
        send(hand, run_id, {"ok": "yes"})
    assert (wrong.value.param, hand.run(run_id)["status"]) == ("payload.ok", "waiting")
    send(hand, run_id, {"ok": True})
    assert play(hand, run_id)["output"] is True
    with pytest.raises(Conflict, match="the run is over"):
        send(hand, run_id, {"ok": True})


def test_an_early_signal_is_kept_and_taken_once(hand: Hand) -> None:
    run_id = hand.start(WAIT.replace("ON_TIMEOUT", ""))
    with pytest.raises(UserError):
        send(hand, run_id, 5)
    send(hand, run_id, {"ok": False})
    assert play(hand, run_id)["output"] is False
    twice = "name: twice\nsteps:\n  - {id: a, type: wait, signal: go}\n  - {id: b, type: wait, signal: go}\n"
    run_id = hand.start(twice)
    send(hand, run_id, 1, "go")
    assert play(hand, run_id)["status"] == "waiting"
    send(hand, run_id, 2, "go")
    assert play(hand, run_id)["output"] == 2


def test_a_signal_that_nobody_knows_is_refused_with_the_nearest(hand: Hand) -> None:
    run_id = hand.start(WAIT.replace("ON_TIMEOUT", ""))
    with pytest.raises(UserError, match=r"did you mean approval\?"):
        send(hand, run_id, {"ok": True}, "aproval")


@pytest.mark.parametrize(
    ("on_timeout", "status", "output"),
    [
        ("", "failed", None),
        ("on_timeout: continue", "succeeded", "nobody"),
        ("on_timeout: {steps: [{id: late, type: set, value: {ok: later}}]}", "succeeded", "later"),
    ],
)
def test_a_wait_without_a_signal(hand: Hand, on_timeout: str, status: str, output: Any) -> None:
    run_id = hand.start(WAIT.replace("ON_TIMEOUT", on_timeout))
    play(hand, run_id)
    view = play_on(hand, run_id, 3601)
    assert (view["status"], view["output"]) == (status, output)
    if status == "failed":
        assert (view["error"]["step"], view["error"]["class"]) == ("ask", "timeout")
        hand.retry(run_id)
        play(hand, run_id)
        send(hand, run_id, {"ok": True})
        assert play(hand, run_id)["output"] is True


def test_no_step_starts_before_start_at(hand: Hand) -> None:
    run_id = hand.start(CHAIN, start_us=hand.now + 60_000_000)
    assert (play(hand, run_id)["status"], hand.attempts(run_id)) == ("queued", [])
    assert play_on(hand, run_id, 59)["status"] == "queued"
    assert play_on(hand, run_id, 2)["status"] == "succeeded"


def test_a_child_run_gives_its_output_to_its_step(hand: Hand) -> None:
    hand.do(lambda tx: put(tx, load(CHILD), "api", hand.now))
    run_id = hand.start(PARENT)
    assert play(hand, run_id)["status"] == "waiting"
    child = child_of(hand, run_id)
    held = hand.claim(child, "only")
    call = hand.open_call(held)
    hand.do(lambda tx: settle_request(tx, settled(call, hand.now, 40)))
    hand.complete(held, Succeeded(40))
    answer_all(hand)
    view = play(hand, run_id)
    assert (view["status"], view["output"], view["cost_usd"]) == ("succeeded", 41, 40e-12)


def test_a_child_that_fails_fails_its_step(hand: Hand) -> None:
    hand.do(lambda tx: put(tx, load(CHILD.replace("input.x * 10", "[1][input.x]")), "api", hand.now))
    run_id = hand.start(PARENT)
    play(hand, run_id)
    play(hand, child_of(hand, run_id))
    answer_all(hand)
    view = hand.view(run_id)
    assert (view["status"], view["error"]["step"]) == ("failed", "call")
    assert "at only" in view["error"]["message"]


def test_a_child_is_cancelled_with_its_parent(hand: Hand) -> None:
    hand.do(lambda tx: put(tx, load(CHILD), "api", hand.now))
    run_id = hand.start(PARENT)
    play(hand, run_id)
    child = child_of(hand, run_id)
    hand.cancel(run_id)
    answer_all(hand)
    assert hand.run(child)["status"] == "cancelled"


def test_workflows_that_call_themselves_end_somewhere(hand: Hand) -> None:
    loop = "name: child\nsteps:\n  - {id: call, type: workflow, workflow: child}\n"
    hand.do(lambda tx: put(tx, load(loop), "api", hand.now))
    run_id = top = hand.start(loop)
    for _ in range(10):
        play(hand, run_id)
        run_id = child_of(hand, run_id)
    assert "at most 10 deep" in play(hand, run_id)["error"]["message"]
    for _ in range(11):
        answer_all(hand)
    assert hand.run(top)["status"] == "failed"


@pytest.mark.parametrize(
    ("step", "again"),
    [
        ("last", {"last"}),
        ("loop", {"loop", "loop[0].c", "loop[1].c", "loop[2].c", "last"}),
        ("loop[1].c", {"loop[1].c", "loop[2].c", "last"}),
        ("each[1].b", {"each[1].b", "loop", "loop[0].c", "loop[1].c", "loop[2].c", "last"}),
    ],
)
def test_a_fork_runs_the_step_and_what_comes_after_it(hand: Hand, step: str, again: set[str]) -> None:
    old = hand.start(DEEP)
    before = play(hand, old)
    run_id = fork(hand, old, step)
    view = play(hand, run_id)
    assert (view["status"], view["output"], view["forked_from"]) == ("succeeded", before["output"], old)
    keys = {row["id"]: key for key, row in hand.steps(run_id).items()}
    assert {keys[row["step_id"]] for row in hand.attempts(run_id)} == again
    assert hand.run(run_id)["open_steps"] == 0


def test_a_fork_takes_other_inputs_and_models(hand: Hand) -> None:
    source = (
        "name: f\nsteps:\n  - {id: a, type: set, value: 1}\n  - {id: ask, type: llm, model: x, prompt: '${input.q}'}\n"
    )
    old = hand.start(source, {"q": 1})
    hand.finish(old, "a", 1)
    run_id = fork(hand, old, "ask", input={"q": 2}, models={"ask": "fast"})
    held = hand.claim(run_id, "ask")
    assert (held.step.fields["model"], held.scope["input"]) == ("fast", {"q": 2})
    with pytest.raises(UserError, match=r"did you mean ask\?"):
        fork(hand, old, "aks")
    with pytest.raises(UserError, match="no llm or agent step 'a'"):
        fork(hand, old, "ask", models={"a": "fast"})


def test_a_kept_result_is_for_the_same_call_of_the_same_key_and_for_its_time(hand: Hand) -> None:
    source = "name: c\nsteps:\n  - {id: a, type: llm, model: x, prompt: 'ask ${input.q}', cache: 1h}\n"
    step = load(source).steps[0]
    digest = call_digest(step, {"input": {"q": 1}}, None)
    assert digest != call_digest(step, {"input": {"q": 2}}, None) != call_digest(step, {"input": {"q": 1}}, "key")
    for text in ("old", "new"):
        hand.do(lambda tx, text=text: remember(tx, digest, Succeeded(text, "p/m"), 3600, hand.now))
    assert hand.do(lambda tx: recall(tx, digest, hand.now)) == Succeeded("new", "p/m")
    hand.pass_time(3601)
    assert hand.do(lambda tx: recall(tx, digest, hand.now)) is None


def child_of(hand: Hand, run_id: str) -> str:

    (child,) = hand.do(lambda tx: child_run_ids(tx, run_id)).values()
    return child
