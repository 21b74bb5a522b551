"""Parents and the runs that they start: paused, resumed, retried, forked and stopped by a budget together."""

from collections.abc import Iterator
from typing import Any

import pytest
from engine_hand import SECOND, Hand, opened, settled
from engine_play import answer_all, play
from sqlalchemy import bindparam, update

from engine import fork as forks
from engine import sweeper
from engine.admission import settle_call
from engine.api_keys import KeyLimits, NewKey, create_key, new_secret
from engine.attempts import Claimed
from engine.errors import BudgetExceeded, UserError
from engine.loader import load
from engine.ports import Calling, Failed, OverBudget, Succeeded
from engine.states import ErrorClass
from engine.store.runs import child_run_ids, get_run
from engine.store.statements import Statement
from engine.store.tables import runs, workflow_versions
from engine.workflow_grants import granted_by_workflow
from engine.workflows import put

_WITH_MODELS = Statement(update(runs).where(runs.c.id == bindparam("run")).values(models_json='{"one":"sim/dear"}'))
PARENT = """
name: parent
steps:
  - {id: before, type: set, value: 1}
  - {id: call, type: workflow, workflow: child, input: {x: 4}, output: got}
  - {id: after, type: set, value: "${got}"}
"""
CHILD = "name: child\nsteps:\n  - {id: one, type: set, value: 1}\n  - {id: two, type: set, value: two}\n"
GRAND = "name: grand\nsteps:\n  - {id: down, type: workflow, workflow: parent}\n"


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        for text in (CHILD, PARENT, GRAND):
            hand.do(lambda tx, one=text: put(tx, load(one), "api", hand.now))
        yield hand


def child_of(hand: Hand, run_id: str) -> str:
    return next(iter(hand.do(lambda tx: child_run_ids(tx, run_id)).values()))


def family(hand: Hand) -> tuple[str, str, str]:
    """A grandparent, its parent and the child, begun; the child's first step is ready."""
    top = hand.start(GRAND)
    play(hand, top)
    middle = child_of(hand, top)
    play(hand, middle)
    return top, middle, child_of(hand, middle)


def statuses(hand: Hand, *runs: str) -> list[str]:
    return [hand.run(run_id)["status"] for run_id in runs]


def settle_all(hand: Hand) -> None:
    for _ in range(3):
        answer_all(hand)


def test_a_pause_reaches_all_below_and_resume_lets_them_go_on(hand: Hand) -> None:
    top, middle, child = family(hand)
    held = hand.claim(child, "one")
    hand.pause(top)
    assert statuses(hand, top, middle, child) == ["paused"] * 3
    assert hand.run(child)["pause_reason"] == "parent"
    assert hand.complete(held, Succeeded(1)).accepted  # what is under way finishes
    assert hand.try_claim(hand.step(child, "two")["id"]) is None
    assert hand.resume(top) == [hand.step(child, "two")["id"]]
    assert statuses(hand, top, middle, child) == ["waiting", "waiting", "running"]
    play(hand, child)
    answer_all(hand)
    play(hand, middle)
    answer_all(hand)
    assert hand.view(top)["output"] == "two"


def test_who_was_paused_alone_stays_so_when_its_parent_goes_on(hand: Hand) -> None:
    top, middle, child = family(hand)
    hand.pause(child)
    hand.pause(top)
    hand.resume(top)
    assert statuses(hand, top, middle, child) == ["waiting", "waiting", "paused"]
    hand.resume(child)
    assert play(hand, child)["status"] == "succeeded"


def test_a_child_that_begins_while_its_parent_is_paused_waits_with_it(hand: Hand) -> None:
    run_id = hand.start(PARENT)
    hand.finish(run_id, "before", 1)
    held = hand.claim(run_id, "call")
    hand.pause(run_id)
    hand.complete(held, Calling("child", {}))
    child = child_of(hand, run_id)
    assert statuses(hand, run_id, child) == ["paused", "paused"]
    assert hand.resume(run_id) == [hand.step(child, "one")["id"]]


