"""Claims and completions on both databases: one winner, a fence against the late, tries and losses counted apart."""

import asyncio
from collections.abc import Iterator

import pytest
from engine_hand import CHAIN, ONE_STEP, PARALLEL, SECOND, Hand, opened, settled

from engine import attempts
from engine.attempts import Claimed, Ended
from engine.ports import Failed, OverBudget, Skipped, Succeeded
from engine.states import ErrorClass
from engine.store.whole_runs import whole_run

RETRYING = """
name: retrying
steps:
  - id: only
    type: set
    value: 1
    retry: {max_attempts: 3, initial: 2s, factor: 3, max: 5s, jitter: false, errors: [timeout, tool_error]}
"""
WITH_DEADLINE = """
name: with-deadline
steps:
  - {id: only, type: set, value: 1, deadline: 10s, retry: {max_attempts: 9, initial: 4s, factor: 1, jitter: false}}
"""


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        yield hand


def test_exactly_one_of_many_claimers_wins(database_url: str) -> None:
    with opened(database_url) as one, opened(database_url) as two:
        run_id = one.start(ONE_STEP)
        step_id = one.step(run_id, "only")["id"]

        async def claim_all() -> list[Claimed | None]:
            return await asyncio.gather(
                *(
                    hand.database.write(
                        lambda tx, hand=hand, worker=f"w{number}": attempts.claim(
                            tx, hand.catalogue, step_id, worker, hand.now
                        )
                    )
                    for number, hand in enumerate([one, two] * 15)
                )
            )

        won = [held for held in asyncio.run(claim_all()) if held is not None]
        assert len(won) == 1
        row = one.step(run_id, "only")
        assert (row["status"], row["attempt"], row["worker_id"]) == ("running", 1, won[0].worker_id)
        assert [attempt["worker_id"] for attempt in one.attempts(run_id)] == [won[0].worker_id]
        assert one.event_types(run_id) == ["run.submitted", "run.started", "step.started"]


def test_claims_and_returns_at_once_number_each_attempt_once(database_url: str) -> None:
    """A claimer that read the step before another one claimed and returned it must not write that one's number."""
    with opened(database_url) as one, opened(database_url) as two:
        run_id = one.start(ONE_STEP)
        step_id = one.step(run_id, "only")["id"]

        async def take_and_return(hand: Hand, worker: str) -> int:
            taken = 0
            for _ in range(12):
                held = await hand.database.write(
                    lambda tx: attempts.claim(tx, hand.catalogue, step_id, worker, hand.now)
                )
                if held is not None:
                    taken += 1
                    done = await hand.database.write(lambda tx, held=held: attempts.give_back(tx, held, hand.now))
                    assert done.accepted
            return taken

        async def all_at_once() -> list[int]:
            return await asyncio.gather(*(take_and_return(hand, f"w{n}") for n, hand in enumerate([one, two] * 3)))

        taken = sum(asyncio.run(all_at_once()))
        rows = one.attempts(run_id)
        assert [row["number"] for row in rows] == list(range(1, taken + 1))
        assert {row["status"] for row in rows} == {"returned"}
        assert one.step(run_id, "only")["attempt"] == taken


def test_a_claim_carries_what_execution_needs(hand: Hand) -> None:
    run_id = hand.start(CHAIN, {"a": 1}, tags={"team": "x"})
    hand.pass_time(2)
    held = hand.claim(run_id, "first", "w7")
    assert (held.key, held.attempt, held.worker_id, held.step.id) == ("first", 1, "w7", "first")
    assert (held.scope["input"], held.scope["run"], held.tags) == (
        {"a": 1},
        {"id": run_id, "error": None},
        {"team": "x"},
    )
    assert held.started_us == hand.now
    view = hand.view(run_id)
    assert (view["status"], view["started_at"]) == ("running", "2027-01-15T08:00:02.000000Z")


@pytest.mark.parametrize("step", ["no-such-id", "second"])
def test_what_is_not_ready_is_not_claimed(hand: Hand, step: str) -> None:
    run_id = hand.start(CHAIN)
    assert hand.try_claim(hand.steps(run_id)[step]["id"] if step == "second" else step) is None


def test_a_late_worker_writes_no_result_but_its_money_is_booked(hand: Hand) -> None:
    hand.enter_worker("w1")
    run_id = hand.start(ONE_STEP)
    late = hand.claim(run_id, "only", "w1")
    call = hand.open_call(late)
    hand.bury("w1")
    now = hand.claim(run_id, "only", "w2")
    done = hand.complete(late, Succeeded("late"), settled(call, hand.now, 40))
    assert (done.accepted, done.rings, done.run_ended) == (False, (), False)
    assert hand.step(run_id, "only")["status"] == "running"
    assert hand.view(run_id)["cost_usd"] == 40e-12
    assert hand.complete(now, Succeeded("in time")).accepted
    assert hand.view(run_id)["output"] == "in time"


