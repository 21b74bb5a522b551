"""Retention on both databases: what is old goes whole, what stays reads back whole, and no row is left behind by another."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest
from budget_hand import Till
from engine_hand import SECOND, Hand, at_once, opened, settled
from engine_play import answer_all, play
from sqlalchemy import MetaData, bindparam, select, text

from engine import retention
from engine.errors import Conflict, NotFound
from engine.fork import Fork, fork
from engine.loader import load
from engine.periods import Period
from engine.ports import Succeeded
from engine.result_cache import recall, remember
from engine.retention import Cutoffs, count_prunable, ledger_cutoff, prune
from engine.signals import send
from engine.store.database import Row, Tx
from engine.store.deliveries import deliveries_of_run, record_try, settle_delivery
from engine.store.payloads import pack
from engine.store.requests import open_request, settle_request
from engine.store.retention import digest_columns
from engine.store.runs import get_run, list_runs
from engine.store.statements import Statement
from engine.store.tables import cached_results, metadata, payloads, runs
from engine.store.turns import take_turn, turn_is_due
from engine.store.whole_runs import whole_run
from engine.views import deliveries_view, run_view, steps_view
from engine.workflows import put

DAY = 86_400 * SECOND
LARGE = ["tea " * 3000, "salt " * 3000, "paper " * 3000]
DO = "name: do\nsteps:\n  - {id: only, type: set, value: '${input.text}'}\n"
CALLS = "name: calls\nsteps:\n  - {id: call, type: workflow, workflow: do, input: {text: '${input.text}'}}\n"
EACH = """
name: each
steps:
  - id: all
    type: foreach
    items: ${input.items}
    steps: [{id: one, type: set, value: "${item}"}]
