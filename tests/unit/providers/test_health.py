import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.health import COOL_S, LONGEST_COOL_S, LONGEST_REFUSED_S, PROBE_S, Health, Turn
from providers.provider import ProviderConfig
from providers.routing import Candidate
from providers.simulated import SimulatedProvider

FIRST, SECOND = (Candidate(SimulatedProvider(ProviderConfig(name, "simulated")), "echo") for name in "ab")
BROKEN = ProviderError(ErrorClass.SERVER_ERROR, "broken", status=500)


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> int:
        return round(self.now * 1_000_000)


@dataclass
class Room:
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.health = Health(self.clock)

    def fails(self, candidate: Candidate = FIRST, error: ProviderError = BROKEN, times: int = 1) -> None:
        for _ in range(times):
            self.health.failed(candidate, error, self.clock())

    async def turn(self, candidate: Candidate = FIRST) -> Turn:
        return await self.health.turn_of(candidate)

    @property
    def pause_s(self) -> float:
        [rest] = self.health.rests
        return (rest.until_us - rest.since_us) / 1_000_000


def in_room(use: Callable[[Room], Awaitable[None]]) -> None:
    async def main() -> None:
        await use(Room())

    asyncio.run(main())


def test_three_failures_in_a_row_make_it_rest_and_one_call_may_try_it_then() -> None:
    async def use(room: Room) -> None:
        room.fails(times=2)
        room.health.succeeded(FIRST, room.clock())
        room.fails(times=2)
        assert await room.turn() is Turn.FREE
        room.fails()
        assert (await room.turn(), await room.turn(SECOND)) == (Turn.LATER, Turn.FREE)
        room.clock.now += COOL_S
        assert [await room.turn() for _ in range(3)] == [Turn.PROBE, Turn.LATER, Turn.LATER]
        room.health.answered(FIRST, room.clock())
        assert [await room.turn() for _ in range(2)] == [Turn.FREE, Turn.FREE]

    in_room(use)


def test_failed_probes_rest_twice_as_long_from_the_first_minute_on_up_to_five() -> None:
    async def use(room: Room) -> None:
        room.fails(times=3)
        pauses = [room.pause_s]
        for _ in range(11):
            room.clock.now += room.pause_s
            assert await room.turn() is Turn.PROBE
            room.fails()
            assert await room.turn() is Turn.LATER
            pauses.append(room.pause_s)
        assert pauses == [*[10] * 6, 20, 40, 80, 160, LONGEST_COOL_S, LONGEST_COOL_S]

    in_room(use)


def test_a_probe_that_tells_nothing_is_for_somebody_else() -> None:
    async def use(room: Room) -> None:
        room.fails(times=3)
        room.clock.now += COOL_S
        assert await room.turn() is Turn.PROBE
        room.health.gave_up(FIRST)
        assert await room.turn() is Turn.PROBE
        room.clock.now += PROBE_S  # whoever had it died
        assert await room.turn() is Turn.PROBE

    in_room(use)


def test_retry_after_sets_the_pause_within_bounds() -> None:
    async def use(room: Room) -> None:
        room.fails(error=ProviderError(ErrorClass.RATE_LIMIT, "later", status=429, retry_after_s=60))
        assert room.pause_s == 60
        room.clock.now += 59
        assert await room.turn() is Turn.LATER
        room.clock.now += 1
        assert await room.turn() is Turn.PROBE
        room.fails(error=ProviderError(ErrorClass.RATE_LIMIT, "later", status=429, retry_after_s=86_400))
        assert room.pause_s == LONGEST_COOL_S

    in_room(use)


def test_a_key_or_a_quota_that_is_refused_rests_at_once() -> None:
    async def use(room: Room) -> None:
        room.fails(SECOND, ProviderError(ErrorClass.QUOTA, "no", status=429))
        assert await room.turn(SECOND) is Turn.LATER
        room.health.succeeded(SECOND, room.clock())
        for pause in (*[10] * 6, 20, 40, LONGEST_REFUSED_S, LONGEST_REFUSED_S):
            room.fails(FIRST, ProviderError(ErrorClass.AUTH, "no", status=401))
            assert (await room.turn(FIRST), room.pause_s) == (Turn.LATER, pause)
            room.clock.now += pause
            assert await room.turn(FIRST) is Turn.PROBE

    in_room(use)


def test_what_the_caller_did_wrong_shows_that_it_works() -> None:
    async def use(room: Room) -> None:
        wrong = ProviderError(ErrorClass.INVALID_REQUEST, "wrong", status=400)
        room.fails(error=wrong, times=10)
        assert await room.turn() is Turn.FREE
        room.fails(times=3)
        room.clock.now += COOL_S
        assert await room.turn() is Turn.PROBE
        room.fails(error=wrong)
        assert await room.turn() is Turn.FREE

    in_room(use)


def test_calls_from_before_a_rest_say_nothing_about_it() -> None:
    async def use(room: Room) -> None:
        before = room.clock()
        room.clock.now += 1
        room.fails(times=3)
        room.health.succeeded(FIRST, before)
        assert await room.turn() is Turn.LATER
        room.health.failed(FIRST, BROKEN, before)
        assert room.pause_s == COOL_S

    in_room(use)


def test_a_sole_candidate_that_fails_while_it_rests_rests_no_longer_for_it() -> None:
    async def use(room: Room) -> None:
        room.fails(times=3)
        for _ in range(5):
            room.clock.now += 1
            room.fails()
        [rest] = room.health.rests
        assert (rest.trips, room.pause_s) == (1, COOL_S)
        room.clock.now += COOL_S
        room.fails()
        assert (room.health.rests[0].trips, room.pause_s) == (2, COOL_S)

    in_room(use)