def test_the_same_worker_with_an_older_attempt_is_late_too(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP)
    old = hand.claim(run_id, "only", "w1")
    hand.give_back(old)
    new = hand.claim(run_id, "only", "w1")
    assert not hand.complete(old, Succeeded("old")).accepted
    assert not hand.give_back(old).accepted
    assert hand.complete(new, Succeeded("new")).accepted


def test_completing_again_after_a_lost_answer_changes_nothing(hand: Hand) -> None:
    run_id = hand.start(CHAIN)
    held = hand.claim(run_id, "first")
    call = hand.open_call(held)
    settlement = settled(call, hand.now, 40)
    assert hand.complete(held, Succeeded(1), settlement).accepted
    before = hand.events(run_id)
    assert not hand.complete(held, Succeeded(2), settled(call, hand.now, 99)).accepted
    assert hand.events(run_id) == before
    assert hand.view(run_id)["cost_usd"] == 40e-12
    assert hand.step(run_id, "first")["output_json"] == "1"


def test_completions_of_one_run_at_once_lose_nothing(database_url: str) -> None:
    wide = "name: wide\nsteps:\n" + "".join(f"  - {{id: s{n}, type: set, value: 1, needs: []}}\n" for n in range(16))
    wide += f"  - {{id: last, type: set, value: 1, needs: [{', '.join(f's{n}' for n in range(16))}]}}\n"
    with opened(database_url) as one, opened(database_url) as two:
        run_id = one.start(wide)
        held = [one.claim(run_id, f"s{number}") for number in range(16)]

        async def complete_all() -> list[attempts.Completed]:
            return await asyncio.gather(
                *(
                    hand.database.write(
                        lambda tx, hand=hand, mine=mine: attempts.complete(
                            tx, hand.catalogue, mine, Ended(Succeeded(mine.key)), hand.now
                        )
                    )
                    for hand, mine in zip([one, two] * 8, held, strict=True)
                )
            )

        done = asyncio.run(complete_all())
        assert all(each.accepted for each in done)
        assert [ring.step_id for each in done for ring in each.rings] == [one.step(run_id, "last")["id"]]
        assert one.run(run_id)["open_steps"] == 1
        sequence = [event["seq"] for event in one.events(run_id)]
        assert sequence == list(range(1, 2 + 16 + 16 + 1))


def test_one_commit_ends_a_step_and_begins_the_one_step_that_it_unlocks(hand: Hand) -> None:
    run_id = hand.start(CHAIN)
    done = hand.complete(hand.claim(run_id, "first"), Succeeded("a"), go_on=True)
    assert done.accepted and not done.rings and done.following is not None
    following, row = done.following, hand.step(run_id, "second")
    assert (following.step_id, following.key, following.attempt) == (row["id"], "second", 1)
    assert (row["status"], row["attempt"], row["worker_id"], row["due_us"]) == ("running", 1, "w1", None)
    assert [(each["step_id"], each["status"]) for each in hand.attempts(run_id)][-1] == (row["id"], "running")
    assert hand.event_types(run_id)[-3:] == ["step.started", "step.succeeded", "step.started"]
    assert hand.run(run_id)["status"] == "running"
    last = hand.complete(following, Succeeded("b"), go_on=True).following
    assert last is not None
    end = hand.complete(last, Succeeded("c"), go_on=True)
    assert end.run_ended and end.following is None
    assert hand.view(run_id)["output"] == "c"


def test_no_worker_goes_on_with_a_paused_run_or_where_several_steps_follow(hand: Hand) -> None:
    run_id = hand.start(CHAIN)
    held = hand.claim(run_id, "first")
    hand.pause(run_id)
    done = hand.complete(held, Succeeded(1), go_on=True)
    assert done.following is None
    assert hand.statuses(run_id) == {"first": "succeeded", "second": "ready", "third": "pending"}
    fan = "name: fan\nsteps:\n  - {id: a, type: set, value: 1}\n" + "".join(
        f"  - {{id: {key}, type: set, value: 1, needs: [a]}}\n" for key in "bc"
    )
    run_id = hand.start(fan)
    done = hand.complete(hand.claim(run_id, "a"), Succeeded(1), go_on=True)
    assert (len(done.rings), done.following) == (2, None)


def test_a_failure_waits_as_long_as_the_policy_says_and_then_fails_for_good(hand: Hand) -> None:
    run_id = hand.start(RETRYING)
    pauses = []
    for _ in range(2):
        hand.complete(hand.claim(run_id, "only"), Failed(ErrorClass.TOOL_ERROR, "broke"))
        row = hand.step(run_id, "only")
        assert (row["status"], row["error_class"], row["error_message"]) == ("waiting", "tool_error", "broke")
        pauses.append((row["due_us"] - hand.now) / SECOND)
        hand.now = row["due_us"] - 1
        assert hand.wake() == []
        hand.now += 1
        assert hand.wake() == [row["id"]]
        assert hand.wake() == []
    done = hand.complete(hand.claim(run_id, "only"), Failed(ErrorClass.TIMEOUT, "third time"))
    assert pauses == [2, 5]
    assert done.run_ended
    view = hand.view(run_id)
    assert view["error"] == {"step": "only", "class": "timeout", "message": "third time"}
    assert [row["status"] for row in hand.attempts(run_id)] == ["failed"] * 3
    assert [kind for kind in hand.event_types(run_id) if kind != "step.started"] == [
        "run.submitted",
        "run.started",
        "step.retrying",
        "step.retrying",
        "step.failed",
        "run.failed",
    ]