def over(hand: Hand, held: Claimed) -> None:
    with pytest.raises(BudgetExceeded) as refused:
        hand.open_call(held, 100)
    hand.complete(held, OverBudget(refused.value.message))


@pytest.mark.parametrize("resumed", ["top", "child"])
def test_a_child_over_its_parents_budget_pauses_both_and_goes_on_with_more(hand: Hand, resumed: str) -> None:
    top = hand.start(GRAND, budget_picousd=150)
    play(hand, top)
    middle = child_of(hand, top)
    play(hand, middle)
    child = child_of(hand, middle)
    beside = hand.start(PARENT)
    held = hand.claim(child, "one")
    call = hand.open_call(held, 100)
    hand.do(lambda tx: settle_call(tx, settled(call, hand.now, 100)))
    over(hand, held)
    assert statuses(hand, top, middle, child, beside) == ["paused"] * 3 + ["queued"]
    assert {hand.run(each)["pause_reason"] for each in (top, middle, child)} == {"budget_exceeded"}
    told = [row for row in hand.events(top) if row["type"] == "run.paused"]
    assert len(told) == 1 and child in told[0]["data_json"] and "only" in told[0]["data_json"]
    if resumed == "child":  # the budget above is as short as before: all stop again
        hand.resume(child)
        assert statuses(hand, top, middle, child) == ["waiting", "waiting", "running"]
        over(hand, hand.claim(child, "one"))
        assert statuses(hand, top, middle, child) == ["paused"] * 3
    assert hand.resume(top, 1000) == [hand.step(child, "one")["id"]]
    assert hand.open_call(hand.claim(child, "one"), 100)


def test_a_child_over_its_own_budget_is_told_above_and_goes_on_with_what_is_given_there(hand: Hand) -> None:
    hand.do(lambda tx: put(tx, load("budget_usd: 0.00000000015\n" + CHILD), "api", hand.now))
    top = hand.start(GRAND, budget_picousd=10_000)
    play(hand, top)
    middle = child_of(hand, top)
    play(hand, middle)
    child = child_of(hand, middle)
    held = hand.claim(child, "one")
    call = hand.open_call(held, 100)
    hand.do(lambda tx: settle_call(tx, settled(call, hand.now, 100)))
    over(hand, held)
    assert {hand.view(each)["links"].get("paused_by") for each in (top, middle)} == {f"/v1/runs/{child}"}
    assert "paused_by" not in hand.view(child)["links"]
    hand.resume(top, 200)
    assert [hand.run(each)["budget_picousd"] for each in (top, middle, child)] == [200, None, 200]
    assert hand.open_call(hand.claim(child, "one"), 100)
    assert "paused_by" not in hand.view(top)["links"]


def fail(hand: Hand, run_id: str, key: str) -> None:
    hand.complete(hand.claim(run_id, key), Failed(ErrorClass.AUTH, "no"))


def test_a_retry_goes_on_in_the_child_from_its_failed_step(hand: Hand) -> None:
    top, middle, child = family(hand)
    hand.finish(child, "one", 1)
    fail(hand, child, "two")
    settle_all(hand)
    assert statuses(hand, top, middle, child) == ["failed"] * 3
    assert hand.retry(top) == [hand.step(child, "two")["id"]]
    assert statuses(hand, top, middle, child) == ["waiting", "waiting", "running"]
    play(hand, child)
    answer_all(hand)
    play(hand, middle)
    answer_all(hand)
    assert (hand.view(top)["status"], hand.view(top)["output"]) == ("succeeded", "two")
    assert child_of(hand, middle) == child
    assert [row["status"] for row in hand.attempts(child)] == ["succeeded", "failed", "succeeded"]


BESIDE = """
name: beside
steps:
  - {id: call, type: workflow, workflow: child}
  - {id: other, type: set, value: 1, needs: []}
  - {id: both, type: set, value: "${steps.call.output}", needs: [call, other]}
"""


