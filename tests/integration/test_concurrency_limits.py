"""`concurrency`: at most so many runs of a workflow under way at once, on both databases, played by hand."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from engine_hand import SECOND, Hand, at_once, opened
from engine_play import answer_all, play

from engine import fork as forks
from engine import places, sweeper
from engine.calls import StoredLibrary, circles
from engine.errors import UserError
from engine.loader import load
from engine.ports import Failed
from engine.states import ErrorClass, Priority
from engine.store.database import Tx
from engine.store.places import get_place
from engine.store.runs import child_run_ids
from engine.workflows import put

TWO = "name: two\nconcurrency: 2\nsteps:\n  - {id: only, type: set, value: 1}\n  - {id: last, type: set, value: 2}\n"
ONE = TWO.replace("two", "one").replace("concurrency: 2", "concurrency: 1")
BY_CUSTOMER = TWO.replace("concurrency: 2", 'concurrency: {limit: 1, key: "${input.customer}"}')


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        yield hand


def under_way(hand: Hand, run_id: str) -> bool:
    place = hand.do(lambda tx: get_place(tx, run_id))
    return place is not None and place["since_us"] is not None


def ready(hand: Hand, run_id: str) -> bool:
    return "ready" in hand.statuses(run_id).values()


def sweep(hand: Hand) -> list[str]:
    """The steps that are rung for runs which nobody had started."""
    lines = hand.do(lambda tx: places.lines_to_fill(tx, hand.now))
    rings = [ring for line in lines for ring in hand.do(lambda tx, one=line: places.fill(tx, one, hand.now))]
    return [ring.step_id for ring in rings]


def test_the_others_wait_queued_and_start_as_room_appears(hand: Hand) -> None:
    asked = [hand.submit(TWO) for _ in range(4)]
    runs = [each.run["id"] for each in asked]
    assert [len(each.rings) for each in asked] == [1, 1, 0, 0]
    assert [under_way(hand, run_id) for run_id in runs] == [True, True, False, False]
    assert hand.run(runs[2])["status"] == "queued"
    assert hand.statuses(runs[2]) == {"only": "pending", "last": "pending"}
    assert hand.try_claim(hand.step(runs[2], "only")["id"]) is None
    hand.finish(runs[0], "only")
    done = hand.finish(runs[0], "last")
    assert [ring.step_id for ring in done.rings] == [
        hand.step(runs[2], "only")["id"]
    ]  # rung with the end that made room
    assert sweep(hand) == []
    for run_id in runs[1:]:
        assert play(hand, run_id)["status"] == "succeeded"
    assert [hand.do(lambda tx, one=run_id: get_place(tx, one)) for run_id in runs] == [None] * 4


def test_priority_goes_before_submission(hand: Hand) -> None:
    first = hand.start(ONE)
    asked = [
        (priority, hand.start(ONE, priority=priority))
        for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.HIGH)
    ]
    order: list[str] = []
    running = first
    while running:
        play(hand, running)
        running = next((run_id for _, run_id in asked if run_id not in order and under_way(hand, run_id)), "")
        order += [running] if running else []
    assert [asked.index(next(each for each in asked if each[1] == run_id)) for run_id in order] == [2, 3, 1, 0]


def test_runs_are_counted_apart_by_their_key(hand: Hand) -> None:
    a, other_a, b = (hand.start(BY_CUSTOMER, {"customer": name}) for name in ("a", "a", "b" * 5000))
    number, text = hand.start(BY_CUSTOMER, {"customer": True}), hand.start(BY_CUSTOMER, {"customer": 1})
    assert [under_way(hand, each) for each in (a, other_a, b, number, text)] == [True, False, True, True, True]
    hand.cancel(a)
    assert under_way(hand, other_a)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_key_may_be_what_no_database_takes_as_text(hand: Hand, name: str) -> None:
    first, second, other = (hand.start(BY_CUSTOMER, {"customer": each}) for each in (name, name, name + "x"))
    assert [under_way(hand, each) for each in (first, second, other)] == [True, False, True]


@pytest.mark.parametrize("given", [{"customer": {"id": 1}}, {"customer": None}, {}])
def test_a_key_that_is_no_plain_value_is_refused_at_submission(hand: Hand, given: Any) -> None:
    with pytest.raises(UserError, match=r"concurrency\.key") as refused:
        hand.submit(BY_CUSTOMER, given)
    assert refused.value.code == "invalid_input"


def test_waiting_and_paused_runs_keep_their_place(hand: Hand) -> None:
    nap = "name: nap\nconcurrency: 1\nsteps:\n  - {id: nap, type: sleep, duration: 1h}\n"
    first, second = hand.start(nap), hand.start(nap)
    assert play(hand, first)["status"] == "waiting"
    hand.pause(first)
    assert (under_way(hand, second), sweep(hand)) == (False, [])
    hand.resume(first)
    hand.cancel(first)
    assert ready(hand, second)


def test_who_is_paused_or_cancelled_in_line_is_passed_over(hand: Hand) -> None:
    first, paused, cancelled, last = (hand.start(ONE) for _ in range(4))
    hand.pause(paused)
    hand.cancel(cancelled)
    play(hand, first)
    assert (under_way(hand, paused), under_way(hand, last)) == (False, True)
    assert hand.resume(paused) == []
    assert hand.run(paused)["status"] == "queued"
    play(hand, last)
    assert play(hand, paused)["status"] == "succeeded"


def test_a_failed_run_leaves_its_place_and_stands_in_line_again_when_it_is_retried(hand: Hand) -> None:
    first, second = hand.start(ONE), hand.start(ONE)
    hand.finish(first, "only", 1)
    hand.complete(hand.claim(first, "last"), Failed(ErrorClass.AUTH, "no"))
    assert ready(hand, second)
    assert hand.retry(first) == []
    assert (hand.run(first)["status"], hand.statuses(first)) == ("queued", {"only": "succeeded", "last": "pending"})
    play(hand, second)
    assert under_way(hand, first)
    assert play(hand, first)["status"] == "succeeded"
    assert len(hand.attempts(first)) == 3


def test_a_retry_with_room_goes_on_at_once(hand: Hand) -> None:
    run_id = hand.start(ONE)
    hand.complete(hand.claim(run_id, "only"), Failed(ErrorClass.AUTH, "no"))
    assert hand.retry(run_id) == [hand.step(run_id, "only")["id"]]
    assert play(hand, run_id)["status"] == "succeeded"


def test_a_fork_waits_for_its_place(hand: Hand) -> None:
    old = hand.start(ONE)
    play(hand, old)
    first = hand.start(ONE)
    asked = forks.Fork("last")
    run, rings = hand.do(lambda tx: forks.fork(tx, hand.catalogue, old, asked, hand.now))
    assert (rings, hand.statuses(run["id"])) == ([], {"only": "succeeded", "last": "pending"})
    play(hand, first)
    assert play(hand, run["id"])["status"] == "succeeded"


def test_no_place_is_taken_before_start_at(hand: Hand) -> None:
    later = hand.start(ONE, start_us=hand.now + 60 * SECOND)
    now = hand.start(ONE)
    assert (under_way(hand, later), under_way(hand, now)) == (False, True)
    hand.pass_time(61)
    assert sweep(hand) == []
    play(hand, now)
    assert play(hand, later)["status"] == "succeeded"
    alone = hand.start(ONE, start_us=hand.now + 60 * SECOND)
    assert sweep(hand) == []
    hand.pass_time(61)
    assert sweep(hand) == [hand.step(alone, "only")["id"]]


def test_a_deadline_counts_in_line_and_nothing_of_the_run_starts(hand: Hand) -> None:
    tidy = "deadline: 60s\nfinally:\n  - {id: tidy, type: set, value: 1}\n"
    first, second = hand.start(ONE), hand.start(ONE + tidy)
    hand.pass_time(61)
    assert hand.do(lambda tx: sweeper.expire_runs(tx, hand.catalogue, hand.now)).run_ended
    view = hand.view(second)
    assert (view["status"], view["error"]["class"], view["started_at"]) == ("failed", "timeout", None)
    assert set(hand.statuses(second).values()) == {"cancelled"}
    play(hand, first)


def test_a_child_waits_for_its_place_and_its_parent_for_it(hand: Hand) -> None:
    parent = "name: parent\nsteps:\n  - {id: call, type: workflow, workflow: one}\n"
    hand.do(lambda tx: put(tx, load(ONE), "api", hand.now))
    first = hand.start(ONE)
    run_id = hand.start(parent)
    assert play(hand, run_id)["status"] == "waiting"
    (child,) = hand.do(lambda tx: child_run_ids(tx, run_id)).values()
    assert not ready(hand, child)
    play(hand, first)
    play(hand, child)
    answer_all(hand)
    assert hand.view(run_id)["output"] == 2


def test_a_run_whose_room_nobody_gave_away_is_found(hand: Hand) -> None:
    first, second = hand.start(ONE), hand.start(ONE)
    hand.do(lambda tx: places.delete_place(tx, first))  # as if its end had left the line to somebody who died
    assert sweep(hand) == [hand.step(second, "only")["id"]]


def test_two_processes_never_give_one_place_twice(database_url: str) -> None:
    with opened(database_url) as one, opened(database_url) as two:
        for _ in range(6):
            runs = at_once(*(partial(each.start, TWO) for each in (one, two) * 3))
            sweep(one)
            started = [run_id for run_id in runs if under_way(one, run_id)]
            assert len(started) == 2
            while started:
                at_once(*(partial(play, (one, two)[number % 2], run_id) for number, run_id in enumerate(started)))
                sweep(two)
                started = [run_id for run_id in runs if under_way(one, run_id)]
                assert len(started) <= 2
            assert {one.run(run_id)["status"] for run_id in runs} == {"succeeded"}


def test_workflows_without_a_limit_touch_no_place(hand: Hand) -> None:
    asked: list[str] = []

    class Watched(Tx):
        def _execute(self, statement: Any, parameters: Any) -> Any:
            asked.append(statement.ready(self.dialect)[0])
            return super()._execute(statement, parameters)

    def watch(work: Any) -> Any:
        return hand.database.write_now(lambda tx: work(Watched(tx._connection, tx.dialect)))  # pyright: ignore[reportPrivateUsage]

    hand.do = watch  # type: ignore[method-assign]
    play(hand, hand.start(TWO.replace("concurrency: 2\n", "")))
    assert len(asked) > 10 and not [text for text in asked if "places" in text]


def test_a_circle_through_a_limit_is_named_and_refused_where_it_arises_later(hand: Hand) -> None:
    calls = "name: {0}\n{2}steps:\n  - {{id: call, type: workflow, workflow: {1}}}\n"
    first, back = calls.format("first", "back", ""), calls.format("back", "first", "concurrency: 3\n")
    hand.do(lambda tx: put(tx, load(back), "api", hand.now))
    for text, count in (
        (first, 1),
        (back.replace("back", "lone").replace("first", "lone"), 1),
        (first.replace("back", "x"), 0),
    ):
        found = hand.do(lambda tx, one=text: list(circles(StoredLibrary(tx, hand.catalogue), load(one))))
        assert len(found) == count
    (mistake,) = hand.do(lambda tx: circles_of(tx, hand, first))
    assert "back → first → back" in mistake and "wait for each other" in mistake
    hand.do(lambda tx: put(tx, load(first), "api", hand.now))
    run_id = hand.start(first)
    assert "wait for each other" in play(hand, run_id)["error"]["message"]


def circles_of(tx: Tx, hand: Hand, text: str) -> list[str]:
    return [mistake.message for mistake in circles(StoredLibrary(tx, hand.catalogue), load(text))]
