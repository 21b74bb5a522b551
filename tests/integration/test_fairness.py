"""A flood of one workflow does not hold up another: who is owed the next slots, on both databases, and a runner that gives them."""

import asyncio
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_hand import SECOND, Hand, opened

from engine.clock import now_us
from engine.fairness import AGED_EVERY_US, AGED_US, MOST_WORKFLOWS, Turns, owed_turns, with_aged
from engine.ports import Job, Outcome, Succeeded
from engine.states import Priority
from engine.store.ready_steps import _OF_WORKFLOW, _WORKFLOWS  # pyright: ignore[reportPrivateUsage]
from engine.store.steps import get_step
from engine.sweeper import BATCH, overlooked
from worker.housekeeping import Sweeper
from worker.neighbours import Neighbours
from worker.runner import StepLimits, StepRunner

FLOOD = "name: flood\nsteps:\n  - {id: a, type: set, value: 1}\n  - {id: b, type: set, value: 2}\n"
SMALL = FLOOD.replace("flood", "small")
RUNS = 200
SLOTS = 4


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        hand.now = now_us()
        yield hand


def owed(hand: Hand, held: dict[str, int], slots: int = SLOTS, priority: Priority = Priority.NORMAL) -> list[str]:
    """Names of the workflows whose steps are owed, in their order."""
    by_class = {(priority.value, workflow): number for workflow, number in held.items()}
    ids = hand.do(lambda tx: owed_turns(tx, by_class, slots, "")).step_ids
    return [str(hand.do(lambda tx, one=step_id: one_workflow(hand, tx, one))) for step_id in ids]


def one_workflow(hand: Hand, tx: Any, step_id: str) -> str:
    row = get_step(tx, step_id)
    assert row is not None
    return row["workflow_name"]


def test_who_holds_less_than_its_share_is_owed_the_rest(hand: Hand) -> None:
    for text in [FLOOD] * 6 + [SMALL] * 3:
        hand.start(text)
    assert owed(hand, {"flood": 4}) == ["small", "small"]
    assert owed(hand, {"flood": 3, "small": 1}) == ["small"]
    assert owed(hand, {"flood": 2, "small": 2}) == []
    assert owed(hand, {"third": 4}) == ["flood", "small"]
    assert owed(hand, {"flood": 1}, slots=1) == ["small"]


def test_priorities_stay_and_paused_runs_are_owed_nothing(hand: Hand) -> None:
    hand.start(FLOOD)
    hand.pause(hand.start(SMALL))
    assert owed(hand, {"flood": 4}) == []
    hand.start(SMALL, priority=Priority.LOW)
    assert owed(hand, {"flood": 4}) == []
    hand.start(SMALL.replace("small", "urgent"), priority=Priority.HIGH)
    assert owed(hand, {"flood": 4}) == ["urgent"]


def test_what_is_urgent_gets_the_slots_of_what_is_not(hand: Hand) -> None:
    hand.start(FLOOD, priority=Priority.HIGH)
    assert owed(hand, {"flood": 4}) == ["flood"]
    assert owed(hand, {"flood": 4}, priority=Priority.LOW) == ["flood"]
    assert owed(hand, {"flood": 4}, priority=Priority.HIGH) == []


def test_a_paused_urgent_run_keeps_nobody_from_its_turn(hand: Hand) -> None:
    hand.pause(hand.start(FLOOD, priority=Priority.HIGH))
    hand.start(SMALL)
    assert owed(hand, {"flood": 4}) == ["small"]


def test_however_many_workflows_there_are_each_is_looked_at(hand: Hand) -> None:
    for number in range(MOST_WORKFLOWS + 5):
        hand.start(SMALL.replace("small", f"w{number:03}"))
    first = hand.do(lambda tx: owed_turns(tx, {}, SLOTS, ""))
    second = hand.do(lambda tx: owed_turns(tx, {}, SLOTS, first.after))
    assert (len(first.step_ids), len(second.step_ids), second.after) == (MOST_WORKFLOWS, 5, "")
    assert not set(first.step_ids) & set(second.step_ids)


@pytest.mark.parametrize("flood", [Priority.NORMAL, Priority.LOW])
def test_what_is_urgent_is_found_behind_any_flood_whose_bells_were_lost(hand: Hand, flood: Priority) -> None:
    for _ in range(BATCH + 5):
        hand.start(FLOOD, priority=flood)
    hand.pass_time(5)
    late = [hand.start(SMALL, priority=priority) for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH)]
    hand.pass_time(2)
    low, normal, high = (hand.step(run_id, "a")["id"] for run_id in late)
    found = [ring.step_id for ring in hand.do(lambda tx: overlooked(tx, hand.now)).rings]
    assert len(set(found)) == len(found) >= BATCH
    assert found[0] == high and low not in found
    if flood is Priority.LOW:
        assert found[1] == normal


