"""A worker that goes straight on: the step that its own step unlocked is claimed with that one's end."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from engine_hand import CHAIN, Hand, opened
from sqlalchemy import delete

from engine.clock import now_us
from engine.ports import Job, Outcome, Succeeded
from engine.store.statements import Statement
from engine.store.tables import payloads
from engine.submission import Submitted
from worker.runner import StepLimits, StepRunner

THIRD_READS_FIRST = """
name: reads
steps:
  - {id: first, type: set, value: 1}
  - {id: second, type: set, value: 2}
  - {id: third, type: set, value: "${steps.first.output}"}
"""
FORGET_PAYLOADS = Statement(delete(payloads))


class Bells:
    """A doorbell that remembers."""

    def __init__(self) -> None:
        self.rung: list[str] = []
        self.told: list[str] = []

    def ended(self, run_id: str) -> None:
        self.told.append(run_id)

    def ring(self, step_id: str, priority: str) -> None:
        self.rung.append(step_id)


class At:
    """An executor that does one thing."""

    def __init__(self, action: Callable[[Job], Awaitable[Outcome]]) -> None:
        self.execute = action


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        hand.now = now_us()
        yield hand


def go(hand: Hand, submitted: Submitted, action: Callable[[Job], Awaitable[Outcome]]) -> tuple[StepRunner, Bells]:
    """Let a worker loose on a run's first step until it has nothing more to do; the worker, and what it rang and told."""

    async def run() -> tuple[StepRunner, Bells]:
        bells = Bells()
        limits = StepLimits("w1", 1)
        runner = StepRunner(hand.database, hand.catalogue, bells, {"set": At(action)}, limits)
        assert runner.offer(submitted.rings[0].step_id)
        async with asyncio.timeout(10):
            while runner._tasks:
                await asyncio.wait(runner._tasks)
        return runner, bells

    return asyncio.run(run())


async def answer(job: Job) -> Outcome:
    return Succeeded(job.key)


def test_a_run_goes_straight_on_with_its_next_step_and_tells_when_it_ends(hand: Hand) -> None:
    submitted = hand.submit(CHAIN)
    runner, bells = go(hand, submitted, answer)
    assert bells.rung == []
    assert bells.told == [submitted.run["id"]]
    assert not runner.run_ended.is_set()  # nobody is to be sent a webhook
    assert hand.view(submitted.run["id"])["output"] == "third"
    assert go(hand, hand.submit(CHAIN, webhook_url="http://example.com/"), answer)[0].run_ended.is_set()


def test_several_next_steps_are_rung_for_others(hand: Hand) -> None:
    source = "name: fan\nsteps:\n  - {id: a, type: set, value: 1}\n" + "".join(
        f"  - {{id: {key}, type: set, value: 1, needs: [a]}}\n" for key in "bc"
    )
    submitted = hand.submit(source)
    _, bells = go(hand, submitted, answer)
    rows = hand.steps(submitted.run["id"])
    assert sorted(bells.rung) == sorted([rows["b"]["id"], rows["c"]["id"]])


def test_a_next_step_that_cannot_be_claimed_takes_no_result_along(hand: Hand) -> None:
    async def forgetful(job: Job) -> Outcome:
        if job.key == "first":
            return Succeeded("x" * 5000)
        await hand.database.write(lambda tx: tx.run(FORGET_PAYLOADS))
        return Succeeded(2)

    submitted = hand.submit(THIRD_READS_FIRST)
    _, bells = go(hand, submitted, forgetful)
    run_id = submitted.run["id"]
    assert hand.statuses(run_id) == {"first": "succeeded", "second": "succeeded", "third": "ready"}
    assert bells.rung == [hand.step(run_id, "third")["id"]]
