"""Cool-downs by provider and model: who failed again and again, or said "later", is asked last, and then tried by one call first.

A candidate rests after three failures in a row as one process counts them, and at once where it names a time (429 with
Retry-After, which sets the pause) or refuses this installation (key, quota). While it rests it comes behind all others; a sole
candidate is always tried. When its rest is over one call at a time, over all processes, may try it: if that works it is back,
if not it rests again, and for longer once an outage lasts. Rests are shared through a board (`engine.provider_health`): what changes is told there
beside the calls, and what others told is looked up about once a second, only while there are calls with a choice.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from enum import Enum
from typing import Protocol

import structlog

from engine.clock import Clock, now_us
from engine.errors import AIGatewayError
from engine.provider_health import Rest
from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.routing import Candidate

log = structlog.get_logger(__name__)

FAILURES_BEFORE_COOLING = 3
COOL_S = 10.0
SHORT_RESTS = 6
LONGEST_COOL_S = 300.0
LONGEST_REFUSED_S = 60.0  # a key or a quota is mended by a person, who wants to see it work
LOOK_EVERY_S = 1.0
PROBE_S = 30.0  # what a probe whose process died costs at most
_WORTH_WAITING_S = 3.0  # what is known is older than this only where nothing was asked for a while
_LONGEST_LOOK_S = 0.5
_WORTH_TELLING_US = 1_000_000
_REMEMBERED = 1024  # model names come from requests: their number has no bound of its own
_ERROR_SHOWN = 300
_COUNTED = frozenset(
    {
        ErrorClass.OVERLOADED,
        ErrorClass.TIMEOUT,
        ErrorClass.CONNECTION,
        ErrorClass.SERVER_ERROR,
        ErrorClass.RATE_LIMIT,
    }
)
_REFUSES_US = frozenset({ErrorClass.AUTH, ErrorClass.QUOTA})
Key = tuple[str, str]


class Board(Protocol):
    """Where processes tell one another (`engine.provider_health.HealthBoard`). All methods raise AIGatewayError where they cannot."""

    async def read(self) -> Sequence[Rest]:
        """All that rest, and those that wait for their probe."""
        ...

    async def rest(self, rest: Rest) -> None:
        """This candidate rests from now on."""
        ...

    async def heal(self, provider: str, model: str) -> None:
        """This candidate works again."""
        ...

    async def take_probe(self, provider: str, model: str, now: int, until_us: int) -> bool:
        """Whether the caller is the one that tries it now."""
        ...

    async def free_probe(self, provider: str, model: str, until_us: int) -> None:
        """The caller gave up before it knew."""
        ...

    async def forget(self, provider: str) -> None:
        """Nothing is known of the models of this provider any more."""
        ...


class Turn(Enum):
    """What a candidate may be asked now."""

    FREE = "free"
    PROBE = "probe"  # once: whoever asks finds out whether it works again
    LATER = "later"  # behind all others


class Health:
    """Who rests, as this process knows it. One for a process, used on its event loop; without a board it knows only its own."""

    def __init__(self, clock: Clock = now_us) -> None:
        self._clock = clock
        self._board: Board | None = None
        self._failures: OrderedDict[Key, int] = OrderedDict()
        self._rests: OrderedDict[Key, Rest] = OrderedDict()
        self._forgotten: dict[str, int] = {}  # when providers became others than they were
        self._looked = float("-inf")
        self._changes = 0
        self._turn = asyncio.Lock()  # what is told to the board arrives in the order in which it happened
        self._running: set[asyncio.Task[None]] = set()

    def share(self, board: Board) -> None:
        """Share rests with all processes that have the same board."""
        self._board = board

    @property
    def rests(self) -> Sequence[Rest]:
        """What this process knows."""
        return tuple(self._rests.values())

    async def look(self) -> None:
        """Bring in what others told, where that is due. Waits only where nobody looked for a while, and never long."""
        if self._board is None:
            return
        age = time.monotonic() - self._looked
        if age < LOOK_EVERY_S:
            return
        self._looked = time.monotonic()
        looking = self._keep(self._read(self._board, self._changes))
        if age > _WORTH_WAITING_S:
            await asyncio.wait([looking], timeout=_LONGEST_LOOK_S)

    async def turn_of(self, candidate: Candidate) -> Turn:
        """Whether it is this candidate's turn now. PROBE is for the caller alone: it says `answered`, `failed` or `gave_up`."""
        rest = self._rests.get(candidate.key)
        if rest is None:
            return Turn.FREE
        now = self._clock()
        probed = rest.probe_until_us is not None and now < rest.probe_until_us
        if now < rest.until_us or probed:
            return Turn.LATER
        until = now + round(PROBE_S * 1_000_000)
        self._rests[candidate.key] = replace(rest, probe_until_us=until)
        if self._board is None or await self._may_probe(self._board, candidate, now, until):
            return Turn.PROBE
        return Turn.LATER

    def failed(self, candidate: Candidate, error: ProviderError, began_us: int) -> None:
        """A call that began then failed. One that began before the candidate's rest, or at what its provider was before, says nothing."""
        rest = self._rests.get(candidate.key)
        since_us = self._forgotten.get(candidate.key[0], 0) if rest is None else rest.since_us
        if began_us < since_us:
            return
        kind = error.error_class
        if kind is ErrorClass.RATE_LIMIT and error.retry_after_s:
            self._let_rest(candidate, error, min(error.retry_after_s, LONGEST_COOL_S))
        elif kind in _REFUSES_US or kind in _COUNTED:
            if rest is not None and self._clock() < rest.until_us:
                return  # a sole candidate is asked while it rests
            if rest is not None or kind in _REFUSES_US or self._count(candidate.key) >= FAILURES_BEFORE_COOLING:
                self._let_rest(
                    candidate, error, _growing(rest, LONGEST_REFUSED_S if kind in _REFUSES_US else LONGEST_COOL_S)
                )
        elif error.status is not None:
            self.answered(candidate, began_us)  # it refused the request, so it works

    def answered(self, candidate: Candidate, began_us: int) -> None:
        """A call that began then got content or a whole answer: the rest is over."""
        rest = self._rests.get(candidate.key)
        if rest is None or began_us < rest.since_us:
            return
        del self._rests[candidate.key]
        log.info("provider works again", action="health", provider=rest.provider, model=rest.model)
        self._tell(lambda board: board.heal(*candidate.key))

    def succeeded(self, candidate: Candidate, began_us: int) -> None:
        """A call that began then ended well: earlier failures count no longer."""
        self._failures.pop(candidate.key, None)
        if self._rests:
            self.answered(candidate, began_us)

    def gave_up(self, candidate: Candidate) -> None:
        """The caller left before anything was known: another may probe."""
        rest = self._rests.get(candidate.key)
        if rest is not None and rest.probe_until_us is not None:
            until = rest.probe_until_us
            self._rests[candidate.key] = replace(rest, probe_until_us=None)
            self._tell(lambda board: board.free_probe(*candidate.key, until))

    def forget(self, providers: Iterable[str]) -> None:
        """These have another address or key now, or are gone: what was known of them is of something else."""
        for provider in providers:
            self._forgotten[provider] = self._clock()
            for kept in (self._rests, self._failures):
                for key in [key for key in kept if key[0] == provider]:
                    del kept[key]
            self._tell(lambda board, name=provider: board.forget(name))

    async def drain(self) -> None:
        """Wait until all is told: call it before the database is closed."""
        while self._running:
            await asyncio.gather(*self._running, return_exceptions=True)

    def _count(self, key: Key) -> int:
        count = self._failures.pop(key, 0) + 1
        self._failures[key] = count
        if len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
        return count

    def _let_rest(self, candidate: Candidate, error: ProviderError, pause_s: float) -> None:
        known = self._rests.pop(candidate.key, None)
        now = self._clock()
        rest = Rest(
            provider=candidate.key[0],
            model=candidate.key[1],
            since_us=now,
            until_us=now + round(pause_s * 1_000_000),
            trips=known.trips + 1 if known else 1,
            error_class=error.error_class.value,
            error=error.message[:_ERROR_SHOWN],
        )
        if known is not None and now < known.until_us:  # it names a time while it rests
            rest = replace(rest, trips=known.trips, until_us=max(known.until_us, rest.until_us))
        self._rests[candidate.key] = rest
        if len(self._rests) > _REMEMBERED:
            self._rests.popitem(last=False)
        if known is None or rest.until_us > known.until_us + _WORTH_TELLING_US:
            log.warning(
                "provider rests",
                action="health",
                provider=rest.provider,
                model=rest.model,
                seconds=round((rest.until_us - now) / 1_000_000, 1),
                error_class=rest.error_class,
            )
            self._tell(lambda board: board.rest(rest))

    async def _may_probe(self, board: Board, candidate: Candidate, now: int, until: int) -> bool:
        """The board decides among processes; where it cannot be reached this process decides alone."""
        try:
            return await board.take_probe(*candidate.key, now, until)
        except AIGatewayError:
            return True

    def _tell(self, what: Callable[[Board], Awaitable[None]]) -> None:
        self._changes += 1
        if self._board is not None:
            self._keep(self._told(what, self._board))

    async def _told(self, what: Callable[[Board], Awaitable[None]], board: Board) -> None:
        """What is lost with the database is found out again by whoever calls next."""
        async with self._turn:
            try:
                await what(board)
            except AIGatewayError as error:
                log.warning("health not told", action="health", error=error.message)

    async def _read(self, board: Board, before: int) -> None:
        """`before` counts what had been told when this was asked for: that is on the board once it is our turn."""
        async with self._turn:
            try:
                found = await board.read()
            except AIGatewayError as error:
                log.warning("health not read", action="health", error=error.message)
                return
            if self._changes == before:  # else this process knows something newer, which is about to be told
                self._rests = OrderedDict(((rest.provider, rest.model), rest) for rest in found)

    def _keep(self, work: Awaitable[None]) -> asyncio.Future[None]:
        task = asyncio.ensure_future(work)
        self._running.add(task)  # pyright: ignore[reportArgumentType]
        task.add_done_callback(self._running.discard)  # pyright: ignore[reportArgumentType]
        return task


def _growing(rest: Rest | None, longest_s: float) -> float:
    """10 s each for the first minute, then twice as long each time it did not help."""
    more = (rest.trips if rest else 0) - SHORT_RESTS + 1
    return min(longest_s, COOL_S * 2 ** min(max(0, more), 10))
