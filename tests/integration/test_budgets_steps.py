"""Steps under budgets and key limits that are not their run's own: refused, paused, put off, and never made to count twice."""

from collections.abc import Iterator

import pytest
from engine_hand import ONE_STEP, Hand, opened, settled

from engine import attempts
from engine.budget_spec import BudgetSpec, Origin, Scope
from engine.budgets import put_budget
from engine.errors import BudgetExceeded
from engine.ledger import CallScope
from engine.periods import Period
from engine.ports import OverBudget, Succeeded, Throttled
from engine.store.budgets import all_budgets

HURRIED = "name: hurried\nsteps:\n  - {id: only, type: set, value: 1, deadline: 30s}\n"


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        yield hand


def set_budget(hand: Hand, limit: int, scope: Scope = Scope.ALL, subject: str | None = None) -> None:
    spec = BudgetSpec("one", limit, Period.DAY, scope, subject)
    hand.do(lambda tx: put_budget(tx, spec, Origin.HTTP, hand.now))


def left(hand: Hand, run_id: str) -> int | None:
    run = hand.run(run_id)
    scope = CallScope("r", run["workflow_name"], run_id, key_id=run["key_id"], tags={"team": "a"})
    return hand.do(lambda tx: attempts.remaining_picousd(tx, scope, hand.now))


def test_a_step_that_does_not_fit_pauses_its_run_which_goes_on_after_the_reset(hand: Hand) -> None:
    set_budget(hand, 100)
    run_id = hand.start(ONE_STEP)
    held = hand.claim(run_id, "only")
    first = hand.open_call(held, 60)
    with pytest.raises(BudgetExceeded, match="resets tomorrow") as refused:
        hand.open_call(held, 50)
    hand.complete(held, OverBudget(refused.value.message), settled(first, hand.now, 60))
    run = hand.run(run_id)
    assert (run["status"], run["pause_reason"]) == ("paused", "budget_exceeded")
    hand.pass_time(24 * 3600)
    hand.resume(run_id)
    held = hand.claim(run_id, "only")
    hand.complete(held, Succeeded(1), settled(hand.open_call(held, 50), hand.now, 50))
    assert hand.run(run_id)["status"] == "succeeded"
    assert [row["settled_picousd"] for row in hand.do(all_budgets)] == [50]


def test_the_least_that_any_budget_leaves_is_what_a_call_may_cost(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP, budget_picousd=500)
    assert left(hand, run_id) == 500
    set_budget(hand, 80, Scope.TAG, "team:a")
    assert left(hand, run_id) == 80
    assert left(hand, hand.start(ONE_STEP)) == 80
    set_budget(hand, 900, Scope.WORKFLOW, "one")
    assert left(hand, run_id) == 500
    hand.open_call(hand.claim(run_id, "only"), 450)
    assert left(hand, run_id) == 50
    set_budget(hand, 10, Scope.PROVIDER, "simulated")  # which provider it will be is not known yet
    assert left(hand, run_id) == 50


def test_a_step_whose_key_is_used_up_waits_and_no_attempt_counts(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP)
    for _ in range(4):
        hand.complete(hand.claim(run_id, "only"), Throttled("rate limit reached", 20.0))
        step = hand.step(run_id, "only")
        assert (step["status"], step["tries"], step["losses"]) == ("waiting", 0, 0)
        assert hand.wake() == []
        hand.pass_time(20)
        assert hand.wake() == [step["id"]]
    hand.finish(run_id, "only")
    assert [row["status"] for row in hand.attempts(run_id)] == ["returned"] * 4 + ["succeeded"]


def test_a_wait_that_ends_behind_the_steps_deadline_is_a_failure(hand: Hand) -> None:
    run_id = hand.start(HURRIED)
    hand.complete(hand.claim(run_id, "only"), Throttled("rate limit reached", 20.0))
    hand.pass_time(20)
    hand.wake()
    hand.complete(hand.claim(run_id, "only"), Throttled("rate limit reached", 20.0))
    run = hand.run(run_id)
    assert (run["status"], run["error_class"]) == ("failed", "rate_limit")
