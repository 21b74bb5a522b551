"""What this process has seen of each candidate lately: calls under way, and how fast it answers. Not shared between processes."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

Key = tuple[str, str]

EXPLORE_EVERY_S = 10.0
STALE_S = 60.0
_NEWEST_COUNTS = 0.3  # weight of the newest call in the moving average
_REMEMBERED = 1024  # model names come from requests: their number has no bound of its own


@dataclass(slots=True)
class _Speed:
    seconds: float
    measured_at: float


@dataclass(slots=True)
class _Seen:
    in_flight: int = 0
    speeds: dict[bool, _Speed] = field(default_factory=dict[bool, _Speed])  # by whether the answer was streamed
    explored_at: dict[bool, float] = field(default_factory=dict[bool, float])


class Observations:
    """One for a process, used on its event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[Key, _Seen] = OrderedDict()

    def began(self, key: Key) -> None:
        """A call is about to be made. `ended` follows once."""
        self._of(key).in_flight += 1

    def ended(self, key: Key) -> None:
        """That call is over, however it ended."""
        seen = self._of(key)
        seen.in_flight = max(0, seen.in_flight - 1)

    def measured(self, key: Key, *, streamed: bool, seconds: float) -> None:
        """A good call took so long: to its first content where it was streamed, else as a whole."""
        speeds, now = self._of(key).speeds, self._clock()
        known = speeds.get(streamed)
        average = seconds if known is None else known.seconds + _NEWEST_COUNTS * (seconds - known.seconds)
        speeds[streamed] = _Speed(average, now)

    def forget(self, key: Key) -> None:
        """It failed: how fast it was says nothing about how fast it will be when it works again."""
        self._of(key).speeds.clear()

    def in_flight(self, key: Key) -> int:
        """Calls of this process to it that have not ended."""
        seen = self._seen.get(key)
        return seen.in_flight if seen else 0

    def seconds(self, key: Key, *, streamed: bool) -> float | None:
        """A moving average; None where nothing is known."""
        seen = self._seen.get(key)
        known = seen.speeds.get(streamed) if seen else None
        return known.seconds if known else None

    def explore(self, key: Key, *, streamed: bool) -> bool:
        """Whether the caller is the one to find out anew how fast it is: at most one in ten seconds, where nothing fresh is known."""
        seen, now = self._of(key), self._clock()
        known = seen.speeds.get(streamed)
        if known is not None and now - known.measured_at < STALE_S:
            return False
        if now - seen.explored_at.get(streamed, float("-inf")) < EXPLORE_EVERY_S:
            return False
        seen.explored_at[streamed] = now
        return True

    def _of(self, key: Key) -> _Seen:
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = _Seen()
            if len(self._seen) > _REMEMBERED:
                self._drop_one()
        return seen

    def _drop_one(self) -> None:
        """The oldest that nobody uses; a call under way must find its count again."""
        idle = next((key for key, seen in self._seen.items() if seen.in_flight == 0), None)
        if idle is not None:
            del self._seen[idle]
