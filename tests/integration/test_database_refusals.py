"""Every statement of every transition is refused once, by a lock that was not to be had or a full disk, in the database's own words:
nothing half-made is left, whoever asked may come again, and everything still comes to its end.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import pytest
from engine_hand import SECOND, Hand, settled
from engine_play import answer_all, play

from engine import sweeper
from engine.crash_points import Refusal
from engine.errors import RetryableError
from engine.firing import due_now, fire
from engine.fork import Fork, fork
from engine.loader import load
from engine.places import fill
from engine.ports import Failed, Succeeded
from engine.result_cache import remember
from engine.retention import NOBODY_YET, delete_given_up, give_up_old
from engine.schedule_spec import ScheduleSpec
from engine.schedules import create_schedule, pause_schedule, remove_schedule
from engine.signals import send
from engine.states import ErrorClass
from engine.store import database as way_to_database
from engine.store.connections import Connection, connector
from engine.store.database import Database, Tx
from engine.store.deliveries import due_deliveries, take_delivery
from engine.store.refusals import provoke
from engine.store.runs import list_runs
from engine.store.statements import Bound
from engine.store.tables import metadata
from engine.store.workers import renew_lease
from engine.views import steps_view
from engine.webhook_outbox import record_delivery, redeliver
from engine.workflows import put, remove

T = TypeVar("T")

HOOK = "http://example.com/hook"
DO = "name: do\nsteps:\n  - {id: only, type: set, value: 1}\n"
TRIES = """
name: tries
concurrency: 1
steps:
  - {id: first, type: set, value: 1, retry: {max_attempts: 2, initial: 1s}}
  - {id: second, type: set, value: 2}
output: ${steps.second.output}
"""
CALLS = """
name: calls
deadline: 1h
steps:
  - {id: wait, type: wait, signal: go}
  - {id: each, type: foreach, items: [1, 2], steps: [{id: inner, type: set, value: "${item}"}]}
  - {id: call, type: workflow, workflow: do}
