"""What the sweeper finds, on both databases: the dead, the due and the overlooked, each once and no more than that."""

import contextlib
import json
from collections.abc import Iterator
from functools import partial

import pytest
from engine_hand import CHAIN, ONE_STEP, PARALLEL, SECOND, Hand, at_once, opened, settled

from engine import sweeper
from engine.errors import Conflict
from engine.ports import Failed, Succeeded
from engine.states import ErrorClass
from engine.store.steps import steps_held_by
from engine.store.whole_runs import whole_run
from engine.store.workers import count_workers, renew_lease

RETRYING = "name: retrying\nsteps:\n  - {id: only, type: set, value: 1, retry: {max_attempts: 3, initial: 1s, jitter: false}}\n"
LIMITED = "name: limited\ndeadline: 60s\nsteps:\n  - {id: only, type: set, value: 1}\n"


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        yield hand


@pytest.fixture
def hands(database_url: str) -> Iterator[tuple[Hand, Hand]]:
    """Two processes on one database."""
    with opened(database_url) as one, opened(database_url) as two:
        yield one, two


def overlooked(hand: Hand) -> list[str]:
    return [ring.step_id for ring in hand.do(lambda tx: sweeper.overlooked(tx, hand.now)).rings]


def expire(hand: Hand) -> int:
    return hand.do(lambda tx: sweeper.expire_runs(tx, hand.catalogue, hand.now)).run_ended


def test_a_lease_lapses_only_when_it_has_run_out(hand: Hand) -> None:
    hand.enter_worker("w1", lease_s=8)
    hand.pass_time(8)
    assert hand.bury("w1", only_if_lapsed=True) == sweeper.Swept(())
    assert hand.do(lambda tx: count_workers(tx, hand.now)) == 1
    hand.pass_time(0.000001)
    assert hand.do(lambda tx: count_workers(tx, hand.now)) == 0
    assert hand.bury("w1", only_if_lapsed=True).buried


def test_a_lease_that_was_renewed_meanwhile_saves_its_worker(hand: Hand) -> None:
    hand.enter_worker("w1")
    run_id = hand.start(ONE_STEP)
    held = hand.claim(run_id, "only", "w1")
    hand.pass_time(9)
    assert hand.do(lambda tx: renew_lease(tx, "w1", hand.now + SECOND))
    assert hand.bury("w1", only_if_lapsed=True) == sweeper.Swept(())
    assert hand.complete(held, Succeeded(1)).accepted


def test_the_dead_are_buried_with_all_that_they_held(hand: Hand) -> None:
    hand.enter_worker("w1")
    hand.enter_worker("w2")
    run_ids = [hand.start(PARALLEL) for _ in range(3)]
    for run_id in run_ids:
        hand.claim(run_id, "left", "w1")
        hand.claim(run_id, "right", "w2")
    found = hand.bury("w1")
    assert found.reclaimed == 3
    assert {ring.step_id for ring in found.rings} == {hand.step(run_id, "left")["id"] for run_id in run_ids}
    for run_id in run_ids:
        assert hand.statuses(run_id) == {"left": "ready", "right": "running"}
        lost = [row for row in hand.attempts(run_id) if row["worker_id"] == "w1"]
        assert [(row["status"], row["error_class"]) for row in lost] == [("lost", "worker_lost")]
        assert hand.event_types(run_id)[-1] == "step.lost"
    assert hand.bury("w1") == sweeper.Swept(())
    assert not hand.do(lambda tx: renew_lease(tx, "w1", hand.now + SECOND))


def test_open_calls_of_the_dead_are_unknown_and_those_of_the_living_are_not(hand: Hand) -> None:
    hand.enter_worker("w1")
    run_id = hand.start(PARALLEL)
    dead, living = hand.claim(run_id, "left", "w1"), hand.claim(run_id, "right", "w2")
    done, cut, other = hand.open_call(dead), hand.open_call(dead), hand.open_call(living)
    hand.complete(hand.claim(hand.start(ONE_STEP), "only"), Succeeded(1), settled(done, hand.now, 40))
    hand.bury("w1")
    rows = {row["id"]: row for row in hand.do(lambda tx: whole_run(tx, run_id).calls)}
    assert {call: rows[call]["status"] for call in (done, cut, other)} == {
        done: "succeeded",
        cut: "unknown",
        other: "started",
    }
    assert rows[cut]["success"] in (False, 0)
    assert rows[cut]["finished_us"] == hand.now


def lose(hand: Hand, run_id: str, key: str, times: int) -> list[str]:
    """Workers die with the step on board; returns what was rung for the last of them."""
    rings: list[str] = []
    for _ in range(times):
        worker = f"{run_id[-12:]}-{hand.step(run_id, key)['attempt']}"
        hand.enter_worker(worker)
        hand.claim(run_id, key, worker)
        rings = [ring.step_id for ring in hand.bury(worker).rings]
    return rings


