"""A run's budget on both databases: what is reserved and spent never exceeds it, and what nobody saw stays counted."""

import asyncio
from collections.abc import Iterator

import pytest
from engine_hand import ONE_STEP, Hand, intent_of, opened, settled

from engine import attempts
from engine.errors import BudgetExceeded
from engine.ledger import CallScope
from engine.ports import Failed, OverBudget, Succeeded
from engine.states import ErrorClass
from engine.store.requests import run_committed_picousd, settle_request
from engine.store.whole_runs import whole_run

WIDE = "name: wide\nbudget_usd: 0.000000001\nsteps:\n" + "".join(
    f"  - {{id: s{number}, type: set, value: 1, needs: []}}\n" for number in range(4)
)


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        yield hand


def left(hand: Hand, run_id: str) -> int | None:
    scope = CallScope(request_id="r", run_id=run_id)
    return hand.do(lambda tx: attempts.remaining_picousd(tx, scope, hand.now))


def settle(hand: Hand, call_id: str, cost_picousd: int | None) -> None:
    hand.do(lambda tx: settle_request(tx, settled(call_id, hand.now, cost_picousd)))


def test_calls_opened_at_once_never_reserve_more_than_the_budget(database_url: str) -> None:
    with opened(database_url) as one, opened(database_url) as two:
        run_id = one.start(WIDE)
        held = [one.claim(run_id, f"s{number}") for number in range(4)]

        async def open_all() -> list[object]:
            works = [
                hand.database.write(
                    lambda tx, mine=mine: attempts.open_call(tx, mine, intent_of(mine, one.now, reserve_picousd=150))
                )
                for hand in (one, two)
                for mine in held * 4
            ]
            return await asyncio.gather(*works, return_exceptions=True)

        answers = asyncio.run(open_all())
        refused = [answer for answer in answers if answer is not None]
        assert len(answers) - len(refused) == 6
        assert {type(answer) for answer in refused} == {BudgetExceeded}
        assert one.do(lambda tx: run_committed_picousd(tx, run_id)) == 900
        assert len(one.do(lambda tx: whole_run(tx, run_id).calls)) == 6
        assert left(one, run_id) == 100


def test_a_refusal_says_what_the_call_can_cost_and_what_is_left(hand: Hand) -> None:
    run_id = hand.start(WIDE)
    held = hand.claim(run_id, "s0")
    hand.open_call(held, 700)
    with pytest.raises(BudgetExceeded, match=r"can cost 0\.000000000301 USD, .* only 0\.0000000003 are left"):
        hand.open_call(held, 301)
    assert hand.open_call(held, 300)


def test_a_settled_call_counts_what_it_cost_and_frees_the_rest(hand: Hand) -> None:
    run_id = hand.start(WIDE)
    held = hand.claim(run_id, "s0")
    settle(hand, hand.open_call(held, 800), 250)
    assert left(hand, run_id) == 750
    settle(hand, hand.open_call(held, 700), 0)
    assert left(hand, run_id) == 750


def test_a_call_whose_end_nobody_saw_stays_counted_at_its_worst(hand: Hand) -> None:
    run_id = hand.start(WIDE)
    hand.enter_worker("w1")
    held = hand.claim(run_id, "s0", "w1")
    cut_off = hand.open_call(held, 300)
    settle(hand, cut_off, None)  # timed out, say: sent and never answered
    assert left(hand, run_id) == 700
    hand.open_call(held, 400)
    hand.bury("w1")
    assert left(hand, run_id) == 300
    view = hand.view(run_id)
    assert (view["cost_usd"], view["cost_unknown_calls"]) == (0.0, 2)


def test_a_settlement_that_comes_late_replaces_unknown_and_the_first_one_stands(hand: Hand) -> None:
    run_id = hand.start(WIDE)
    hand.enter_worker("w1")
    call = hand.open_call(hand.claim(run_id, "s0", "w1"), 300)
    hand.bury("w1")
    row = hand.do(lambda tx: whole_run(tx, run_id).calls)[0]
    assert (row["status"], row["cost_source"], row["error_class"]) == ("unknown", "unknown", "worker_lost")
    settle(hand, call, 120)
    settle(hand, call, 999)
    row = hand.do(lambda tx: whole_run(tx, run_id).calls)[0]
    assert (row["status"], row["cost_picousd"], row["error"], row["total_tokens"]) == ("succeeded", 120, None, 15)
    assert left(hand, run_id) == 880


def test_a_price_that_nobody_knows_is_let_through_and_shows(hand: Hand) -> None:
    run_id = hand.start(WIDE)
    held = hand.claim(run_id, "s0")
    settle(hand, hand.open_call(held, None), None)
    assert left(hand, run_id) == 1000
    assert hand.view(run_id)["cost_unknown_calls"] == 1


def test_a_budget_of_nothing_lets_only_free_calls_pass(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP, budget_picousd=0)
    held = hand.claim(run_id, "only")
    assert hand.open_call(held, 0)
    with pytest.raises(BudgetExceeded):
        hand.open_call(held, 1)


def test_without_a_budget_there_is_no_limit(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP)
    assert hand.open_call(hand.claim(run_id, "only"), 10**18)
    assert left(hand, run_id) is None


def test_a_submission_replaces_the_definitions_budget(hand: Hand) -> None:
    assert hand.run(hand.start(WIDE))["budget_picousd"] == 1000
    assert hand.run(hand.start(WIDE, budget_picousd=7))["budget_picousd"] == 7


def test_a_run_over_budget_pauses_and_goes_on_with_a_larger_one(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP, budget_picousd=100)
    held = hand.claim(run_id, "only")
    settle(hand, hand.open_call(held, 80), 80)
    with pytest.raises(BudgetExceeded) as refused:
        hand.open_call(held, 50)
    done = hand.complete(held, OverBudget(refused.value.message))
    assert (done.accepted, done.rings, done.run_ended) == (True, (), False)
    step = hand.step(run_id, "only")
    assert (step["status"], step["tries"], step["losses"]) == ("ready", 0, 0)
    assert hand.try_claim(step["id"]) is None
    assert hand.resume(run_id, 200) == [step["id"]]
    held = hand.claim(run_id, "only")
    assert hand.open_call(held, 120)
    hand.complete(held, Succeeded("dear"))
    view = hand.view(run_id)
    assert (view["status"], view["budget_usd"], view["pause_reason"]) == ("succeeded", 200e-12, None)
    assert [row["status"] for row in hand.attempts(run_id)] == ["returned", "succeeded"]


def test_all_attempts_of_a_run_share_its_budget(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP, budget_picousd=100)
    held = hand.claim(run_id, "only")
    call = hand.open_call(held, 60)
    hand.complete(held, Failed(ErrorClass.TIMEOUT, "slow"), settled(call, hand.now, 60))
    hand.pass_time(5)
    hand.wake()
    held = hand.claim(run_id, "only")
    with pytest.raises(BudgetExceeded):
        hand.open_call(held, 41)
    other = hand.start(ONE_STEP, budget_picousd=100)
    assert hand.open_call(hand.claim(other, "only"), 100)
