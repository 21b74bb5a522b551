"""Schedules on both databases with a clock that the test moves: each firing one run, whoever sweeps, whatever was missed."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from engine_hand import SECOND, Hand, at_once, opened
from engine_play import play
from hypothesis import given
from hypothesis import strategies as st

from engine.api_keys import KeyLimits, NewKey, create_key, new_secret, revoke
from engine.clock import iso
from engine.errors import Conflict, NotFound, UserError
from engine.firing import SLICE, Fired, decide, due_now, fire
from engine.fork import Fork, fork
from engine.loader import load
from engine.schedule_spec import Overlap, ScheduleSpec
from engine.schedules import create_schedule, find_schedule, pause_schedule, remove_schedule, schedule_view
from engine.store.database import Row, Tx
from engine.store.runs import list_runs
from engine.store.schedules import list_schedules
from engine.workflows import put, remove

MINUTE = 60 * SECOND
QUICK = (
    "name: quick\ninputs: {n: {type: integer, default: 1}}\nsteps:\n  - {id: only, type: set, value: '${input.n}'}\n"
)


class Clockwork(Hand):
    """A hand that also sets schedules and sweeps them as a worker does."""

    def store(self, text: str, **more: Any) -> None:
        self.do(lambda tx: put(tx, load(text), "api", self.now, **more))

    def schedule(self, cron: str = "* * * * *", *, name: str = "mine", workflow: str = "quick", **more: Any) -> Row:
        key_id = more.pop("key_id", None)
        spec = ScheduleSpec(cron, **more)
        work = partial(create_schedule, spec=spec, key_id=key_id, now=self.now)
        return self.do(lambda tx: work(tx, self.catalogue, (name, workflow)))[0]

    def sweep(self) -> int:
        """Once over all that is due; how many bells that made."""
        bells = 0
        for schedule_id in self.do(lambda tx: due_now(tx, self.now)):
            more = True
            while more:
                fired = self.fire(schedule_id)
                bells, more = bells + len(fired.rings), fired.more
        return bells

    def fire(self, schedule_id: str) -> Fired:
        return self.do(lambda tx: fire(tx, self.catalogue, schedule_id, self.now))

    def found(self, name: str = "mine") -> dict[str, Any]:
        return self.do(lambda tx: schedule_view(find_schedule(tx, name)))

    def runs(self) -> list[Row]:
        """Oldest first."""
        return self.do(lambda tx: list_runs(tx, {}, 1000))[::-1]

    def play_all(self) -> None:
        for row in self.runs():
            play(self, row["id"])

    def go_to(self, text: str) -> None:
        self.now = int(datetime.fromisoformat(text).timestamp()) * SECOND


@pytest.fixture
def hand(database_url: str) -> Iterator[Clockwork]:
    with opened(database_url) as plain:
        hand = Clockwork(plain.database)
        hand.go_to("2026-11-22T10:00:30+00:00")
        hand.store(QUICK)
        yield hand


def test_a_firing_is_one_run_that_knows_its_schedule(hand: Clockwork) -> None:
    made = hand.schedule(input={"n": 7}, tags={"team": "a"}, budget_picousd=5)
    assert hand.found()["next_at"] == "2026-11-22T10:01:00.000000Z"
    hand.pass_time(29.9)
    assert hand.sweep() == 0
    hand.pass_time(0.1)
    assert hand.sweep() == 1
    (run,) = hand.runs()
    assert (run["schedule_id"], run["scheduled_us"], run["budget_picousd"]) == (made["id"], hand.now, 5)
    view = play(hand, run["id"])
    assert (view["status"], view["output"], view["tags"]) == ("succeeded", 7, {"team": "a"})
    assert view["schedule"] == {"id": made["id"], "due_at": "2026-11-22T10:01:00.000000Z"}
    assert hand.events(run["id"])[0]["data_json"] == '{"schedule":"mine","due_at":"2026-11-22T10:01:00.000000Z"}'
    found = hand.found()
    assert (found["last_at"], found["last_run_id"], found["fired"]) == (view["schedule"]["due_at"], run["id"], 1)
    assert found["next_at"] == "2026-11-22T10:02:00.000000Z"
    assert hand.sweep() == 0


def test_a_firing_whose_key_gives_no_plain_value_leaves_nothing(hand: Clockwork) -> None:
    with pytest.raises(UserError, match=r"concurrency\.key"):
        hand.store(QUICK.replace("quick", "keyed") + 'concurrency: {limit: 1, key: "${input.n if input.n else [1]}"}\n')
        hand.schedule(name="keyed", workflow="keyed", input={"n": 0})
    hand.schedule(name="mine", workflow="keyed", input={"n": 1})
    hand.store(QUICK.replace("quick", "keyed") + 'concurrency: {limit: 1, key: "${[input.n]}"}\n')
    hand.pass_time(30)
    hand.sweep()
    assert (hand.found()["failed"], hand.runs()) == (1, [])
    assert "concurrency.key" in hand.found()["error"]["message"]


def test_many_sweepers_fire_once(database_url: str) -> None:
    with opened(database_url) as first, opened(database_url) as second:
        one, two = Clockwork(first.database), Clockwork(second.database)
        one.store(QUICK)
        for number in range(5):
            one.schedule(name=f"s{number}")
        for minute in range(1, 4):
            one.now = two.now = one.now + 60 * SECOND
            at_once(one.sweep, two.sweep, one.sweep, two.sweep)
            assert len(one.runs()) == 5 * minute
            one.play_all()


def test_a_fork_is_no_firing(hand: Clockwork) -> None:
    hand.schedule()
    hand.pass_time(30)
    hand.sweep()
    run_id = hand.runs()[0]["id"]
    play(hand, run_id)
    hand.do(lambda tx: fork(tx, hand.catalogue, run_id, Fork("only"), hand.now))
    assert [row["schedule_id"] is None for row in hand.runs()] == [False, True]


@pytest.mark.parametrize(("overlap", "counts"), [("skip", (1, 2, 0)), ("queue", (1, 0, 1))])
def test_a_run_that_is_still_under_way(hand: Clockwork, overlap: str, counts: tuple[int, int, int]) -> None:
    hand.schedule(overlap=Overlap(overlap))
    for _ in range(3):
        hand.pass_time(60)
        hand.sweep()
    found = hand.found()
    assert (found["fired"], found["skipped"], found["missed"]) == counts
    assert found["waiting"] == (1 if overlap == "queue" else 0)
    hand.play_all()
    assert hand.sweep() == (1 if overlap == "queue" else 0)  # the newest of those that waited, at once
    assert len(hand.runs()) == (2 if overlap == "queue" else 1)
    if overlap == "queue":
        assert iso(hand.runs()[-1]["scheduled_us"]).startswith("2026-11-22T10:03:00")


@pytest.mark.parametrize("overlap", ["skip", "queue"])
def test_missed_firings_are_made_up_to_the_limit_one_behind_the_other(hand: Clockwork, overlap: str) -> None:
    for catch_up in (0, 1, 3):
        hand.go_to("2026-11-22T10:00:30+00:00")
        name = f"up to {catch_up}"
        made = hand.schedule("0 * * * *", name=name, overlap=Overlap(overlap), catch_up=catch_up)
        hand.go_to("2026-11-22T20:30:00+00:00")  # ten were missed
        for _ in range(5):
            hand.sweep()
            assert len([row for row in hand.runs() if row["finished_us"] is None]) <= 1
            hand.play_all()
        due = [iso(row["scheduled_us"])[11:16] for row in hand.runs() if row["schedule_id"] == made["id"]]
        assert due == ["18:00", "19:00", "20:00"][3 - catch_up :]
        found = hand.found(name)
        assert (found["fired"], found["missed"], found["skipped"]) == (catch_up, 10 - catch_up, 0)
        hand.go_to("2026-11-22T21:00:01+00:00")
        assert hand.sweep() == 1  # and it is back in time
        hand.play_all()
        hand.do(lambda tx, named=name: remove_schedule(tx, named))


def test_a_firing_is_on_time_for_a_minute_even_where_nothing_is_made_up(hand: Clockwork) -> None:
    hand.schedule("0 12 * * *", catch_up=0)
    hand.go_to("2026-11-22T12:00:59+00:00")
    assert hand.sweep() == 1
    hand.play_all()
    hand.go_to("2026-11-23T12:01:00+00:00")
    assert hand.sweep() == 0
    assert hand.found()["missed"] == 1


def test_a_year_without_anybody_is_gone_through_in_slices(hand: Clockwork) -> None:
    hand.schedule("*/30 * * * *", catch_up=2)
    hand.pass_time(60 * 86_400)
    schedule_id = hand.found()["id"]
    slices = 0
    while hand.fire(schedule_id).more:
        slices += 1
    assert slices == 60 * 48 // SLICE
    assert len(hand.runs()) == 1
    hand.play_all()
    hand.sweep()
    found = hand.found()
    assert (found["fired"], found["missed"]) == (2, 60 * 48 - 2)


def test_a_clock_that_goes_back_fires_nothing_twice(hand: Clockwork) -> None:
    hand.schedule()
    for _ in range(3):
        hand.pass_time(60)
        hand.sweep()
        hand.play_all()
    hand.pass_time(-150)
    for _ in range(3):
        hand.sweep()
        hand.pass_time(50)
    assert len({row["scheduled_us"] for row in hand.runs()}) == len(hand.runs()) == 3


def test_the_hour_that_is_left_out_and_the_one_that_comes_twice(hand: Clockwork) -> None:
    hand.go_to("2026-03-28T12:00:00+00:00")
    hand.schedule("30 2 * * *", zone="Europe/Berlin")
    expected = {
        "2026-03-29T03:00:00+02:00": 1,
        "2026-03-30T02:30:00+02:00": 2,
    }
    for at, count in expected.items():
        hand.go_to(at)
        assert (hand.sweep(), len(hand.runs())) == (1, count)
        hand.play_all()
    hand.do(lambda tx: remove_schedule(tx, "mine"))
    hand.go_to("2026-10-24T12:00:00+00:00")
    hand.schedule("30 2 * * *", zone="Europe/Berlin")
    hand.go_to("2026-10-25T02:30:00+02:00")
    assert hand.sweep() == 1
    hand.play_all()
    hand.go_to("2026-10-25T02:30:00+01:00")
    assert hand.sweep() == 0
    assert hand.found()["next_at"] == "2026-10-26T01:30:00.000000Z"


def test_a_firing_that_starts_no_run_is_told_on_the_schedule_and_does_not_repeat(hand: Clockwork) -> None:
    hand.schedule(input={"n": 3})
    hand.store(QUICK.replace("integer", "string").replace("default: 1", 'default: "x"'))
    hand.pass_time(30)
    for _ in range(3):
        assert hand.sweep() == 0
    found = hand.found()
    assert (found["failed"], found["fired"], hand.runs()) == (1, 0, [])
    assert "input.n: has to be string" in found["error"]["message"]
    assert found["next_at"] == "2026-11-22T10:02:00.000000Z"
    hand.do(lambda tx: remove(tx, "quick"))
    hand.pass_time(60)
    hand.sweep()
    assert "there is no workflow 'quick'" in hand.found()["error"]["message"]
    hand.store(QUICK)
    hand.pass_time(60)
    assert hand.sweep() == 1
    assert (hand.found()["error"], hand.found()["failed"]) == (None, 2)


def test_a_schedule_ends_with_its_key(hand: Clockwork) -> None:
    key = hand.do(lambda tx: create_key(tx, NewKey("ci", KeyLimits(), None, False), new_secret(), hand.now))
    hand.schedule(key_id=key.id)
    hand.pass_time(30)
    hand.sweep()
    assert hand.runs()[0]["key_id"] == key.id
    hand.play_all()
    hand.do(lambda tx: revoke(tx, "ci", hand.now))
    hand.pass_time(60)
    assert hand.sweep() == 0
    assert "the API key 'ci'" in hand.found()["error"]["message"]


def test_a_zone_that_is_gone_stops_the_schedule_and_says_so(hand: Clockwork) -> None:
    hand.schedule()
    statement = "UPDATE schedules SET zone = 'Nowhere/Here'"
    hand.do(lambda tx: run_sql(tx, statement))
    hand.pass_time(30)
    assert hand.sweep() == 0
    found = hand.found()
    assert (found["next_at"], found["failed"]) == (None, 1)
    assert "there is no time zone 'Nowhere/Here'" in found["error"]["message"]
    assert hand.do(lambda tx: due_now(tx, hand.now + 10**12)) == []


def run_sql(tx: Tx, sql: str) -> None:
    from sqlalchemy import text  # noqa: PLC0415

    from engine.store.statements import Statement  # noqa: PLC0415

    tx.run(Statement(text(sql)))


def test_what_cannot_be_is_refused_by_name(hand: Clockwork) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "cron": {"cron": "0 0 30 2 *"},
        "timezone": {"zone": "Europe/Berln"},
        "input.n": {"input": {"n": "text"}},
        "input.m": {"input": {"m": 1}},
    }
    for param, more in wrong.items():
        with pytest.raises(UserError) as refused:
            hand.schedule(**more)
        assert refused.value.param == param
    with pytest.raises(NotFound, match="did you mean quick"):
        hand.schedule(workflow="quik")
    assert hand.do(lambda tx: list_schedules(tx, None, 10)) == []


def test_the_same_again_is_the_same_and_another_of_that_name_is_a_conflict(hand: Clockwork) -> None:
    assert hand.schedule()["id"] == hand.schedule()["id"]
    with pytest.raises(Conflict, match="delete it first"):
        hand.schedule("0 7 * * *")
    made = at_once(*(partial(hand.schedule, name="together") for _ in range(4)))
    assert len({row["id"] for row in made}) == 1
    assert hand.do(lambda tx: remove_schedule(tx, "mine"))["name"] == "mine"
    with pytest.raises(NotFound, match="there is no schedule 'mine'"):
        hand.do(lambda tx: remove_schedule(tx, "mine"))


def test_the_schedules_of_a_definition_follow_it(hand: Clockwork) -> None:
    def store(schedule: str, **more: Any) -> list[tuple[str, str, bool]]:
        hand.store(f"name: timed\n{schedule}\nsteps:\n  - {{id: a, type: set, value: 1}}\n", **more)
        rows = hand.do(lambda tx: list_schedules(tx, None, 10, "timed"))[::-1]
        return [(row["name"], row["cron"], bool(row["enabled"])) for row in rows]

    assert store('schedule: "* * * * *"', key_id="k1") == [("timed:1", "* * * * *", True)]
    hand.pass_time(30)
    assert hand.sweep() == 1
    assert hand.runs()[0]["key_id"] == "k1"  # who stores a definition pays for its schedules
    hand.play_all()
    before = hand.found("timed:1")
    assert before["origin"] == "definition"
    again = store(
        "schedule: [{cron: '* * * * *', input: {x: 1}}, {cron: '@daily', timezone: Asia/Tokyo, enabled: false}]"
    )
    assert again == [("timed:1", "* * * * *", True), ("timed:2", "@daily", False)]
    after = hand.found("timed:1")
    assert (after["id"], after["fired"], after["next_at"], after["input"]) == (
        before["id"],
        1,
        before["next_at"],
        {"x": 1},
    )
    assert hand.found("timed:2")["next_at"] is None
    with pytest.raises(Conflict, match="take `schedule` out of its definition"):
        hand.do(lambda tx: remove_schedule(tx, "timed:1"))
    assert store('schedule: "0 9 * * *"') == [("timed:1", "0 9 * * *", True)]
    assert hand.found("timed:1")["next_at"] == "2026-11-23T09:00:00.000000Z"
    assert store("description: never by itself") == []
    assert store('schedule: "@hourly"') == [("timed:1", "@hourly", True)]
    hand.schedule(name="by hand", workflow="timed")
    hand.do(lambda tx: remove(tx, "timed"))
    assert [row["name"] for row in hand.do(lambda tx: list_schedules(tx, None, 10))] == ["by hand"]


@given(
    overlap=st.sampled_from(list(Overlap)),
    catch_up=st.integers(0, 4),
    looks=st.lists(st.tuples(st.integers(1, 400), st.booleans()), min_size=1, max_size=40),
)
def test_every_due_time_has_one_fate(overlap: Overlap, catch_up: int, looks: list[tuple[int, bool]]) -> None:
    """Whenever somebody looks, and whether or not a run is under way: nothing due is counted twice or lost."""
    row: Row = {"cron": "* * * * *", "zone": "UTC", "overlap": overlap.value, "catch_up": catch_up, "next_us": MINUTE,
                "backlog_json": None}  # fmt: skip
    now, fired, skipped, missed = 0, list[int](), 0, 0
    for seconds, busy in looks:
        now += seconds * SECOND
        decision = decide(row, busy=busy, now=now)
        assert not (busy and decision.fire_us)
        assert len(decision.backlog) <= max(catch_up, 1 if overlap is Overlap.QUEUE else 0)
        fired += [] if decision.fire_us is None else [decision.fire_us]
        skipped += decision.skipped
        missed += decision.missed
        assert decision.next_us is not None and decision.next_us > now
        row |= {"next_us": decision.next_us, "backlog_json": str(list(decision.backlog)) if decision.backlog else None}
        assert len(fired) + skipped + missed + len(decision.backlog) == now // MINUTE
        if overlap is Overlap.QUEUE:
            assert skipped == 0
    assert fired == sorted(set(fired))


def test_a_paused_schedule_of_a_definition_stays_so_through_new_versions(hand: Clockwork) -> None:
    text = QUICK.replace("inputs:", 'schedule: {cron: "* * * * *"}\ninputs:', 1)
    hand.store(text)
    assert hand.do(lambda tx: pause_schedule(tx, "quick:1", paused=True, now=hand.now))["paused_us"] == hand.now
    hand.store(text.replace("* * * * *", "*/2 * * * *"))
    hand.pass_time(3600)
    assert hand.sweep() == 0 and hand.runs() == []
    hand.do(lambda tx: pause_schedule(tx, "quick:1", paused=False, now=hand.now))
    hand.pass_time(120)
    hand.sweep()
    assert len(hand.runs()) == 1 and hand.found("quick:1")["missed"] == 0