def suspects(hand: Hand) -> list[str]:
    return hand.do(sweeper.suspects)


def test_a_step_on_board_of_two_dying_workers_is_there_for_a_process_of_its_own_alone(hand: Hand) -> None:
    run_id = hand.start(CHAIN)
    step_id = hand.step(run_id, "first")["id"]
    assert lose(hand, run_id, "first", 1) == [step_id]
    assert hand.try_claim(step_id, "alone", alone=True) is None
    assert suspects(hand) == []
    assert lose(hand, run_id, "first", 1) == []
    hand.pass_time(5)
    assert hand.do(lambda tx: sweeper.overlooked(tx, hand.now)).rings == ()
    assert suspects(hand) == [step_id]
    assert hand.try_claim(step_id) is None
    hand.pause(run_id)
    assert suspects(hand) == []
    hand.resume(run_id)
    assert hand.try_claim(step_id, "alone", alone=True) is not None
    assert suspects(hand) == []
    started = [row for row in hand.events(run_id) if row["type"] == "step.started"]
    assert [json.loads(row["data_json"] or "null") for row in started] == [None, None, {"alone": True}]


def test_a_step_whose_own_process_died_by_itself_fails_with_that_reason(hand: Hand) -> None:
    run_id = hand.start(CHAIN)
    lose(hand, run_id, "first", 2)
    hand.enter_worker("alone")
    hand.claim(run_id, "first", "alone")
    found = hand.bury("alone", died_alone=True)
    assert (found.reclaimed, found.rings, found.run_ended) == (1, (), True)
    assert hand.view(run_id)["error"] == {
        "step": "first",
        "class": "worker_lost",
        "message": "3 worker processes died while they ran this step, the last one while it ran this step alone and nothing else",
    }
    assert [row["status"] for row in hand.attempts(run_id)] == ["lost"] * 3


def test_an_innocent_never_fails_however_many_deaths_it_witnesses(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP)
    lose(hand, run_id, "only", 40)  # from the third on, its own process was killed together with its supervisor
    assert hand.statuses(run_id) == {"only": "ready"}
    hand.finish(run_id, "only", "at last")
    assert hand.run(run_id)["status"] == "succeeded"


def test_a_step_that_survives_alone_goes_on_among_the_others(hand: Hand) -> None:
    run_id = hand.start(RETRYING)
    lose(hand, run_id, "only", 2)
    hand.complete(hand.claim(run_id, "only"), Failed(ErrorClass.TIMEOUT, "slow"))
    hand.pass_time(5)
    assert len(hand.wake()) == 1
    row = hand.step(run_id, "only")
    assert (row["losses"], row["tries"]) == (0, 1)
    assert hand.try_claim(row["id"]) is not None


def test_a_suspect_handed_back_is_a_suspect_still(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP)
    lose(hand, run_id, "only", 2)
    hand.give_back(hand.claim(run_id, "only"))
    assert suspects(hand) == [hand.step(run_id, "only")["id"]]


def test_a_claim_that_its_process_never_heard_of_is_taken_back(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP)
    hand.claim(run_id, "only", "w1")
    rows = hand.do(lambda tx: steps_held_by(tx, "w1"))

    def take_back() -> sweeper.Swept:
        return hand.do(lambda tx: sweeper.take_back(tx, hand.catalogue, "w1", rows, hand.now))

    assert [ring.step_id for ring in take_back().rings] == [rows[0]["id"]]
    assert hand.step(run_id, "only")["losses"] == 0  # nobody died
    assert take_back().rings == ()
    hand.claim(run_id, "only", "w1")  # another attempt of the same worker is another matter
    assert take_back().rings == ()
    assert hand.statuses(run_id) == {"only": "running"}


def test_two_who_bury_the_same_worker_take_back_once(hands: tuple[Hand, Hand]) -> None:
    one, two = hands
    one.enter_worker("w1")
    run_ids = [one.start(ONE_STEP) for _ in range(10)]
    for run_id in run_ids:
        one.claim(run_id, "only", "w1")
    found = at_once(*(partial(hand.bury, "w1") for hand in (one, two, one, two)))
    assert sorted(swept.reclaimed for swept in found) == [0, 0, 0, 10]
    assert {one.step(run_id, "only")["losses"] for run_id in run_ids} == {1}


def test_burying_while_the_buried_still_completes_never_blocks_for_good(hands: tuple[Hand, Hand]) -> None:
    """The late process books its calls and asks for the run while the sweeper does the same from the other side."""
    one, two = hands
    for number in range(6):
        worker = f"w{number}"
        one.enter_worker(worker)
        run_id = one.start(PARALLEL)
        held = [one.claim(run_id, key, worker) for key in ("left", "right")]
        calls = [one.open_call(mine) for mine in held]
        completions = [
            partial(two.complete, mine, Succeeded(1), settled(call, two.now, 40))
            for mine, call in zip(held, calls, strict=True)
        ]
        at_once(partial(one.bury, worker), *completions)
        assert one.view(run_id)["cost_usd"] == 80e-12
        assert "running" not in one.statuses(run_id).values()


