"""What people do to runs, on both databases: cancel, pause, resume, retry, each with a clear no where it cannot be."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from engine_hand import CHAIN, ONE_STEP, PARALLEL, SECOND, Hand, at_once, opened, settled
from engine_play import outcome_of

from engine import control, sweeper
from engine.errors import Conflict, NotFound
from engine.ports import Branched, Failed, Succeeded
from engine.states import ErrorClass
from engine.store.whole_runs import whole_run

WRONG = Failed(ErrorClass.INVALID_REQUEST, "wrong")
BRANCHED = """
name: branched
steps:
  - {id: before, type: set, value: 1, output: start}
  - id: choose
    type: if
    condition: "true"
    then:
      - {id: one, type: set, value: 1}
      - {id: two, type: set, value: 1}
      - {id: three, type: set, value: 1}
  - {id: after, type: set, value: 1}
"""
WITH_DEADLINES = """
name: with-deadlines
deadline: 60s
steps:
  - {id: only, type: set, value: 1, deadline: 10s}
"""


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        yield hand


def failed_run(hand: Hand, source: str = ONE_STEP, key: str = "only") -> str:
    run_id = hand.start(source)
    hand.complete(hand.claim(run_id, key), WRONG)
    return run_id


def test_cancelling_a_queued_run_ends_all_of_it(hand: Hand) -> None:
    run_id = hand.start(CHAIN)
    assert hand.cancel(run_id)["status"] == "cancelled"
    assert set(hand.statuses(run_id).values()) == {"cancelled"}
    assert hand.try_claim(hand.step(run_id, "first")["id"]) is None
    assert hand.event_types(run_id)[-1] == "run.cancelled"
    assert (hand.run(run_id)["open_steps"], hand.run(run_id)["finished_us"]) == (0, hand.now)


def test_cancelling_a_running_run_takes_its_steps_from_their_workers(hand: Hand) -> None:
    run_id = hand.start(PARALLEL)
    held = hand.claim(run_id, "left")
    call = hand.open_call(held)
    hand.cancel(run_id)
    assert not hand.complete(held, Succeeded("late"), settled(call, hand.now, 40)).accepted
    assert hand.attempts(run_id)[0]["status"] == "cancelled"
    view = hand.view(run_id)
    assert (view["status"], view["output"], view["cost_usd"]) == ("cancelled", None, 40e-12)


def test_cancelling_a_step_that_waits_for_its_retry(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP)
    hand.complete(hand.claim(run_id, "only"), Failed(ErrorClass.TIMEOUT, "slow"))
    hand.cancel(run_id)
    hand.pass_time(600)
    assert hand.wake() == []
    assert hand.statuses(run_id) == {"only": "cancelled"}


def test_cancelling_twice_is_once(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP, webhook_url="http://example.com/hook")
    hand.cancel(run_id)
    before = hand.events(run_id)
    assert hand.cancel(run_id)["status"] == "cancelled"
    assert hand.events(run_id) == before


def test_a_paused_run_is_not_claimed_and_what_was_under_way_finishes(hand: Hand) -> None:
    run_id = hand.start(CHAIN)
    held = hand.claim(run_id, "first")
    assert hand.pause(run_id)["pause_reason"] == "user"
    done = hand.complete(held, Succeeded(1))
    assert done.accepted
    assert hand.statuses(run_id)["second"] == "ready"
    assert hand.try_claim(hand.step(run_id, "second")["id"]) is None
    assert hand.pause(run_id)["status"] == "paused"
    assert hand.resume(run_id) == [hand.step(run_id, "second")["id"]]
    assert (hand.run(run_id)["status"], hand.run(run_id)["pause_reason"]) == ("running", None)
    hand.finish(run_id, "second")
    hand.finish(run_id, "third")
    assert hand.run(run_id)["status"] == "succeeded"
    kinds = hand.event_types(run_id)
    assert (kinds.count("run.paused"), kinds.count("run.resumed")) == (1, 1)


def test_a_run_that_is_paused_before_it_starts_is_queued_again(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP)
    hand.pause(run_id)
    hand.resume(run_id)
    assert hand.run(run_id)["status"] == "queued"
    hand.finish(run_id, "only")
    assert hand.event_types(run_id).count("run.started") == 1


def test_a_paused_run_can_be_cancelled_and_its_last_step_may_end_it(hand: Hand) -> None:
    cancelled, finished = hand.start(ONE_STEP), hand.start(ONE_STEP)
    hand.pause(cancelled)
    assert hand.cancel(cancelled)["status"] == "cancelled"
    held = hand.claim(finished, "only")
    hand.pause(finished)
    assert hand.complete(held, Succeeded(1)).run_ended
    assert (hand.run(finished)["status"], hand.run(finished)["pause_reason"]) == ("succeeded", None)


def test_a_retry_keeps_what_was_finished_and_pays_for_none_of_it_again(hand: Hand) -> None:
    run_id = hand.start(CHAIN)
    held = hand.claim(run_id, "first")
    hand.complete(held, Succeeded("dear"), settled(hand.open_call(held), hand.now, 40))
    hand.complete(hand.claim(run_id, "second"), WRONG)
    assert hand.statuses(run_id) == {"first": "succeeded", "second": "failed", "third": "cancelled"}
    assert hand.retry(run_id) == [hand.step(run_id, "second")["id"]]
    view = hand.view(run_id)
    assert (view["status"], view["error"], view["finished_at"]) == ("running", None, None)
    assert hand.statuses(run_id) == {"first": "succeeded", "second": "ready", "third": "pending"}
    hand.finish(run_id, "second")
    hand.finish(run_id, "third", "whole")
    view = hand.view(run_id)
    assert (view["status"], view["output"], view["cost_usd"]) == ("succeeded", "whole", 40e-12)
    assert len(hand.do(lambda tx: whole_run(tx, run_id).calls)) == 1
    assert [row["number"] for row in hand.attempts(run_id) if row["status"] == "succeeded"].count(2) == 1
    assert hand.run(run_id)["open_steps"] == 0


@pytest.mark.parametrize("broken", ["one", "two", "three"])
def test_a_retry_goes_on_inside_a_branch(hand: Hand, broken: str) -> None:
    run_id = hand.start(BRANCHED)
    hand.finish(run_id, "before", 1)
    hand.complete(hand.claim(run_id, "choose"), Branched("then"))
    keys = ["one", "two", "three"]
    for key in keys[: keys.index(broken)]:
        hand.finish(run_id, key)
    hand.complete(hand.claim(run_id, broken), WRONG)
    hand.retry(run_id)
    assert hand.statuses(run_id)["choose"] == "waiting"
    for key in [*keys[keys.index(broken) :], "after"]:
        hand.finish(run_id, key, key)
    assert (hand.run(run_id)["status"], hand.run(run_id)["open_steps"]) == ("succeeded", 0)
    assert hand.view(run_id)["output"] == "after"


def test_a_container_that_failed_itself_chooses_anew(hand: Hand) -> None:
    run_id = hand.start(BRANCHED)
    hand.finish(run_id, "before", 1)
    hand.complete(hand.claim(run_id, "choose"), WRONG)
    hand.retry(run_id)
    assert hand.statuses(run_id)["choose"] == "ready"
    hand.complete(hand.claim(run_id, "choose"), Branched(None))
    hand.finish(run_id, "after")
    assert hand.run(run_id)["status"] == "succeeded"


def test_a_retry_starts_tries_losses_and_deadlines_anew(hand: Hand) -> None:
    run_id = hand.start(WITH_DEADLINES)
    for number in range(3):
        hand.enter_worker(f"w{number}")
        hand.claim(run_id, "only", f"w{number}")
        hand.bury(f"w{number}", died_alone=number == 2)
    assert hand.run(run_id)["error_class"] == "worker_lost"
    hand.pass_time(100)
    hand.retry(run_id)
    assert hand.do(lambda tx: sweeper.expire_runs(tx, hand.catalogue, hand.now)).run_ended is False
    held = hand.claim(run_id, "only", "w9")
    assert held.started_us == hand.now
    row = hand.step(run_id, "only")
    assert (row["tries"], row["losses"], row["finished_us"]) == (0, 0, None)
    hand.enter_worker("w9")
    hand.bury("w9")
    assert hand.statuses(run_id) == {"only": "ready"}
    hand.pass_time(60)
    assert hand.do(lambda tx: sweeper.expire_runs(tx, hand.catalogue, hand.now)).run_ended is True
    assert hand.run(run_id)["deadline_us"] == hand.now
    assert SECOND * 160 + hand.run(run_id)["created_us"] == hand.now
    hand.retry(run_id)
    assert hand.run(run_id)["deadline_us"] == hand.now + 60 * SECOND


def test_a_run_that_ran_out_of_time_can_be_retried(hand: Hand) -> None:
    run_id = hand.start(WITH_DEADLINES)
    hand.pass_time(61)
    assert hand.do(lambda tx: sweeper.expire_runs(tx, hand.catalogue, hand.now)).run_ended is True
    assert hand.retry(run_id) == [hand.step(run_id, "only")["id"]]
    hand.finish(run_id, "only", "in time")
    assert hand.view(run_id)["output"] == "in time"


@pytest.mark.parametrize(
    ("state", "action", "code", "told"),
    [
        ("succeeded", control.cancel, "run_ended", "the run is over (succeeded)"),
        ("failed", control.cancel, "run_ended", "the run is over (failed)"),
        ("succeeded", control.pause, "run_ended", "the run is over (succeeded)"),
        ("cancelled", control.pause, "run_ended", "the run is over (cancelled)"),
        ("succeeded", control.retry, "run_not_failed", "the run is succeeded, only a failed run"),
        ("queued", control.retry, "run_not_failed", "the run is queued, only a failed run"),
        ("cancelled", control.retry, "run_not_failed", "the run is cancelled, only a failed run"),
    ],
)
def test_what_cannot_be_is_a_conflict_that_says_why(
    hand: Hand, state: str, action: Callable[..., object], code: str, told: str
) -> None:
    run_id = failed_run(hand) if state == "failed" else hand.start(ONE_STEP)
    if state == "succeeded":
        hand.finish(run_id, "only")
    if state == "cancelled":
        hand.cancel(run_id)
    before = hand.run(run_id), hand.events(run_id)
    with pytest.raises(Conflict) as refused:
        hand.do(lambda tx: action(tx, hand.catalogue, run_id, hand.now))
    assert refused.value.code == code
    assert told in refused.value.message
    assert (hand.run(run_id), hand.events(run_id)) == before


def test_only_a_paused_run_is_resumed(hand: Hand) -> None:
    for run_id in (hand.start(ONE_STEP), failed_run(hand)):
        with pytest.raises(Conflict, match="only a paused run can be resumed"):
            hand.resume(run_id, 10)
        assert hand.run(run_id)["budget_picousd"] is None


def test_a_run_whose_output_did_not_render_has_nothing_to_retry(hand: Hand) -> None:
    source = ONE_STEP.replace("value: 1", "value: 1, output: found") + "output: ${found.missing}\n"
    run_id = hand.start(source)
    hand.finish(run_id, "only", {})
    with pytest.raises(Conflict, match="its output did not render"):
        hand.retry(run_id)
    assert hand.run(run_id)["status"] == "failed"


def test_a_run_that_is_not_there_is_not_found(hand: Hand) -> None:
    for action in (hand.cancel, hand.pause, hand.resume, hand.retry):
        with pytest.raises(NotFound, match="there is no run nobody"):
            action("nobody")


def cancel_if_open(hand: Hand, run_id: str) -> None:
    with contextlib.suppress(Conflict):
        hand.cancel(run_id)


def test_cancel_and_completion_at_once_end_the_run_once(database_url: str) -> None:
    with opened(database_url) as one, opened(database_url) as two:
        for _ in range(8):
            run_id = one.start(PARALLEL, webhook_url="http://example.com/hook")
            held = [one.claim(run_id, "left"), one.claim(run_id, "right")]

            at_once(partial(cancel_if_open, one, run_id), *(partial(two.complete, mine, Succeeded(1)) for mine in held))
            ends = [kind for kind in one.event_types(run_id) if kind in ("run.succeeded", "run.cancelled")]
            assert len(ends) == 1
            assert one.run(run_id)["status"] == ends[0].removeprefix("run.")
            assert one.run(run_id)["open_steps"] == 0
            assert [event["seq"] for event in one.events(run_id)] == list(range(1, len(one.events(run_id)) + 1))


@pytest.mark.parametrize(
    "body",
    [
        "type: parallel, branches: {left: [{id: bad, type: set, value: 1}, {id: more, type: set, value: 1}], right: [{id: r, type: set, value: 1}]}",
        "type: if, condition: 'true', then: [{id: bad, type: set, value: 1}, {id: more, type: set, value: 1}]",
        "type: foreach, items: [0, 1], concurrency: 1, steps: [{id: bad, type: set, value: 1}, {id: more, type: set, value: 1}]",
    ],
)
def test_a_retry_within_a_handler_leaves_alone_what_it_handles(hand: Hand, body: str) -> None:
    handlers = "{steps: [{id: h1, type: set, value: 1}, {id: h2, type: set, value: 1}]}"
    run_id = hand.start(f"name: handled\nsteps:\n  - {{id: c, {body}, on_error: {handlers}}}\n")
    while "h2" not in hand.statuses(run_id):
        key = next(key for key, status in hand.statuses(run_id).items() if status == "ready" and key != "c.right.r")
        played(hand, run_id, key, fails="bad")
    played(hand, run_id, "h1")
    played(hand, run_id, "h2", fails="h2")
    assert hand.run(run_id)["status"] == "failed"
    assert hand.retry(run_id) == [hand.step(run_id, "h2")["id"]]
    played(hand, run_id, "h2")
    assert (hand.run(run_id)["status"], hand.run(run_id)["open_steps"]) == ("succeeded", 0)


def played(hand: Hand, run_id: str, key: str, fails: str = "-") -> None:
    held = hand.claim(run_id, key)
    hand.complete(held, WRONG if key.endswith(fails) else outcome_of(held))
