"""The runner with executors that wait to be told: bounds, stops, drains, and what an executor's mistakes come to."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_hand import ONE_STEP, Hand, intent_of, opened, settled

from engine.clock import now_us
from engine.errors import BudgetExceeded, RetryableError, UserError
from engine.ports import Failed, Job, Outcome, Sleeping, Succeeded
from engine.states import ErrorClass
from engine.store.database import Row, Tx
from engine.store.runs import list_runs
from engine.store.whole_runs import whole_run
from worker import housekeeping
from worker.holdings import Holdings
from worker.housekeeping import Sweeper
from worker.neighbours import Neighbours
from worker.runner import StepLimits, StepRunner

WIDE = "name: wide\nsteps:\n" + "".join(f"  - {{id: s{n}, type: set, value: 1, needs: []}}\n" for n in range(12))
TIMED = "name: timed\nsteps:\n  - {id: only, type: set, value: 1, timeout: 100ms, retry: {max_attempts: 1}}\n"
NAP = "name: nap\nsteps:\n  - {id: nap, type: sleep, duration: DURATION}\n"
GUARDED = 'name: guarded\nsteps:\n  - {id: only, type: set, value: 1, if: "${input.go}"}\n'


class Bells:
    """A doorbell that remembers."""

    def __init__(self) -> None:
        self.rung: list[str] = []

    def ended(self, run_id: str) -> None:
        """Nobody waits."""

    def ring(self, step_id: str, priority: str) -> None:
        self.rung.append(step_id)


class Told:
    """An executor whose steps stay under way until they are let go."""

    def __init__(self, outcome: Callable[[Job], Any] = lambda job: Succeeded(job.key)) -> None:
        self.under_way: dict[str, asyncio.Event] = {}
        self.stopped: list[str] = []
        self.most = 0
        self.changed = asyncio.Event()
        self._outcome = outcome

    async def execute(self, job: Job) -> Outcome:
        go = self.under_way[job.key] = asyncio.Event()
        self.most = max(self.most, len(self.under_way))
        self.changed.set()
        try:
            await go.wait()
        except asyncio.CancelledError:
            self.stopped.append(job.key)
            raise
        finally:
            del self.under_way[job.key]
            self.changed.set()
        return self._outcome(job)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class At:
    """An executor that does one thing."""

    def __init__(self, action: Callable[[Job], Awaitable[Outcome]]) -> None:
        self.execute = action


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        hand.now = now_us()
        yield hand


def runner_of(hand: Hand, executor: Any, bells: Bells, *, concurrency: int = 8) -> StepRunner:
    limits = StepLimits("w1", concurrency)
    return StepRunner(hand.database, hand.catalogue, bells, {"set": executor}, limits)


def holdings_of(hand: Hand, runner: StepRunner, bells: Bells) -> Holdings:
    return Holdings(hand.database, hand.catalogue, bells, runner, "w1")


def sweeper_of(hand: Hand, runner: StepRunner, bells: Bells, folder: Path) -> Sweeper:
    return Sweeper(hand.database, hand.catalogue, bells, runner, neighbours=Neighbours(hand.database, "w1", folder))


def _runs(tx: Tx) -> list[Row]:
    return list_runs(tx, {}, 10)


async def idle(runner: StepRunner) -> None:
    async with asyncio.timeout(10):
        while runner._tasks:
            await asyncio.wait(runner._tasks)


def execute(hand: Hand, source: str, action: Callable[[Job], Awaitable[Outcome]], given: Any = None) -> str:
    """Runs the first step of a run with that action; the run's id."""
    submitted = hand.submit(source, given)

    async def run() -> None:
        runner = runner_of(hand, At(action), Bells())
        assert runner.offer(submitted.rings[0].step_id)
        await idle(runner)
        await runner.drain(0)

    asyncio.run(run())
    return submitted.run["id"]