def test_what_has_waited_for_a_minute_gets_a_turn_whatever_its_priority(hand: Hand) -> None:
    waiting = hand.step(hand.start(SMALL, priority=Priority.LOW), "a")["id"]
    hand.pass_time(AGED_US / SECOND - 1)
    hand.start(FLOOD, priority=Priority.HIGH)

    def turns(last_us: int) -> Turns:
        return hand.do(lambda tx: with_aged(tx, owed_turns(tx, {}, SLOTS, ""), hand.now, last_us))

    urgent = turns(0).step_ids
    assert waiting not in urgent
    hand.pass_time(1)
    began = hand.now
    assert turns(0) == Turns((waiting, *urgent), "", began)
    hand.pass_time(AGED_EVERY_US / SECOND - 1)
    assert turns(began) == Turns(urgent, "", began)
    hand.pass_time(1)
    assert turns(began) == Turns((waiting, *urgent), "", hand.now)


class Bells:
    """Rings come out in the order in which they went in, as from a queue."""

    def __init__(self) -> None:
        self.rung: deque[str] = deque()

    def ended(self, run_id: str) -> None:
        """Nobody waits."""

    def ring(self, step_id: str, priority: str) -> None:
        self.rung.append(step_id)


class Counting:
    """An executor that knows how many runs of which workflow have come to their last step."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def execute(self, job: Job) -> Outcome:
        await asyncio.sleep(0.02)
        if job.key == "b":
            self.ended.append(job.definition.name)
        return Succeeded(1)


async def work_until(name: str, hand: Hand, bells: Bells, counting: Counting, locks: Path) -> None:
    """A worker with few slots, until a run of that workflow has come to its last step."""
    runner = StepRunner(hand.database, hand.catalogue, bells, {"set": counting}, StepLimits("w1", SLOTS))
    sweeper = Sweeper(hand.database, hand.catalogue, bells, runner, neighbours=Neighbours(hand.database, "w1", locks))
    answering = asyncio.create_task(answer(runner, bells))
    async with asyncio.timeout(60):
        while name not in counting.ended:
            await sweeper.sweep()
            await asyncio.sleep(0.01)
    answering.cancel()
    await runner.drain(0)


def test_a_single_run_behind_a_flood_is_through_before_a_tenth_of_it(hand: Hand, tmp_path: Path) -> None:
    bells, counting = Bells(), Counting()
    for text in [FLOOD] * RUNS + [SMALL]:
        for ring in hand.submit(text).rings:
            bells.ring(ring.step_id, ring.priority)

    asyncio.run(work_until("small", hand, bells, counting, tmp_path))
    assert counting.ended.index("small") < RUNS / 10, counting.ended.index("small")


def test_an_urgent_run_does_not_wait_for_the_ends_of_long_ones(hand: Hand, tmp_path: Path) -> None:
    long = "name: flood\nsteps:\n" + "".join(f"  - {{id: s{number}, type: set, value: 1}}\n" for number in range(60))
    runs = [hand.submit(long, priority=Priority.LOW) for _ in range(SLOTS)]
    urgent = hand.submit(FLOOD, priority=Priority.HIGH)
    bells, counting = Bells(), Counting()
    for ring in (ring for each in (*runs, urgent) for ring in each.rings):
        bells.ring(ring.step_id, ring.priority)
    asyncio.run(work_until("flood", hand, bells, counting, tmp_path))
    ended = [status for each in runs for status in hand.statuses(each.run["id"]).values() if status == "succeeded"]
    assert len(ended) < SLOTS * 60 / 2


async def answer(runner: StepRunner, bells: Bells) -> None:
    """One bell after the other, as the queue's threads do; a full process lets them wait."""
    while True:
        if bells.rung and runner.offer(bells.rung[0]):
            bells.rung.popleft()
        await asyncio.sleep(0)


def test_a_look_costs_no_more_where_more_is_ready(sqlite_url: str) -> None:
    with opened(sqlite_url) as hand:
        plans: list[str] = []

        def explain(tx: Any) -> None:
            for statement in (_OF_WORKFLOW, _WORKFLOWS):
                sql, fixed = statement.ready("sqlite")
                given = {**fixed, "priority": "normal", "workflow": "w", "after": "", "most": 1}
                found = tx._connection.execute(f"EXPLAIN QUERY PLAN {sql}", given).fetchall()
                plans.append(" ".join(str(row) for row in found))

        hand.do(explain)
        for plan in plans:
            assert "ix_steps_ready" in plan and "SCAN steps" not in plan and "TEMP B-TREE" not in plan, plan
