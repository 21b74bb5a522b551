"""The outbox of webhooks on both databases: stored with what it tells of, tried for a day, in order, each try recorded."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from engine_hand import ONE_STEP, SECOND, Hand, at_once, opened

from engine.ports import Failed, OverBudget
from engine.states import ErrorClass
from engine.store.database import Row
from engine.store.deliveries import deliveries_of_run, due_deliveries, take_delivery
from engine.views import deliveries_view
from engine.webhook_outbox import record_delivery, redeliver

HOOK = "http://example.com/hook"


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        yield hand


def due(hand: Hand) -> list[Row]:
    return hand.do(lambda tx: due_deliveries(tx, hand.now, 50))


def take(hand: Hand, delivery: Row, worker: str = "w1") -> bool:
    return hand.do(lambda tx: take_delivery(tx, delivery, worker, hand.now + 30 * SECOND))


def record(hand: Hand, delivery: Row, status_code: int | None, error: str | None = None) -> str:
    return hand.do(lambda tx: record_delivery(tx, delivery, status_code, error, hand.now))


def deliveries(hand: Hand, run_id: str) -> list[Row]:
    return hand.do(lambda tx: deliveries_of_run(tx, run_id))


def test_each_end_and_each_pause_is_told_with_the_run_as_it_then_stood(hand: Hand) -> None:
    succeeded, failed, cancelled, paused = (hand.start(ONE_STEP, webhook_url=HOOK) for _ in range(4))
    hand.finish(succeeded, "only", {"a": "\ud800\0"})
    hand.complete(hand.claim(failed, "only"), Failed(ErrorClass.AUTH, "no"))
    hand.cancel(cancelled)
    hand.complete(hand.claim(paused, "only"), OverBudget("too dear"))
    told: dict[str, Any] = {}
    for run_id in (succeeded, failed, cancelled, paused):
        [delivery] = deliveries(hand, run_id)
        body = json.loads(delivery["body"])
        assert (body["type"], body["data"]) == (delivery["type"], hand.view(run_id))
        told[delivery["type"]] = body["data"]["status"]
    assert told == {
        "run.succeeded": "succeeded",
        "run.failed": "failed",
        "run.cancelled": "cancelled",
        "run.paused": "paused",
    }


def test_without_a_webhook_url_nothing_is_stored(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP)
    hand.finish(run_id, "only")
    assert deliveries(hand, run_id) == []


def test_one_of_those_who_see_a_delivery_takes_it(database_url: str) -> None:
    with opened(database_url) as one, opened(database_url) as two:
        one.cancel(one.start(ONE_STEP, webhook_url=HOOK))
        [delivery] = due(one)
        takers = [(hand, f"w{number}") for number, hand in enumerate([one, two] * 5)]
        took = at_once(*(lambda hand=hand, worker=worker: take(hand, delivery, worker) for hand, worker in takers))
        assert sorted(took) == [False] * 9 + [True]
        assert due(one) == []
        one.pass_time(30)  # the one that took it died
        [again] = due(one)
        assert (again["id"], again["tries"]) == (delivery["id"], 1)


def test_taking_is_safe_to_repeat(hand: Hand) -> None:
    hand.cancel(hand.start(ONE_STEP, webhook_url=HOOK))
    [delivery] = due(hand)
    assert [take(hand, delivery) for _ in range(2)] == [True, True]
    assert not take(hand, delivery, "w2")
    hand.pass_time(30)
    [again] = due(hand)
    assert again["tries"] == 1


def test_what_a_dead_process_was_sending_is_due_at_once_and_counts_as_no_try(hand: Hand) -> None:
    hand.enter_worker("w1")
    lost, delivered, others = (hand.start(ONE_STEP, webhook_url=HOOK) for _ in range(3))
    for run_id in (lost, delivered, others):
        hand.cancel(run_id)
    by_run = {row["run_id"]: row for row in due(hand)}
    assert take(hand, by_run[lost]) and take(hand, by_run[delivered]) and take(hand, by_run[others], "w2")
    record(hand, by_run[delivered], 200)
    hand.bury("w1")
    [again] = due(hand)
    assert again["run_id"] == lost
    assert take(hand, again, "w2")
    record(hand, again, 503)
    [row] = deliveries(hand, lost)
    assert row["next_attempt_us"] - hand.now == 5 * SECOND  # the receiver's first failure, not its second
    [view] = hand.do(lambda tx: deliveries_view(tx, lost))
    assert [each["status_code"] for each in view["attempts"]] == [503]


@pytest.mark.parametrize("late_code", [200, 503])
def test_a_process_that_was_believed_dead_cannot_take_a_delivery_back(hand: Hand, late_code: int) -> None:
    hand.enter_worker("w1")
    run_id = hand.start(ONE_STEP, webhook_url=HOOK)
    hand.cancel(run_id)
    [first] = due(hand)
    take(hand, first)
    hand.bury("w1")
    [second] = due(hand)
    take(hand, second, "w2")
    record(hand, second, 503 if late_code == 200 else 200)
    record(hand, first, late_code)
    [view] = hand.do(lambda tx: deliveries_view(tx, run_id))
    assert view["status"] == "delivered"  # once is enough, whoever saw it
    assert sorted(each["status_code"] for each in view["attempts"]) == [200, 503]
    assert due(hand) == []


def test_a_delivery_is_tried_for_a_day_with_growing_pauses_and_each_try_is_recorded(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP, webhook_url=HOOK)
    hand.cancel(run_id)
    pauses, began = [], hand.now
    while found := due(hand):
        [delivery] = found
        assert take(hand, delivery)
        if record(hand, delivery, 503, "HTTP 503") == "dead":
            break
        [row] = deliveries(hand, run_id)
        pauses.append((row["next_attempt_us"] - hand.now) / SECOND)
        hand.now = row["next_attempt_us"]
    assert pauses[:5] == [5, 30, 120, 600, 1800]
    assert pauses == sorted(pauses)
    assert 20 * 3600 < (hand.now - began) / SECOND <= 24 * 3600
    [view] = hand.do(lambda tx: deliveries_view(tx, run_id))
    assert (view["status"], view["next_attempt_at"], len(view["attempts"])) == ("dead", None, len(pauses) + 1)
    assert {(each["status_code"], each["error"]) for each in view["attempts"]} == {(503, "HTTP 503")}
    assert due(hand) == []


@pytest.mark.parametrize(
    ("code", "status"), [(200, "delivered"), (204, "delivered"), (301, "pending"), (None, "pending")]
)
def test_a_2xx_delivers_and_nothing_else_does(hand: Hand, code: int | None, status: str) -> None:
    run_id = hand.start(ONE_STEP, webhook_url=HOOK)
    hand.cancel(run_id)
    [delivery] = due(hand)
    take(hand, delivery)
    assert record(hand, delivery, code) == status
    assert record(hand, delivery, code) == status  # the answer was lost and it is recorded again
    [view] = hand.do(lambda tx: deliveries_view(tx, run_id))
    assert (view["status"], len(view["attempts"])) == (status, 1)


def test_a_runs_deliveries_go_in_order_and_one_run_does_not_wait_for_another(hand: Hand) -> None:
    first, second = hand.start(ONE_STEP, webhook_url=HOOK), hand.start(ONE_STEP, webhook_url=HOOK)
    hand.pause(first)
    hand.cancel(first)
    hand.cancel(second)
    assert sorted(row["type"] for row in due(hand)) == ["run.cancelled", "run.paused"]
    paused = next(row for row in due(hand) if row["type"] == "run.paused")
    take(hand, paused)
    assert [row["run_id"] for row in due(hand)] == [second]
    record(hand, paused, 200)
    assert {row["run_id"] for row in due(hand)} == {first, second}


def test_a_delivery_can_be_sent_once_more_under_its_id(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP, webhook_url=HOOK)
    hand.cancel(run_id)
    [delivery] = due(hand)
    take(hand, delivery)
    record(hand, delivery, 200)
    hand.pass_time(100_000)
    assert hand.do(lambda tx: redeliver(tx, delivery["id"], hand.now))
    [again] = due(hand)
    assert again["id"] == delivery["id"]
    take(hand, again)
    assert record(hand, again, 200) == "delivered"
    assert not hand.do(lambda tx: redeliver(tx, "nothing", hand.now))
    [view] = hand.do(lambda tx: deliveries_view(tx, run_id))
    assert len(view["attempts"]) == 2