def test_no_more_steps_than_the_bound_and_bells_wait_outside(hand: Hand) -> None:
    rings = [ring.step_id for ring in hand.submit(WIDE).rings]

    async def run() -> None:
        executor = Told()
        runner = runner_of(hand, executor, Bells(), concurrency=5)
        threads = [threading.Thread(target=runner.answer, args=(step_id,)) for step_id in rings]
        for thread in threads:
            thread.start()
        await executor.until(lambda: len(executor.under_way) == 5)
        assert not runner.offer(rings[0])
        assert sum(thread.is_alive() for thread in threads) == len(rings) - 5
        for _ in rings:
            await executor.until(lambda: bool(executor.under_way))
            next(iter(executor.under_way.values())).set()
            await asyncio.sleep(0)
        await executor.until(lambda: not executor.under_way)
        for thread in threads:
            await asyncio.to_thread(thread.join, 10)
        await idle(runner)
        assert executor.most == 5

    asyncio.run(run())
    assert hand.do(lambda tx: [row["status"] for row in _runs(tx)]) == ["succeeded"]


def test_cancelling_a_run_stops_what_it_has_under_way_once(hand: Hand) -> None:
    submitted = hand.submit(WIDE)
    other = hand.submit(ONE_STEP)

    async def run() -> Told:
        executor = Told()
        bells = Bells()
        runner = runner_of(hand, executor, bells, concurrency=20)
        sweeping = asyncio.create_task(holdings_of(hand, runner, bells).run())
        for ring in (*submitted.rings, *other.rings):
            runner.offer(ring.step_id)
        await executor.until(lambda: len(executor.under_way) == 13)
        await asyncio.to_thread(hand.cancel, submitted.run["id"])
        async with asyncio.timeout(2):
            await executor.until(lambda: len(executor.under_way) == 1)
        executor.under_way["only"].set()
        await idle(runner)
        sweeping.cancel()
        return executor

    executor = asyncio.run(run())
    assert sorted(executor.stopped) == sorted(f"s{number}" for number in range(12))
    assert hand.run(other.run["id"])["status"] == "succeeded"
    assert {row["status"] for row in hand.attempts(submitted.run["id"])} == {"cancelled"}


def test_a_step_that_was_taken_over_stops_and_what_it_spent_is_booked(hand: Hand) -> None:
    submitted = hand.submit(ONE_STEP)
    run_id = submitted.run["id"]
    hand.enter_worker("w1")
    spent: list[str] = []

    async def run() -> None:
        started = asyncio.Event()

        async def call(job: Job) -> Outcome:
            runner_held = runner.in_flight[job.step_id].held
            intent = intent_of(runner_held, now_us())
            await job.book.open(intent)
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await job.book.settle(settled(intent.id, now_us(), 40))
                spent.append(intent.id)
                raise
            return Succeeded("never")

        bells = Bells()
        runner = runner_of(hand, At(call), bells)
        runner.offer(submitted.rings[0].step_id)
        async with asyncio.timeout(10):
            await started.wait()
        await asyncio.to_thread(hand.bury, "w1")
        await asyncio.to_thread(hand.claim, run_id, "only", "w2")
        await holdings_of(hand, runner, bells).compare()
        await idle(runner)
        assert bells.rung == []

    asyncio.run(run())
    [row] = hand.do(lambda tx: whole_run(tx, run_id).calls)
    assert (row["id"], row["cost_picousd"]) == (spent[0], 40)
    assert hand.step(run_id, "only")["worker_id"] == "w2"


def test_a_step_that_is_stopping_is_not_stopped_again(hand: Hand) -> None:
    """Closing an upstream call takes a while; each sweep meanwhile sees the step as lost."""
    submitted = hand.submit(ONE_STEP)
    stopped: list[str] = []

    async def run() -> None:
        started, closing, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def call(job: Job) -> Outcome:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                closing.set()
                await closed.wait()
                stopped.append("in peace")
            return Succeeded("never")

        bells = Bells()
        runner = runner_of(hand, At(call), bells)
        holdings = holdings_of(hand, runner, bells)
        runner.offer(submitted.rings[0].step_id)
        async with asyncio.timeout(10):
            await started.wait()
            await asyncio.to_thread(hand.cancel, submitted.run["id"])
            for _ in range(3):
                await holdings.compare()
                await closing.wait()
            [entry] = runner.in_flight.values()
            draining = asyncio.create_task(runner.drain(0))
            for _ in range(100):
                await asyncio.sleep(0)
            assert "draining" in entry.reasons
            closed.set()
            await draining

    asyncio.run(run())
    assert stopped == ["in peace"]


