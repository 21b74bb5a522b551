"""Waiting for runs: however many wait, the database is asked by one at a time, and each is told of its own run."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stage import Stage

from api.run_watch import TICK_S, RunWatch
from engine.clock import now_us
from engine.control import cancel, pause
from engine.errors import NotFound
from worker.run_ends import EndTeller, hear_ends

WAITS = "name: waits\nsteps:\n  - {id: hold, type: wait, signal: go}\n"
MANY = 250


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    stage = Stage(database_url)
    yield stage
    stage.database.close()


class Counted:
    """The database, with its readings counted."""

    def __init__(self, stage: Stage) -> None:
        self._database = stage.database
        self.reads = 0
        self.all_wait = asyncio.Event()

    async def read(self, work: Callable[[Any], Any]) -> Any:
        self.reads += 1
        if self.reads > MANY:
            self.all_wait.set()
        return await self._database.read(work)


def test_many_waiters_are_one_question_at_a_time(stage: Stage) -> None:
    ids = [stage.submit(WAITS) for _ in range(MANY)]
    counted = Counted(stage)

    async def play() -> list[str]:
        watch = RunWatch(counted, asyncio.Event())  # type: ignore[arg-type]
        waiting = [asyncio.create_task(watch.end_of(run_id, 30)) for run_id in ids]
        await counted.all_wait.wait()
        begun, before = time.monotonic(), counted.reads
        await asyncio.sleep(0.6)
        assert counted.reads - before <= (time.monotonic() - begun) / TICK_S + 1
        for run_id in ids:
            await stage.database.write(lambda tx, one=run_id: cancel(tx, stage.catalogue, one, now_us()))
        return [run["status"] for run in await asyncio.gather(*waiting)]

    assert asyncio.run(play()) == ["cancelled"] * MANY


def test_an_end_a_pause_a_change_and_a_limit_are_told_apart(stage: Stage) -> None:
    ended, paused, still = (stage.submit(WAITS) for _ in range(3))

    async def play() -> None:
        watch = RunWatch(stage.database, asyncio.Event())
        begun = time.monotonic()
        assert (await watch.end_of(still, 0.2))["status"] == "queued"
        assert time.monotonic() - begun >= 0.2
        seen = (await watch.run(paused))["event_seq"]
        assert not await watch.changed(paused, seen, 0.1)
        waiting = [asyncio.create_task(watch.end_of(run_id, 30)) for run_id in (ended, paused)]
        change = asyncio.create_task(watch.changed(paused, seen, 30))
        await stage.database.write(lambda tx: cancel(tx, stage.catalogue, ended, now_us()))
        await stage.database.write(lambda tx: pause(tx, stage.catalogue, paused, now_us()))
        assert [run["status"] for run in await asyncio.gather(*waiting)] == ["cancelled", "paused"]
        assert await change
        with pytest.raises(NotFound):
            await watch.end_of("none", 1)

    asyncio.run(play())


def test_whoever_waits_is_answered_when_the_process_ends(stage: Stage) -> None:
    run_id = stage.submit(WAITS)

    async def play() -> None:
        closing = asyncio.Event()
        watch = RunWatch(stage.database, closing)
        waiting = asyncio.create_task(watch.end_of(run_id, 60))
        await asyncio.sleep(0.05)
        closing.set()
        async with asyncio.timeout(5):
            assert (await waiting)["status"] == "queued"

    asyncio.run(play())


def test_an_end_that_is_told_is_not_waited_for(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a worker tells it over its socket; the next look at the database would be minutes away."""
    monkeypatch.setattr("api.run_watch._END_LOOK_S", 300.0)
    run_id = stage.submit(WAITS)

    async def play() -> str:
        watch = RunWatch(stage.database, asyncio.Event())
        teller = EndTeller(tmp_path)
        teller.tell(run_id)  # nobody listens yet: nothing happens
        with hear_ends(tmp_path, watch.ended):
            waiting = asyncio.create_task(watch.told_at_end(run_id, 300, lambda _, run: run["status"], just_made=True))
            await stage.database.write(lambda tx: cancel(tx, stage.catalogue, run_id, now_us()))
            for told in ("another", run_id):
                teller.tell(told)
            async with asyncio.timeout(10):
                status = await waiting
        teller.close()
        return status

    assert asyncio.run(play()) == "cancelled"
    assert list(tmp_path.glob("api.ends")) == []
