"""Cool-downs of this process, by provider and model: who said "later" or failed again and again is asked last, not never."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.routing import Candidate

FAILURES_BEFORE_COOLING = 3
COOL_S = 30.0
LONGEST_COOL_S = 300.0
_REMEMBERED = 1024  # model names come from requests: their number has no bound of its own
_COUNTED = frozenset({ErrorClass.OVERLOADED, ErrorClass.TIMEOUT, ErrorClass.CONNECTION, ErrorClass.SERVER_ERROR})


class Cooldowns:
    """Remembers failures in a row and until when a candidate rests. Not shared between processes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._until: OrderedDict[tuple[str, str], float] = OrderedDict()

    def ready_first(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """All candidates in their order, those at rest behind the others: a sole one is always tried."""
        now = self._clock()
        return sorted(candidates, key=lambda candidate: self._until.get(candidate.key, 0.0) > now)

    def failed(self, candidate: Candidate, error: ProviderError) -> None:
        """Count a failure; a rate limit that names its end cools at once."""
        if error.error_class is ErrorClass.RATE_LIMIT and error.retry_after_s:
            self._cool(candidate, min(error.retry_after_s, LONGEST_COOL_S))
        elif error.error_class in _COUNTED:
            count = self._failures.pop(candidate.key, 0) + 1
            self._failures[candidate.key] = count
            if len(self._failures) > _REMEMBERED:
                self._failures.popitem(last=False)
            if count >= FAILURES_BEFORE_COOLING:
                self._cool(candidate, COOL_S)

    def succeeded(self, candidate: Candidate) -> None:
        """A success ends rest and count."""
        self._failures.pop(candidate.key, None)
        self._until.pop(candidate.key, None)

    def _cool(self, candidate: Candidate, seconds: float) -> None:
        self._until.pop(candidate.key, None)
        self._until[candidate.key] = self._clock() + seconds
        if len(self._until) > _REMEMBERED:
            self._until.popitem(last=False)