def test_a_settlement_that_comes_behind_the_end_is_booked_too(hand: Hand) -> None:
    """A call that was being opened when its step ended is settled by whoever opened it, later."""
    late: list[asyncio.Task[None]] = []

    async def call(job: Job) -> Outcome:
        assert runner is not None
        intent = intent_of(runner.in_flight[job.step_id].held, now_us())
        await job.book.open(intent)

        async def settle_later() -> None:
            await ended.wait()
            await job.book.settle(settled(intent.id, now_us(), 40))

        late.append(asyncio.create_task(settle_later()))
        return Succeeded(1)

    submitted = hand.submit(ONE_STEP)
    runner: StepRunner | None = None
    ended = asyncio.Event()

    async def run() -> None:
        nonlocal runner
        runner = runner_of(hand, At(call), Bells())
        runner.offer(submitted.rings[0].step_id)
        await idle(runner)
        ended.set()
        await late[0]

    asyncio.run(run())
    [row] = hand.do(lambda tx: whole_run(tx, submitted.run["id"]).calls)
    assert (row["status"], row["cost_picousd"]) == ("succeeded", 40)


@pytest.mark.parametrize("grace_s", [0.0, 0.2])
def test_drain_lets_go_of_what_does_not_finish_and_counts_nothing(hand: Hand, grace_s: float) -> None:
    rings = [ring.step_id for ring in hand.submit(WIDE).rings]
    bells = Bells()

    async def run() -> Told:
        executor = Told()
        runner = runner_of(hand, executor, bells, concurrency=20)
        for step_id in rings[:6]:
            runner.offer(step_id)
        await executor.until(lambda: len(executor.under_way) == 6)
        for step_id in rings[6:9]:
            runner.offer(step_id)  # their claims are under way when the drain begins
        draining = asyncio.create_task(runner.drain(grace_s))
        await asyncio.sleep(0)
        if grace_s:
            executor.under_way["s0"].set()
        assert not runner.offer(rings[11])
        runner.answer(rings[11])
        async with asyncio.timeout(5):
            await draining
        assert not runner.in_flight
        return executor

    executor = asyncio.run(run())
    [run_row] = hand.do(_runs)
    rows = hand.steps(run_row["id"])
    done = {"s0"} if grace_s else set()
    assert {key for key, row in rows.items() if row["status"] == "succeeded"} == done
    assert {row["status"] for key, row in rows.items() if key not in done} == {"ready"}
    assert all(row["tries"] == row["losses"] == 0 for row in rows.values())
    attempts = hand.attempts(run_row["id"])
    returned = [row["step_id"] for row in attempts if row["status"] == "returned"]
    assert sorted(bells.rung) == sorted(returned)
    assert {rows[key]["id"] for key in executor.stopped} <= set(returned)
    assert len(attempts) == 9
    assert len(returned) == 9 - len(done)


class Odd(Exception):
    """What no executor should raise."""


@pytest.mark.parametrize(
    ("error", "error_class", "message", "retried"),
    [
        (Odd("broken \ud800"), "internal", "Odd: broken ?", False),
        (RecursionError("deep"), "internal", "RecursionError: deep", False),
        (UserError("wrong", "the field is wrong"), "invalid_request", "the field is wrong", False),
        (RetryableError("later", "try later"), "connection", "try later", True),
        (asyncio.CancelledError(), "internal", "the executor cancelled itself", False),
    ],
)
def test_whatever_an_executor_raises_becomes_an_outcome(
    hand: Hand, error: BaseException, error_class: str, message: str, retried: bool
) -> None:
    async def fail(job: Job) -> Outcome:
        raise error

    run_id = execute(hand, ONE_STEP, fail)
    row = hand.step(run_id, "only")
    assert (row["error_class"], row["error_message"]) == (error_class, message)
    assert row["status"] == ("waiting" if retried else "failed")


def test_a_refused_budget_pauses_the_run(hand: Hand) -> None:
    async def dear(job: Job) -> Outcome:
        raise BudgetExceeded("too dear")

    run_id = execute(hand, ONE_STEP, dear)
    assert (hand.run(run_id)["pause_reason"], hand.statuses(run_id)) == ("budget_exceeded", {"only": "ready"})


def test_a_type_without_executor_fails_its_step(hand: Hand) -> None:
    submitted = hand.submit(ONE_STEP)

    async def run() -> None:
        runner = StepRunner(hand.database, hand.catalogue, Bells(), {}, StepLimits("w1", 1))
        runner.offer(submitted.rings[0].step_id)
        await idle(runner)

    asyncio.run(run())
    assert hand.view(submitted.run["id"])["error"]["class"] == "internal"