@pytest.mark.parametrize(
    "failed",
    [Failed(ErrorClass.INVALID_REQUEST, "wrong"), Failed(ErrorClass.TIMEOUT, "told so", final=True)],
)
def test_what_is_not_retried_fails_at_once(hand: Hand, failed: Failed) -> None:
    run_id = hand.start(RETRYING)
    assert hand.complete(hand.claim(run_id, "only"), failed).run_ended
    assert hand.statuses(run_id) == {"only": "failed"}


def test_a_longer_retry_after_is_respected(hand: Hand) -> None:
    run_id = hand.start(RETRYING)
    hand.complete(hand.claim(run_id, "only"), Failed(ErrorClass.TIMEOUT, "slow down", retry_after_s=90.5))
    assert hand.step(run_id, "only")["due_us"] == hand.now + 90_500_000


def test_a_retry_that_could_begin_only_behind_the_deadline_is_none(hand: Hand) -> None:
    run_id = hand.start(WITH_DEADLINE)
    for _ in range(2):
        hand.complete(hand.claim(run_id, "only"), Failed(ErrorClass.TIMEOUT, "slow"))
        hand.pass_time(4)
        assert len(hand.wake()) == 1
    held = hand.claim(run_id, "only")  # eight of its ten seconds have passed
    assert held.started_us == hand.now - 8 * SECOND
    assert hand.complete(held, Failed(ErrorClass.TIMEOUT, "slow")).run_ended


def test_losses_and_returns_cost_no_try(hand: Hand) -> None:
    run_id = hand.start(RETRYING)
    for worker in ("w1", "w2"):
        hand.enter_worker(worker)
        hand.claim(run_id, "only", worker)
        hand.bury(worker)
    hand.give_back(hand.claim(run_id, "only"))
    row = hand.step(run_id, "only")
    assert (row["status"], row["attempt"], row["tries"], row["losses"]) == ("ready", 3, 0, 2)
    for _ in range(2):
        hand.complete(hand.claim(run_id, "only"), Failed(ErrorClass.TIMEOUT, "slow"))
        hand.pass_time(5)
        hand.wake()
    assert hand.complete(hand.claim(run_id, "only"), Succeeded("at last")).accepted
    assert [row["status"] for row in hand.attempts(run_id)] == [
        "lost",
        "lost",
        "returned",
        "failed",
        "failed",
        "succeeded",
    ]
    view = hand.view(run_id)
    assert (view["status"], view["output"], view["error"]) == ("succeeded", "at last", None)
    assert hand.step(run_id, "only")["error_class"] is None


def test_a_skipped_step_has_no_output_and_unlocks_what_waits_for_it(hand: Hand) -> None:
    run_id = hand.start(CHAIN)
    done = hand.complete(hand.claim(run_id, "first"), Skipped())
    assert [ring.step_id for ring in done.rings] == [hand.step(run_id, "second")["id"]]
    row = hand.step(run_id, "first")
    assert (row["status"], row["output_json"], row["output_digest"]) == ("skipped", None, None)


def test_the_end_of_a_run_cancels_what_is_still_running(hand: Hand) -> None:
    run_id = hand.start(PARALLEL)
    left, right = hand.claim(run_id, "left"), hand.claim(run_id, "right", "w2")
    assert hand.complete(left, Failed(ErrorClass.INVALID_REQUEST, "wrong")).run_ended
    assert hand.statuses(run_id) == {"left": "failed", "right": "cancelled"}
    assert [row["status"] for row in hand.attempts(run_id)] in (["failed", "cancelled"], ["cancelled", "failed"])
    assert not hand.complete(right, Succeeded(1)).accepted
    assert (hand.run(run_id)["open_steps"], hand.run(run_id)["status"]) == (0, "failed")


def test_two_steps_over_budget_pause_the_run_once(hand: Hand) -> None:
    run_id = hand.start(PARALLEL, webhook_url="http://example.com/hook")
    left, right = hand.claim(run_id, "left"), hand.claim(run_id, "right")
    hand.complete(left, OverBudget("too dear"))
    hand.complete(right, OverBudget("too dear as well"))
    assert hand.event_types(run_id).count("run.paused") == 1
    assert hand.statuses(run_id) == {"left": "ready", "right": "ready"}
    assert (hand.run(run_id)["status"], hand.run(run_id)["pause_reason"]) == ("paused", "budget_exceeded")


def test_a_call_of_a_superseded_attempt_is_not_opened(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP)
    old = hand.claim(run_id, "only")
    hand.give_back(old)
    with pytest.raises(Exception, match="another worker holds this step now"):
        hand.open_call(old)
    assert hand.do(lambda tx: whole_run(tx, run_id).calls) == []