"""
WAITS = "name: waits\nsteps:\n  - {id: ask, type: wait, signal: go}\n  - {id: last, type: set, value: 1}\n"


class World(Hand):
    """A database in which all kinds of things happen, chosen by a seed."""

    def __init__(self, hand: Hand, seed: int) -> None:
        super().__init__(hand.database)
        self.dice = random.Random(seed)
        self.ids: list[str] = []
        self.do(lambda tx: put(tx, load(DO), "api", self.now))

    def happen(self, times: int) -> None:
        kinds: list[Callable[[], None]] = [self.plain, self.calls, self.each, self.waits, self.forks, self.calls_a_model,
                                           self.keeps_a_result, self.leaves_one_open]  # fmt: skip
        for _ in range(times):
            self.dice.choice(kinds)()
            self.pass_time(self.dice.uniform(0, 2 * 86_400))

    def begin(self, source: str, given: Any, **more: Any) -> str:
        tags = {"n": str(self.dice.randrange(3))} if self.dice.random() < 0.5 else {}
        hook = "http://example.com/hook" if self.dice.random() < 0.5 else None
        self.ids.append(self.start(source, given, tags=tags, webhook_url=hook, **more))
        return self.ids[-1]

    def plain(self) -> None:
        self.over(self.begin(DO, {"text": self.dice.choice([*LARGE, "small"])}))

    def calls(self) -> None:
        run_id = self.begin(CALLS, {"text": self.dice.choice(LARGE)})
        play(self, run_id)
        for child in self.do(lambda tx: list_runs(tx, {}, 5)):
            if child["parent_run_id"] == run_id and self.dice.random() < 0.8:
                play(self, child["id"])
        answer_all(self)
        self.over(run_id)

    def each(self) -> None:
        self.over(self.begin(EACH, {"items": [self.dice.choice(LARGE) for _ in range(4)]}))

    def waits(self) -> None:
        run_id = self.begin(WAITS, {})
        play(self, run_id)
        self.do(lambda tx: send(tx, self.catalogue, run_id, ("go", self.dice.choice(LARGE)), self.now))
        self.over(run_id)

    def forks(self) -> None:
        ended = [run_id for run_id in self.ids if self.run(run_id)["finished_us"] is not None]
        first = {"do": "only", "each": "all", "waits": "last"}
        for run_id in self.dice.sample(ended, min(1, len(ended))):
            step = first.get(self.run(run_id)["workflow_name"])
            if step is not None:
                forked = self.do(lambda tx, old=run_id, at=step: fork(tx, self.catalogue, old, Fork(at), self.now))[0]
                self.ids.append(forked["id"])
                self.over(forked["id"])

    def calls_a_model(self) -> None:
        run_id = self.begin(DO, {"text": "x"})
        held = self.claim(run_id, "only")
        self.complete(held, Succeeded("x"), settled(self.open_call(held), self.now, 40))
        self.over(run_id)

    def keeps_a_result(self) -> None:
        digest, value = f"{self.dice.random()}", self.dice.choice(LARGE)
        self.do(lambda tx: remember(tx, digest, Succeeded(value), self.dice.choice([60, 40 * 86_400]), self.now))

    def leaves_one_open(self) -> None:
        self.begin(DO, {"text": self.dice.choice(LARGE)})

    def over(self, run_id: str) -> None:
        """To its end, and its webhook mostly delivered."""
        play(self, run_id)
        for delivery in self.do(lambda tx: deliveries_of_run(tx, run_id)):
            if self.dice.random() < 0.8:
                tried = {
                    "delivery_id": delivery["id"],
                    "number": 1,
                    "at_us": self.now,
                    "status_code": 200,
                    "error": None,
                }
                self.do(lambda tx, row=tried: record_try(tx, row))
                self.do(lambda tx, one=delivery["id"]: settle_delivery(tx, one, "delivered", None, self.now))

    def prune(self, runs_days: float = 90, requests_days: float = 365) -> Counter[str]:
        cutoffs = self.cutoffs(runs_days, requests_days)

        async def all_of_it() -> Counter[str]:
            total: Counter[str] = Counter()
            async for counts in prune(self.database, cutoffs, lambda: self.now):
                total += counts
            return total

        return asyncio.run(all_of_it())

    def cutoffs(self, runs_days: float, requests_days: float = 365) -> Cutoffs:
        return Cutoffs(self.now - int(runs_days * DAY), self.now - int(requests_days * DAY))

    def rows(self, table: str) -> list[Row]:
        return self.do(lambda tx: tx.all(Statement(metadata.tables[table].select())))


@pytest.fixture(params=[11, 22])
def world(database_url: str, request: pytest.FixtureRequest) -> Iterator[World]:
    with opened(database_url) as hand:
        yield World(hand, request.param)


@pytest.fixture
def small(database_url: str) -> Iterator[World]:
    with opened(database_url) as hand:
        yield World(hand, 1)


def check_whole(world: World) -> None:
    """No row names one that is gone, and every run that is left reads back whole."""
    tables = {name: world.rows(name) for name in metadata.tables}
    for table in metadata.tables.values():
        for key in table.foreign_keys:
            known = {row[key.column.name] for row in tables[key.column.table.name]}
            named = {row[key.parent.name] for row in tables[table.name]} - {None}
            assert named <= known, f"{table.name}.{key.parent.name}"
    known_runs = {row["id"] for row in tables["runs"]}
    for row in tables["runs"]:
        assert row["pruning_us"] is None
        assert row["parent_run_id"] is None or row["parent_run_id"] in known_runs
    named = {row[column.name] for column in digest_columns() for row in tables[column.table.name]} - {None}
    assert named == {row["digest"] for row in tables["payloads"]}
    for run_id in known_runs:
        read_whole(world, run_id)
    used = {row["version_id"] for row in tables["runs"]}
    assert all(row["id"] in used for row in tables["workflow_versions"] if row["version"] is None)


def read_whole(world: World, run_id: str) -> None:
    row = world.run(run_id)
    view = world.do(lambda tx: run_view(tx, row))
    assert (view["status"] == "succeeded") == (row["finished_us"] is not None)
    steps = world.do(lambda tx: steps_view(tx, run_id))
    assert steps or row["workflow_name"] == "each"
    assert all(step["attempts"] for step in steps if step["status"] == "succeeded" and row["forked_from"] is None)
    world.do(lambda tx: deliveries_view(tx, run_id))
    assert [event["seq"] for event in world.events(run_id)] == list(range(1, row["event_seq"] + 1))


def test_what_is_old_goes_whole_and_what_stays_is_whole(world: World) -> None:
    world.happen(45)
    before = {row["id"]: row for row in world.rows("runs")}
    ledger = len(world.rows("requests"))
    expected = asyncio.run(count_prunable(world.database, world.cutoffs(30), world.now))
    deleted = world.prune(runs_days=30)
    left = {row["id"] for row in world.rows("runs")}
    limit = world.now - 30 * DAY
    pending = {row["run_id"] for row in world.rows("deliveries") if row["status"] == "pending"}
    parents = {row["parent_run_id"] for row in before.values()}
    for run_id, row in before.items():
        alone = row["parent_run_id"] is None and run_id not in parents
        old = row["finished_us"] is not None and row["finished_us"] < limit and run_id not in pending
        assert old or run_id in left
        assert not (old and alone) or run_id not in left
        if row["parent_run_id"] is not None:
            assert (run_id in left) == (row["parent_run_id"] in left)
    assert 0 < deleted["runs"] == len(before) - len(left) < len(before)
    assert len(world.rows("requests")) == ledger  # they have their own time
    assert expected == Counter(
        {name: deleted[name] for name in deleted if name not in ("payloads", "workflow_versions")}
    )
    check_whole(world)
    assert world.prune(runs_days=30) == Counter()
    world.ids = [run_id for run_id in world.ids if run_id in left]
    world.happen(5)
    check_whole(world)


def test_a_run_of_many_rows_goes_in_slices_and_is_gone_from_the_first(
    small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS", 7)
    run_id = small.start(EACH, {"items": list(range(40))}, idempotency_key="once")
    play(small, run_id)
    small.pass_time(86_400)
    small.do(lambda tx: retention.give_up_old(tx, small.now, (0, ""), small.now))
    assert small.do(lambda tx: get_run(tx, run_id)) is None
    assert small.do(lambda tx: list_runs(tx, {}, 10)) == []
    with pytest.raises(NotFound):
        small.cancel(run_id)
    again = small.start(EACH, {"items": []}, idempotency_key="once")
    slices = 0
    while counts := small.do(retention.delete_given_up):
        assert all(number <= 20 * 7 for number in counts.values())
        slices += 1
    assert slices > 10
    assert [row["id"] for row in small.rows("runs")] == [again]
    check_whole(small)


def test_two_who_prune_at_once_delete_each_row_once(database_url: str) -> None:
    with opened(database_url) as first, opened(database_url) as second:
        one, two = World(first, 5), World(second, 6)
        for _ in range(25):
            one.plain()
            one.waits()
        one.pass_time(100 * 86_400)
        two.now = one.now
        ended = sum(row["status"] != "pending" for row in one.rows("deliveries"))
        found = at_once(one.prune, two.prune, one.prune)
        total = sum(found, Counter[str]())
        assert total["deliveries"] == ended
        assert total["runs"] + len(one.rows("runs")) == 50
        check_whole(one)


def test_forks_and_equal_values_while_pruning_lose_nothing(database_url: str) -> None:
    """Each fork copies rows that name large values; each submission stores values that are just being deleted."""
    with opened(database_url) as first, opened(database_url) as second:
        one, two = World(first, 7), World(second, 8)
        for round_ in range(4):
            old = [one.start(DO, {"text": f"{round_} {number} " + LARGE[0]}) for number in range(6)]
            for run_id in old:
                play(one, run_id)
            one.pass_time(100 * 86_400)
            two.now = one.now

            def fork_it(run_id: str) -> None:
                try:
                    two.do(lambda tx: fork(tx, two.catalogue, run_id, Fork("only"), two.now))
                except (NotFound, Conflict):
                    pass

            def store_again(number: int, round_: int = round_) -> None:
                two.start(DO, {"text": f"{round_} {number} " + LARGE[0]})

            at_once(
                one.prune,
                *(lambda run_id=run_id: fork_it(run_id) for run_id in old),
                *(lambda number=number: store_again(number) for number in range(6)),
                one.prune,
            )
            for row in one.rows("runs"):
                play(one, row["id"])
            one.prune(runs_days=1000)
            check_whole(one)


def test_a_value_that_is_being_stored_again_is_passed_over(postgres_url: str) -> None:
    """The row that names it is not committed yet, so that nobody else can see it."""
    with opened(postgres_url) as one, opened(postgres_url) as two:
        digest = one.do(lambda tx: pack(tx, LARGE[0], 1))[1]
        assert digest is not None

        def stores(tx: Tx) -> None:
            remember(tx, "call", Succeeded(LARGE[0]), 60, one.now)

        def stores_by_now(tx: Tx) -> None:
            stores(tx)
            tx.finish()
            tx.one(Statement(select(payloads.c.digest)))

        with half_way(one, stores) as go_on:  # not sent yet: it goes, and comes back with the commit
            assert two.database.write_now(lambda tx: retention.prune_payloads(tx, [digest])) == 1
            go_on()
        assert two.do(lambda tx: recall(tx, "call", two.now)) == Succeeded(LARGE[0])
        two.do(lambda tx: tx.run(Statement(cached_results.delete())))
        with half_way(one, stores_by_now) as go_on:
            assert two.database.write_now(lambda tx: retention.prune_payloads(tx, [digest])) == 0
            go_on()
        assert two.do(lambda tx: recall(tx, "call", two.now)) == Succeeded(LARGE[0])
        with half_way(two, lambda tx: delete_row(tx, digest)) as go_on, ThreadPoolExecutor(1) as pool:
            again = pool.submit(one.do, lambda tx: pack(tx, LARGE[0], 1))
            go_on()
            again.result(20)
        assert two.do(lambda tx: recall(tx, "call", two.now)) == Succeeded(LARGE[0])


def test_a_run_that_is_being_forked_is_passed_over(postgres_url: str) -> None:
    with opened(postgres_url) as first, opened(postgres_url) as second:
        one, two = World(first, 1), World(second, 1)
        run_id = one.start(DO, {"text": LARGE[0]})
        play(one, run_id)
        two.now = one.now = one.now + 100 * DAY
        with half_way(one, lambda tx: fork(tx, one.catalogue, run_id, Fork("only"), one.now)) as go_on:
            assert two.prune() == Counter()
            go_on()
        assert two.prune()["runs"] == 1
        check_whole(one)


@contextmanager
def half_way(hand: Hand, work: Callable[[Tx], Any]) -> Iterator[Callable[[], None]]:
    """A transaction that has done its work and commits when it is told to."""
    done, told = Event(), Event()

    def wait(tx: Tx) -> None:
        work(tx)
        done.set()
        assert told.wait(30)

    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(hand.do, wait)
        try:
            assert done.wait(30)
            yield lambda: (told.set(), commit.result(30), None)[-1]
        finally:
            told.set()


def delete_row(tx: Tx, digest: str) -> None:
    tx.run(Statement(payloads.delete().where(payloads.c.digest == bindparam("old"))), {"old": digest})


def test_a_family_waits_for_its_youngest(small: World) -> None:
    run_id = small.start(CALLS, {"text": "x"})
    play(small, run_id)
    child = next(row["id"] for row in small.rows("runs") if row["parent_run_id"] == run_id)
    small.cancel(run_id)
    small.pass_time(200 * 86_400)
    assert small.prune()["runs"] == 0  # the child is still open
    answer_all(small)
    assert small.run(child)["status"] == "cancelled"
    assert small.prune()["runs"] == 0  # it ended today
    small.pass_time(91 * 86_400)
    assert small.prune()["runs"] == 2
    check_whole(small)


def test_a_run_with_a_webhook_to_send_stays(small: World) -> None:
    run_id = small.start(DO, {"text": "x"}, webhook_url="http://example.com/hook")
    play(small, run_id)
    small.pass_time(200 * 86_400)
    assert small.prune()["runs"] == 0
    (delivery,) = small.do(lambda tx: deliveries_of_run(tx, run_id))
    small.do(lambda tx: settle_delivery(tx, delivery["id"], "dead", None, small.now))
    assert small.prune()["runs"] == 1
    check_whole(small)


def test_ledger_rows_go_by_their_own_days_and_stay_with_a_run_that_is_kept(small: World) -> None:
    kept = small.start(DO, {"text": "x"})
    held = small.claim(kept, "only")
    small.complete(held, Succeeded("x"), settled(small.open_call(held), small.now, 40))
    till = Till(small.database)
    till.now = small.now
    chat = till.intent()
    small.do(lambda tx: open_request(tx, chat, "w1"))
    small.do(lambda tx: settle_request(tx, settled(chat.id, small.now, 7)))
    never = till.intent()
    small.do(lambda tx: open_request(tx, never, "w1"))
    small.pass_time(100 * 86_400)
    assert small.prune(runs_days=1000, requests_days=90) == Counter(requests=1)
    assert [row["status"] for row in small.rows("requests")] == ["succeeded", "started"]
    assert small.view(kept)["cost_usd"] == 40e-12
    assert small.prune(runs_days=90, requests_days=90)["requests"] == 1
    assert small.do(lambda tx: whole_run(tx, kept).calls) == []


def test_no_budget_changes(database_url: str) -> None:
    with opened(database_url) as hand:
        till = Till(hand.database)
        world = World(hand, 1)
        for name, period in (("ever", Period.TOTAL), ("month", Period.MONTH), ("day", Period.DAY)):
            till.set_budget(name, 10_000, period)
        for _ in range(40):
            till.settle(till.open(), 10)
            till.now += 20 * 3600 * SECOND
        till.settle(till.open(), 10)
        till.open()
        till.do(lambda tx: tx.run(Statement(text("UPDATE requests SET status = 'unknown' WHERE finished_us IS NULL"))))
        world.now = till.now
        names = ("ever", "month", "day")
        before = [till.view(name) for name in names]
        assert 0 < world.prune(requests_days=0.001)["requests"] < 40
        assert [till.view(name) for name in names] == before
        till.set_budget("ever", 20_000, Period.TOTAL)  # another limit counts on from the same sum
        assert till.view("ever")["spent_usd"] == before[0]["spent_usd"] == 410e-12
        till.set_budget("new", 10_000)
        assert (
            till.do(lambda tx: ledger_cutoff(tx, till.now, till.now)) == 0
        )  # set a moment ago: its sum is yet to settle


def test_large_values_that_nothing_names_any_more_go(small: World) -> None:
    small.do(lambda tx: pack(tx, LARGE[0], small.now))
    small.do(lambda tx: remember(tx, "call", Succeeded(LARGE[1]), 60, small.now))
    assert small.prune() == Counter(payloads=1)
    small.pass_time(61)
    assert small.prune() == Counter(cached_results=1, payloads=1)


def test_one_process_at_a_time_has_the_turn(database_url: str) -> None:
    with opened(database_url) as one, opened(database_url) as two:
        assert one.do(lambda tx: turn_is_due(tx, "t", 100))
        taken = at_once(
            *(lambda hand=hand: hand.do(lambda tx: take_turn(tx, "t", 100, 200)) for hand in (one, two) * 3)
        )
        assert sorted(taken) == [False] * 5 + [True]
        assert not one.do(lambda tx: turn_is_due(tx, "t", 199))
        assert two.do(lambda tx: turn_is_due(tx, "t", 200))
        assert two.do(lambda tx: take_turn(tx, "t", 200, 300))


def test_every_column_that_names_a_payload_is_known() -> None:
    assert isinstance(metadata, MetaData)
    named = {(column.table.name, column.name) for column in digest_columns()}
    assert {("runs", "input_digest"), ("steps", "output_digest"), ("signals", "payload_digest")} <= named
    for table, column in named:
        indexed = [[each.name for each in index.columns] for index in metadata.tables[table].indexes]
        assert [column] in indexed, f"{table}.{column} is looked up for each payload"
    assert runs.c.pruning_us.nullable and payloads.c.digest.primary_key
