"""Rests shared through the database: two processes' worth of `Health` on one board, on both databases."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from engine.errors import RetryableError
from engine.provider_health import HealthBoard, health_view
from engine.states import ErrorClass
from engine.store.database import Database
from engine.store.revision import bring_up_to_date
from providers import health as health_module
from providers.errors import ProviderError
from providers.health import COOL_S, Health, Turn
from providers.provider import ProviderConfig
from providers.routing import Candidate
from providers.simulated import SimulatedProvider

FIRST = Candidate(SimulatedProvider(ProviderConfig("a", "simulated")), "echo")
BROKEN = ProviderError(ErrorClass.OVERLOADED, "full\0", status=503)


class Pair:
    """Two processes with one clock and one database."""

    def __init__(self, database: Database) -> None:
        self.now = time.time()
        self.board = HealthBoard(database)
        self.database = database
        self.one, self.other = Health(self.clock), Health(self.clock)
        for process in (self.one, self.other):
            process.share(self.board)

    def clock(self) -> int:
        return round(self.now * 1_000_000)

    async def look(self) -> None:
        await self.one.drain()
        for process in (self.one, self.other):
            process._looked = float("-inf")  # pyright: ignore[reportPrivateUsage] - a second has passed
            await process.look()

    async def turns(self) -> list[Turn]:
        return [await process.turn_of(FIRST) for process in (self.one, self.other)]

    def fail(self) -> None:
        for _ in range(3):
            self.one.failed(FIRST, BROKEN, self.clock())


def of_pair(url: str, use: Callable[[Pair], Awaitable[None]]) -> None:
    bring_up_to_date(url)
    database = Database(url)

    async def main() -> None:
        pair = Pair(database)
        await use(pair)
        await pair.one.drain()
        await pair.other.drain()

    try:
        asyncio.run(main())
    finally:
        database.close()


def test_one_process_tells_and_all_keep_away_until_one_of_them_finds_it_well(database_url: str) -> None:
    async def use(pair: Pair) -> None:
        pair.fail()
        await pair.look()
        assert await pair.turns() == [Turn.LATER, Turn.LATER]
        [row] = await pair.database.read(lambda tx: health_view(tx, pair.clock()))
        assert (row["provider"], row["model"], row["state"], row["error"]) == ("a", "echo", "cooling", "full")
        pair.now += COOL_S
        assert await pair.turns() == [Turn.PROBE, Turn.LATER]
        [row] = await pair.database.read(lambda tx: health_view(tx, pair.clock()))
        assert row["state"] == "probing"
        pair.one.answered(FIRST, pair.clock())
        await pair.look()
        assert await pair.turns() == [Turn.FREE, Turn.FREE]
        assert await pair.board.read() == []

    of_pair(database_url, use)


def test_only_one_of_many_probes_at_the_same_moment(database_url: str) -> None:
    async def use(pair: Pair) -> None:
        pair.fail()
        await pair.look()
        many = [Health(pair.clock) for _ in range(8)]
        for process in many:
            process.share(pair.board)
            await process.look()
        pair.now += COOL_S
        turns = await asyncio.gather(*(process.turn_of(FIRST) for process in many))
        assert sorted(turn.name for turn in turns) == ["LATER"] * 7 + ["PROBE"]
        many[turns.index(Turn.PROBE)].gave_up(FIRST)
        await many[turns.index(Turn.PROBE)].drain()
        assert await pair.other.turn_of(FIRST) is Turn.PROBE

    of_pair(database_url, use)


def test_a_failed_probe_is_told_too(database_url: str) -> None:
    async def use(pair: Pair) -> None:
        pair.fail()
        await pair.look()
        pair.now += COOL_S
        assert await pair.other.turn_of(FIRST) is Turn.PROBE
        pair.other.failed(FIRST, BROKEN, pair.clock())
        await pair.other.drain()
        await pair.look()
        pair.now += COOL_S - 1
        assert await pair.turns() == [Turn.LATER, Turn.LATER]
        [rest] = await pair.board.read()
        assert rest.trips == 2

    of_pair(database_url, use)


def test_a_healthy_process_writes_nothing_and_a_lost_database_stops_nobody(database_url: str) -> None:
    class Broken(HealthBoard):
        async def _gone(self, *_: Any) -> Any:
            raise RetryableError("database_unavailable", "gone")

        read = rest = heal = take_probe = free_probe = _gone

    async def use(pair: Pair) -> None:
        for _ in range(100):
            pair.one.succeeded(FIRST, pair.clock())
        assert await pair.board.read() == []
        alone = Health(pair.clock)
        alone.share(Broken(pair.database))
        await alone.look()
        for _ in range(3):
            alone.failed(FIRST, BROKEN, pair.clock())
        await alone.drain()
        assert await alone.turn_of(FIRST) is Turn.LATER
        pair.now += COOL_S
        assert await alone.turn_of(FIRST) is Turn.PROBE

    of_pair(database_url, use)


def test_a_provider_that_became_another_rests_no_longer_anywhere(database_url: str) -> None:
    """What was under way at the old one says nothing of the new one."""

    async def use(pair: Pair) -> None:
        pair.fail()
        began = pair.clock()
        await pair.look()
        assert await pair.turns() == [Turn.LATER, Turn.LATER]
        pair.now += 0.1
        pair.one.forget(["a", "never heard of"])
        await pair.look()
        assert await pair.turns() == [Turn.FREE, Turn.FREE] and await pair.board.read() == []
        for _ in range(3):
            pair.one.failed(FIRST, BROKEN, began)
        assert await pair.turns() == [Turn.FREE, Turn.FREE]
        pair.now += 0.1
        pair.fail()
        await pair.look()
        assert await pair.turns() == [Turn.LATER, Turn.LATER]

    of_pair(database_url, use)


def test_nobody_looks_more_than_once_a_second(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []

    async def use(pair: Pair) -> None:
        class Counting(HealthBoard):
            async def read(self):
                reads.append(1)
                return await super().read()

        process = Health(pair.clock)
        process.share(Counting(pair.database))
        for _ in range(1000):
            await process.look()
        assert len(reads) == 1
        monkeypatch.setattr(health_module, "LOOK_EVERY_S", 0.0)
        await process.look()
        await process.drain()
        assert len(reads) == 2

    of_pair(database_url, use)