def test_a_result_that_cannot_be_stored_fails_its_step_and_nothing_hangs(hand: Hand) -> None:
    async def odd(job: Job) -> Outcome:
        return Succeeded(object())

    run_id = execute(hand, ONE_STEP, odd)
    error = hand.view(run_id)["error"]
    assert (error["class"], error["message"]) == ("internal", "the result could not be stored: TypeError")


def test_an_attempt_has_its_time_and_no_more(hand: Hand) -> None:
    async def forever(job: Job) -> Outcome:
        await asyncio.Event().wait()
        return Succeeded(1)

    run_id = execute(hand, TIMED, forever)
    assert hand.view(run_id)["error"] == {"step": "only", "class": "timeout", "message": "no result within 0.1 s"}


@pytest.mark.parametrize(("go", "status"), [(True, "succeeded"), (False, "skipped"), ("yes", "failed")])
def test_a_guard_decides_and_must_be_a_boolean(hand: Hand, go: object, status: str) -> None:
    async def answer(job: Job) -> Outcome:
        return Succeeded(1)

    run_id = execute(hand, GUARDED, answer, {"go": go})
    assert hand.statuses(run_id) == {"only": status}


def test_an_outcome_of_failure_waits_for_its_retry(hand: Hand) -> None:
    async def slow(job: Job) -> Outcome:
        return Failed(ErrorClass.RATE_LIMIT, "later", retry_after_s=30)

    run_id = execute(hand, ONE_STEP, slow)
    row = hand.step(run_id, "only")
    assert row["status"] == "waiting"
    assert row["due_us"] > now_us() + 20_000_000


def test_a_claim_whose_answer_was_lost_is_found_by_the_sweeper(hand: Hand) -> None:
    submitted = hand.submit(ONE_STEP)

    async def run() -> None:
        executor = Told()
        bells = Bells()
        runner = runner_of(hand, executor, bells)
        await asyncio.to_thread(hand.claim, submitted.run["id"], "only", "w1")  # committed, and nobody was told
        holdings = holdings_of(hand, runner, bells)
        await holdings.compare()
        assert not runner.in_flight
        await holdings.compare()
        await executor.until(lambda: "only" in executor.under_way)
        await holdings.compare()
        await holdings.compare()
        executor.under_way["only"].set()
        await idle(runner)

    asyncio.run(run())
    assert hand.run(submitted.run["id"])["status"] == "succeeded"
    assert [row["status"] for row in hand.attempts(submitted.run["id"])] == ["lost", "succeeded"]


def test_a_step_whose_bell_was_lost_is_taken_and_no_bell_is_added(hand: Hand, tmp_path: Path) -> None:
    hand.now = now_us() - 5_000_000
    rings = [ring.step_id for ring in hand.submit(WIDE).rings]

    async def run() -> None:
        executor = Told()
        bells = Bells()
        runner = runner_of(hand, executor, bells, concurrency=4)
        sweeper = sweeper_of(hand, runner, bells, tmp_path)
        await sweeper.sweep()
        await executor.until(lambda: len(executor.under_way) == 4)
        await sweeper.sweep()
        assert bells.rung == []
        await runner.drain(0)
        assert len(bells.rung) == 4

    asyncio.run(run())
    assert len(rings) == 12


def test_timers_that_run_out_between_two_sweeps_do_not_wait_for_the_next(
    hand: Hand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "SWEEP_EVERY_S", 60)
    seconds = (0.3, 0.5)
    naps = [hand.start(NAP.replace("DURATION", f"{each}s")) for each in seconds]
    hand.now = now_us()
    for run_id, each in zip(naps, seconds, strict=True):
        hand.complete(hand.claim(run_id, "nap"), Sleeping(each))

    async def run() -> None:
        runner = runner_of(hand, Told(), Bells())
        sweeping = asyncio.create_task(sweeper_of(hand, runner, Bells(), tmp_path).run())
        async with asyncio.timeout(20):
            while any(row["status"] != "succeeded" for row in await hand.database.read(_runs)):
                await runner.run_ended.wait()
                runner.run_ended.clear()
        sweeping.cancel()

    asyncio.run(run())