@pytest.mark.parametrize("child_is", ["cancelled", "over", "still there"])
def test_a_retry_takes_up_the_child_of_a_step_that_was_cancelled_with_another(hand: Hand, child_is: str) -> None:
    run_id = hand.start(BESIDE)
    hand.complete(hand.claim(run_id, "call"), Calling("child", {}))
    child = child_of(hand, run_id)
    hand.finish(child, "one", 1)
    fail(hand, run_id, "other")
    if child_is == "over":
        play(hand, child)
    if child_is != "still there":
        answer_all(hand)
    assert hand.run(child)["status"] == {"cancelled": "cancelled", "over": "succeeded"}.get(child_is, "running")
    hand.retry(run_id)
    answer_all(hand)
    play(hand, child)
    hand.finish(run_id, "other", 1)
    answer_all(hand)
    assert play(hand, run_id)["output"] == "two"
    assert child_of(hand, run_id) == child
    steps = {row["id"]: key for key, row in hand.steps(child).items()}
    assert [steps[row["step_id"]] for row in hand.attempts(child)].count("one") == 1


def test_a_child_without_a_step_to_go_on_from_is_started_anew(hand: Hand) -> None:
    broken = CHILD + "output: ${steps.one.output.nothing}\n"
    hand.do(lambda tx: put(tx, load(broken), "api", hand.now))
    run_id = hand.start(PARENT)
    play(hand, run_id)
    first = child_of(hand, run_id)
    assert play(hand, first)["status"] == "failed"
    answer_all(hand)
    hand.do(lambda tx: put(tx, load(CHILD), "api", hand.now))
    hand.retry(run_id)
    play(hand, run_id)
    again = child_of(hand, run_id)
    assert again != first
    play(hand, again)
    answer_all(hand)
    assert play(hand, run_id)["status"] == "succeeded"


def test_a_fork_keeps_what_finished_children_came_to(hand: Hand) -> None:
    old = hand.start(PARENT)
    play(hand, old)
    play(hand, child_of(hand, old))
    answer_all(hand)
    play(hand, old)
    run, _ = hand.do(lambda tx: forks.fork(tx, hand.catalogue, old, forks.Fork("after"), hand.now))
    assert play(hand, run["id"])["output"] == "two"
    assert hand.do(lambda tx: child_run_ids(tx, run["id"])) == {}


def test_a_step_knows_what_its_child_was_worth_in_a_fork_too(hand: Hand) -> None:
    old = hand.start(PARENT.replace('"${got}"', '"${steps.call.cost_usd}"'))
    play(hand, old)
    held = hand.claim(child_of(hand, old), "one")
    hand.complete(held, Succeeded(1), settled(hand.open_call(held, 100), hand.now, 40))
    play(hand, child_of(hand, old))
    answer_all(hand)
    assert play(hand, old)["output"] == 4e-11
    run, _ = hand.do(lambda tx: forks.fork(tx, hand.catalogue, old, forks.Fork("after"), hand.now))
    assert (play(hand, run["id"])["output"], hand.view(run["id"])["cost_usd"]) == (4e-11, 0)


@pytest.mark.parametrize("phase", ["", "finally:\n  - {id: tidy, type: set, value: 1}\n"])
def test_a_deadline_counts_on_while_a_run_is_paused(hand: Hand, phase: str) -> None:
    run_id = hand.start(PARENT + "deadline: 60s\n" + phase)
    hand.pause(run_id)
    hand.pass_time(61)
    assert hand.do(lambda tx: sweeper.anything_due(tx, hand.now))
    hand.do(lambda tx: sweeper.expire_runs(tx, hand.catalogue, hand.now))
    view = play(hand, run_id)
    assert (view["status"], view["error"]["class"]) == ("failed", "timeout")
    assert not phase or hand.statuses(run_id)["tidy"] == "succeeded"