"""
COVERED = {
    "insert_worker", "renew_lease", "open_request", "settle_request", "put_workflow", "remove_workflow", "submit", "claim", "complete", "give_back", "open_call", "bury",
    "wake_due", "expire_runs", "cancel", "pause", "resume", "retry", "signal", "fork", "answer", "remember", "fill", "take_delivery",
    "record_delivery", "redeliver", "create_schedule", "fire_schedule", "pause_schedule", "remove_schedule", "give_up_runs", "delete_runs",
}  # fmt: skip


REFUSALS: tuple[Refusal, ...] = ("locked", "full")
_SUM = "(SELECT md5(string_agg({0}::text, '' ORDER BY {0}::text)) FROM {0})"
CONTENTS = "SELECT " + ", ".join(_SUM.format(name) for name in metadata.tables)


class Countdown:
    """After how many statements which refusal comes; None: none."""

    left: int | None = None
    refusal: Refusal = "full"


class Refusing:
    """A connection of which one statement, counted from where the countdown was set, is refused as the database does it."""

    def __init__(
        self, inner: Connection, dialect: str, connect: Callable[[], Connection], countdown: Countdown
    ) -> None:
        self._inner = inner
        self._provoke = partial(provoke, inner, dialect, connect)
        self._countdown = countdown

    def _count(self) -> None:
        if self._countdown.left is None:
            return
        self._countdown.left -= 1
        if self._countdown.left == 0:
            self._countdown.left = None
            self._provoke(self._countdown.refusal)

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> Any:
        self._count()
        return self._inner.execute(sql, parameters)

    def execute_all(self, statements: Sequence[Bound]) -> Sequence[Any]:
        self._count()
        return self._inner.execute_all(statements)

    def send(self, sql: str, parameters: Mapping[str, Any]) -> None:
        self._count()
        self._inner.send(sql, parameters)

    def commit(self) -> None:
        self._count()
        self._inner.commit()

    def begin(self, *, writes: bool) -> None:
        self._inner.begin(writes=writes)

    def rollback(self) -> bool:
        return self._inner.rollback()

    def failed_outside(self, error: BaseException) -> bool:
        return self._inner.failed_outside(error)

    @property
    def nothing_done(self) -> bool:
        return self._inner.nothing_done

    def close(self) -> None:
        self._inner.close()


class Refused(Hand):
    """A hand whose every transaction is refused at its first statement, then at its second, and so on, before it gets through."""

    def __init__(self, database: Database, countdown: Countdown) -> None:
        super().__init__(database)
        self._countdown = countdown
        self.refusals = 0
        self.points: set[str] = set()
        self._looking = connector(database.url)()
        self._look = "PRAGMA data_version" if database.dialect == "sqlite" else CONTENTS

    def contents(self) -> Any:
        """Something that changes with every row: on SQLite with every commit of another connection."""
        return self._looking.execute(self._look, {}).fetchone()

    def do(self, work: Callable[[Tx], T]) -> T:
        before, statement = self.contents(), 0
        while True:
            statement += 1
            for self._countdown.refusal in REFUSALS:
                self._countdown.left = statement
                try:
                    value, points = self.database.write_now(lambda tx: (work(tx), tx.points))
                except RetryableError as error:
                    assert (error.code, error.retry_after_s) == ("database_unavailable", 1.0)
                    assert self.contents() == before, (
                        f"{self._countdown.refusal} at statement {statement} left something"
                    )
                    self.refusals += 1
                    continue
                assert self._countdown.left is not None, "it was refused and nobody noticed"
                self._countdown.left = None
                self.points.update(points)
                return value

    def close(self) -> None:
        self._looking.close()
        self.database.close()


@pytest.fixture
def hand(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Refused]:
    connect, countdown = connector(database_url), Countdown()
    dialect = database_url.partition(":")[0]

    def refusing(_: str, *, may_wait: bool = True) -> Callable[[], Connection]:
        return lambda: Refusing(connect(), dialect, connect, countdown)

    monkeypatch.setattr(way_to_database, "connector", refusing)
    hand = Refused(Database(database_url, readers=0), countdown)
    yield hand
    hand.close()


def test_whatever_is_refused_leaves_nothing_and_comes_to_its_end(hand: Refused) -> None:
    for definition in map(load, (DO, TRIES, CALLS)):
        hand.do(lambda tx, one=definition: put(tx, one, "api", hand.now))
    two_in_line(hand)
    a_parent(hand)
    a_dead_worker(hand)
    a_schedule(hand)
    what_is_old(hand)
    assert hand.points == COVERED
    assert hand.refusals > 500


def two_in_line(hand: Refused) -> None:
    """Both have to run one after the other: a failure, its retry in time, a pause, and a failure for good that a person mends."""
    first, second = hand.start(TRIES, tags={"a": "b"}), hand.start(TRIES)
    held = hand.claim(first, "first")
    call = hand.open_call(held)
    hand.complete(held, Failed(ErrorClass.SERVER_ERROR, "no"), settled(call, hand.now))
    hand.pass_time(5)
    assert hand.wake() == [hand.step(first, "first")["id"]]
    hand.pause(first)
    hand.resume(first)
    held = hand.claim(first, "first")
    hand.give_back(held)
    held = hand.complete(hand.claim(first, "first"), Succeeded(1), go_on=True).following
    assert held is not None
    hand.complete(held, Failed(ErrorClass.AUTH, "no", final=True))
    assert hand.view(first)["status"] == "failed"
    hand.do(lambda tx: fill(tx, "tries", hand.now))
    play(hand, second)
    hand.retry(first)
    assert play(hand, first)["output"] == 2
    assert [row["status"] for row in hand.attempts(first)] == ["failed", "returned", "succeeded", "failed", "succeeded"]
    assert len(hand.do(lambda tx: steps_view(tx, first))[0]["attempts"][0]["calls"]) == 1


def a_parent(hand: Refused) -> None:
    """It waits for a signal, goes over a list, calls another run, is forked; a second one passes its deadline, a third is cancelled."""
    run_id, late, unwanted = (hand.start(CALLS, webhook_url=HOOK) for _ in range(3))
    for each in (run_id, late, unwanted):
        play(hand, each)
    hand.cancel(unwanted)
    hand.do(lambda tx: send(tx, hand.catalogue, run_id, ("go", None), hand.now))
    play(hand, run_id)
    (child,) = [row["id"] for row in hand.do(lambda tx: list_runs(tx, {}, 10)) if row["parent_run_id"] == run_id]
    play(hand, child)
    answer_all(hand)
    assert (hand.view(run_id)["status"], hand.view(run_id)["output"]) == ("succeeded", 1)
    forked, _ = hand.do(lambda tx: fork(tx, hand.catalogue, run_id, Fork("call"), hand.now))
    hand.cancel(forked["id"])
    hand.pass_time(4000)
    hand.do(lambda tx: sweeper.expire_runs(tx, hand.catalogue, hand.now))
    assert hand.view(late)["status"] == "failed"


def a_dead_worker(hand: Refused) -> None:
    """What it held is taken back: a step with an open call, and a webhook that it was sending."""
    hand.enter_worker("w1")
    hand.do(lambda tx: renew_lease(tx, "w1", hand.now + SECOND))
    run_id = hand.start(DO)
    hand.open_call(hand.claim(run_id, "only"))
    taken = hand.do(lambda tx: due_deliveries(tx, hand.now, 1))[0]
    assert hand.do(lambda tx: take_delivery(tx, taken, "w1", hand.now + 30 * SECOND))
    hand.bury("w1")
    assert play(hand, run_id)["status"] == "succeeded"
    while due := hand.do(lambda tx: due_deliveries(tx, hand.now, 1)):
        assert hand.do(lambda tx, row=due[0]: take_delivery(tx, row, "w2", hand.now + 30 * SECOND))
        assert hand.do(lambda tx, row=due[0]: record_delivery(tx, row, 200, None, hand.now)) == "delivered"
    assert hand.do(lambda tx: redeliver(tx, taken["id"], hand.now))
    hand.do(lambda tx: record_delivery(tx, taken, 200, None, hand.now))
    hand.do(lambda tx: remember(tx, "digest", Succeeded("kept"), 60, hand.now))


def a_schedule(hand: Refused) -> None:
    spec = ScheduleSpec("* * * * *")
    hand.do(lambda tx: create_schedule(tx, hand.catalogue, ("mine", "do"), spec=spec, key_id=None, now=hand.now))
    hand.pass_time(60)
    (due,) = hand.do(lambda tx: due_now(tx, hand.now))
    hand.do(lambda tx: fire(tx, hand.catalogue, due, hand.now))
    (run,) = [row for row in hand.do(lambda tx: list_runs(tx, {}, 20)) if row["schedule_id"] == due]
    assert play(hand, run["id"])["status"] == "succeeded"
    assert hand.do(lambda tx: pause_schedule(tx, "mine", paused=True, now=hand.now))["next_us"] is None
    hand.do(lambda tx: remove_schedule(tx, "mine"))
    hand.do(lambda tx: remove(tx, "do"))


def what_is_old(hand: Refused) -> None:
    hand.pass_time(1)
    hand.do(lambda tx: give_up_old(tx, hand.now, NOBODY_YET, hand.now))
    while hand.do(delete_given_up):
        pass
    assert hand.do(lambda tx: list_runs(tx, {}, 20)) == []