def test_due_steps_are_woken_once_even_by_several(hands: tuple[Hand, Hand]) -> None:
    one, two = hands
    run_ids = [one.start(ONE_STEP) for _ in range(12)]
    for run_id in run_ids:
        one.complete(one.claim(run_id, "only"), Failed(ErrorClass.TIMEOUT, "slow"), chance=0.5)
    assert not one.do(lambda tx: sweeper.anything_due(tx, one.now + SECOND - 1))
    one.pass_time(1)
    two.now = one.now
    assert one.do(lambda tx: sweeper.anything_due(tx, one.now))
    woken = at_once(one.wake, two.wake, one.wake, two.wake)
    assert sorted(step for each in woken for step in each) == sorted(
        one.step(run_id, "only")["id"] for run_id in run_ids
    )


def test_waking_and_cancelling_at_once_leaves_nothing_ready(hands: tuple[Hand, Hand]) -> None:
    one, two = hands
    wide = "name: wide\nsteps:\n" + "".join(f"  - {{id: s{n}, type: set, value: 1, needs: []}}\n" for n in range(8))
    for _ in range(4):
        run_id = one.start(wide)
        for number in range(8):
            held = one.claim(run_id, f"s{number}")
            one.complete(held, Failed(ErrorClass.TIMEOUT, "slow"), chance=(7 - number) / 8)
        two.now = one.now = one.now + 2 * SECOND
        at_once(two.wake, partial(one.cancel, run_id), two.wake)
        assert set(one.statuses(run_id).values()) == {"cancelled"}


def test_ready_steps_that_nobody_claimed_are_found_after_a_second(hand: Hand) -> None:
    waiting, paused, done = (hand.start(ONE_STEP) for _ in range(3))
    hand.pause(paused)
    hand.finish(done, "only")
    hand.pass_time(sweeper.UNCLAIMED_AFTER_US / SECOND - 0.001)
    assert overlooked(hand) == []
    hand.pass_time(0.001)
    assert overlooked(hand) == [hand.step(waiting, "only")["id"]]
    hand.claim(waiting, "only")
    assert overlooked(hand) == []


def test_the_overlooked_come_oldest_first_and_in_bounded_numbers(hand: Hand) -> None:
    steps = []
    for _ in range(sweeper.BATCH + 5):
        steps.append(hand.submit(ONE_STEP).rings[0].step_id)
        hand.pass_time(0.001)
    hand.pass_time(2)
    assert overlooked(hand) == steps[: sweeper.BATCH]


def test_a_run_past_its_deadline_fails_with_all_that_is_open(hand: Hand) -> None:
    run_id = hand.start(LIMITED)
    held = hand.claim(run_id, "only")
    hand.pass_time(59)
    assert expire(hand) == 0
    hand.pass_time(1)
    assert hand.do(lambda tx: sweeper.anything_due(tx, hand.now))
    assert expire(hand) == 1
    assert hand.view(run_id)["error"] == {
        "step": None,
        "class": "timeout",
        "message": "the run's deadline has passed",
    }
    assert not hand.complete(held, Succeeded(1)).accepted
    assert expire(hand) == 0
    assert not hand.do(lambda tx: sweeper.anything_due(tx, hand.now))


def test_runs_that_end_while_they_expire_end_once(hands: tuple[Hand, Hand]) -> None:
    one, two = hands
    run_ids = [one.start(LIMITED, webhook_url="http://example.com/hook") for _ in range(8)]
    held = [one.claim(run_id, "only") for run_id in run_ids]
    one.now = two.now = one.now + 60 * SECOND
    at_once(
        partial(expire, one),
        partial(expire, two),
        partial(expire, two),
        *(partial(one.complete, mine, Succeeded(1)) for mine in held[:4]),
        *(partial(try_cancel, two, run_id) for run_id in run_ids[4:]),
    )
    for run_id in run_ids:
        kinds = one.event_types(run_id)
        ends = [kind for kind in kinds if kind in ("run.failed", "run.succeeded", "run.cancelled")]
        assert len(ends) == 1, kinds
        assert one.run(run_id)["status"] == ends[0].removeprefix("run.")
        assert one.run(run_id)["open_steps"] == 0


def try_cancel(hand: Hand, run_id: str) -> None:
    with contextlib.suppress(Conflict):
        hand.cancel(run_id)


def test_a_ready_step_is_found_also_where_the_clock_was_set_back(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP)
    assert overlooked(hand) == []
    hand.pass_time(-3600)
    assert overlooked(hand) == [hand.step(run_id, "only")["id"]]