def spoil(hand: Hand, name: str) -> None:
    """As if a later release had taken a key out of the language."""
    sql = Statement(
        workflow_versions.update()
        .where(workflow_versions.c.name == name)
        .values(config_yaml=f"name: {name}\nsteps:\n  - {{id: one, type: gone}}\n")
    )
    hand.do(lambda tx: tx.run(sql))
    hand.catalogue = type(hand.catalogue)()


def test_a_run_whose_definition_cannot_be_loaded_fails_once_and_says_so(hand: Hand) -> None:
    run_id, sleeping, cancelled = hand.start(PARENT), hand.start(PARENT), hand.start(PARENT)
    nap = hand.start("name: parent\nsteps:\n  - {id: nap, type: sleep, duration: 5s}\n")
    play(hand, nap)
    hand.pause(sleeping)
    spoil(hand, "parent")
    assert hand.try_claim(hand.step(run_id, "before")["id"]) is None
    view = hand.view(run_id)
    assert (view["status"], view["error"]["class"]) == ("failed", "internal")
    assert (
        "'parent' cannot be loaded by this release" in view["error"]["message"] and "gone" in view["error"]["message"]
    )
    assert hand.try_claim(hand.step(run_id, "before")["id"]) is None
    assert hand.cancel(cancelled)["status"] == "cancelled"
    step = hand.resume(sleeping)[0]
    assert hand.try_claim(step) is None
    hand.now += 6 * SECOND
    hand.wake()
    assert statuses(hand, sleeping, nap) == ["failed", "failed"]
    for refuse in (lambda: hand.retry(run_id), lambda: fork(hand, run_id)):
        with pytest.raises(UserError, match="cannot be loaded"):
            refuse()


def fork(hand: Hand, run_id: str) -> Any:
    return hand.do(lambda tx: forks.fork(tx, hand.catalogue, run_id, forks.Fork("before"), hand.now))


def test_parents_and_children_whose_definition_cannot_be_loaded(hand: Hand) -> None:
    top, middle, child = family(hand)
    other = hand.start(PARENT)
    spoil(hand, "child")
    hand.finish(other, "before", 1)
    play(hand, other)
    assert "cannot be loaded" in hand.view(other)["error"]["message"]
    assert hand.try_claim(hand.step(child, "one")["id"]) is None
    spoil(hand, "parent")
    settle_all(hand)
    assert statuses(hand, top, middle, child) == ["failed"] * 3
    assert "the definition of 'parent', version 1, cannot be loaded" in hand.view(middle)["error"]["message"]


def test_a_step_that_a_dead_worker_held_is_taken_back_of_a_run_that_cannot_be_loaded(hand: Hand) -> None:
    run_id = hand.start(PARENT)
    hand.enter_worker("mortal")
    hand.claim(run_id, "before", "mortal")
    spoil(hand, "parent")
    hand.bury("mortal")
    assert (hand.run(run_id)["status"], hand.attempts(run_id)[0]["status"]) == ("failed", "lost")


def test_a_key_that_may_use_a_workflow_may_have_done_what_it_calls(hand: Hand) -> None:
    """Not what is above it, nor beside it; and nothing that is not stored, or was given other models."""
    top, middle, child = family(hand)

    def granted(run_id: str, *models: str) -> bool:
        key = hand.do(
            lambda tx: create_key(tx, NewKey(new_secret(), KeyLimits(allowed_models=models)), new_secret(), hand.now)
        )
        return hand.do(lambda tx: granted_by_workflow(tx, key, run_id))

    stored = hand.do(lambda tx: get_run(tx, middle))
    assert stored and stored["version"] == 1
    assert [granted(run_id, "workflow/parent") for run_id in (top, middle, child)] == [False, True, True]
    assert [granted(run_id, "workflow/child", "sim/*") for run_id in (middle, child)] == [False, True]
    assert not granted(child, "workflow/grandchild", "parent")
    hand.do(lambda tx: tx.run(_WITH_MODELS, {"run": middle}))
    assert [granted(run_id, "workflow/parent") for run_id in (middle, child)] == [False, False]
