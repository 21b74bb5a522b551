"""What the dashboard asks of both databases."""

from collections.abc import Iterator

import pytest
from stage import Stage

from engine.clock import now_us
from engine.firing import fire
from engine.ledger import CallScope
from engine.schedule_spec import ScheduleSpec
from engine.schedules import create_schedule
from engine.store.deliveries import list_deliveries
from engine.store.runs import list_runs
from engine.store.spend import spend
from engine.webhook_outbox import queue_delivery, record_delivery

ONE = "name: one\nsteps:\n  - {id: a, type: set, value: 1}\n"


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    found = Stage(database_url)
    yield found
    found.close()


def test_deliveries_come_newest_first_with_their_last_try(stage: Stage) -> None:
    for kind in ("first", "second", "third"):
        stage.write(lambda tx, kind=kind: queue_delivery(tx, None, kind, ("https://example.org", "{}"), now_us()))
    third, second, first = stage.read(lambda tx: list_deliveries(tx, "", "", 10))
    assert [row["type"] for row in (third, second, first)] == ["third", "second", "first"]
    stage.write(lambda tx: record_delivery(tx, {**first, "tries": 0}, 500, "HTTP 500", now_us()))
    stage.write(lambda tx: record_delivery(tx, {**first, "tries": 1}, 204, None, now_us()))
    (done,) = stage.read(lambda tx: list_deliveries(tx, "delivered", "", 10))
    assert (done["id"], done["number"], done["status_code"], done["error"]) == (first["id"], 2, 204, None)
    (pending,) = stage.read(lambda tx: list_deliveries(tx, "pending", third["id"], 1))
    assert (pending["id"], pending["number"]) == (second["id"], None)


def test_the_runs_of_a_schedule_come_newest_firing_first(stage: Stage) -> None:
    other = stage.submit(ONE)
    now = now_us()
    spec = ScheduleSpec(cron="* * * * *", catch_up=3)
    row, _ = stage.write(lambda tx: create_schedule(tx, stage.catalogue, ("often", "one"), spec, key_id=None, now=now))
    stage.write(lambda tx: fire(tx, stage.catalogue, row["id"], row["next_us"]))
    (run,) = stage.read(lambda tx: list_runs(tx, {"schedule": row["id"]}, 5))
    assert run["scheduled_us"] == row["next_us"] and run["id"] != other


def test_spend_is_summed_by_key_and_day(stage: Stage) -> None:
    for key_id in ("k1", "k1", None):
        stage.settle(stage.open(scope=CallScope("r", key_id=key_id)))
    rows = stage.read(lambda tx: spend(tx, ("day", "provider", "model", "workflow", "key"), {"since": 0}))
    assert {row["key"]: row["calls"] for row in rows} == {"k1": 2, None: 1}
