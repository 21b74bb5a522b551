"""Where a request stands in its line of candidates, and what follows a failure: again, the next one, or an end.

Those that rest are put off to the end of the line (`providers.health`). A request that is wrong, or that a content filter
refused, goes nowhere else; one that was too long goes to a larger model alone.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeGuard

from engine.errors import AIGatewayError
from engine.states import ErrorClass
from providers.abilities import Abilities
from providers.errors import ProviderError
from providers.health import Health, Turn
from providers.routing import Candidate

_RETRIED = frozenset({ErrorClass.RATE_LIMIT, ErrorClass.OVERLOADED, ErrorClass.CONNECTION, ErrorClass.SERVER_ERROR})
_MOVES_ON = _RETRIED | {ErrorClass.TIMEOUT, ErrorClass.AUTH, ErrorClass.QUOTA, ErrorClass.CONTEXT_LENGTH}


@dataclass(frozen=True, slots=True)
class FailoverPolicy:
    """How long one candidate is tried. Pauses are backoff_s * 2^n with jitter, or what the upstream asks for up to a cap."""

    retries_per_target: int = 2
    backoff_s: float = 0.5
    backoff_max_s: float = 8.0
    retry_after_cap_s: float = 10.0


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Ask the same candidate once more after a pause."""

    pause_s: float


@dataclass(frozen=True, slots=True)
class MoveOn:
    """Ask the next candidate at once."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The error is the answer."""


def decide(
    error: ProviderError, *, tries: int, more: bool, policy: FailoverPolicy, jitter: float
) -> TryAgain | MoveOn | GiveUp:
    """What follows a failure. `tries` counts calls to this candidate so far, `jitter` is in [0, 1).

    A request that is wrong, or that a content filter refused, is nobody else's to answer. A timer of ours that ran out has
    used up the caller's patience with this candidate.
    """
    missing = error.error_class is ErrorClass.INVALID_REQUEST and error.status == 404
    if error.error_class not in _MOVES_ON and not missing:
        return GiveUp()
    sent_elsewhere = error.status is not None and 300 <= error.status < 400  # it will be so again
    retried = (error.error_class in _RETRIED and not sent_elsewhere) or (
        error.error_class is ErrorClass.TIMEOUT and error.status is not None
    )
    if retried and tries <= policy.retries_per_target:
        pause = min(policy.backoff_s * 2 ** (tries - 1), policy.backoff_max_s) * (0.5 + jitter / 2)
        if error.retry_after_s is not None:
            pause = max(pause, error.retry_after_s)
        if error.retry_after_s is None or error.retry_after_s <= policy.retry_after_cap_s:
            return TryAgain(pause)
    return MoveOn() if more else GiveUp()


class Walk:
    """Where in the line of candidates a request stands. Those that rest are put off to the end of it."""

    def __init__(self, line: Iterable[Candidate], health: Health, abilities: Abilities, policy: FailoverPolicy) -> None:
        self._line = deque(line)
        self._later: deque[Candidate] = deque()
        self._alone = len(self._line) == 1
        self._health = health
        self._abilities = abilities
        self._policy = policy
        self._again: Candidate | None = None
        self._tries = 0
        self.probing = False
        self.failure: AIGatewayError | None = None

    async def next(self) -> Candidate | None:
        """Whom to ask now; None at the end of the line."""
        candidate, self._again = self._again, None
        if candidate is None:
            self._tries = 0
            candidate = await self._following()
        self._tries += 1
        return candidate

    def refused(self, error: AIGatewayError) -> None:
        """The candidate could not be asked: the next one is."""
        self.failure = self.failure or error

    def after(self, candidate: Candidate, error: ProviderError, jitter: float) -> float:
        """The pause before the next call. Raises: the failure that is the answer, where none is left.

        That is `error`, but for a fallback that refuses the request itself: what kept the one before it from answering would
        be hidden behind that.
        """
        before, self.failure = self.failure, error
        if error.error_class is ErrorClass.CONTEXT_LENGTH:
            self._line = deque(self._abilities.larger(self._line, candidate))
            self._later = deque(self._abilities.larger(self._later, candidate))
        more = bool(self._line or self._later)
        policy = replace(self._policy, retries_per_target=0) if self.probing and more else self._policy
        match decide(error, tries=self._tries, more=more, policy=policy, jitter=jitter):
            case TryAgain(pause_s):
                self._again = candidate
                return pause_s
            case MoveOn():
                return 0.0
            case GiveUp():
                if error.error_class is ErrorClass.INVALID_REQUEST and _was_passing(before):
                    before.attempts = error.attempts
                    raise before from error
                raise error

    async def _following(self) -> Candidate | None:
        self.probing = False
        while self._line:
            candidate = self._line.popleft()
            turn = Turn.FREE if self._alone else await self._health.turn_of(candidate)
            if turn is not Turn.LATER:
                self.probing = turn is Turn.PROBE
                return candidate
            self._later.append(candidate)
        return self._later.popleft() if self._later else None


def _was_passing(error: AIGatewayError | None) -> TypeGuard[ProviderError]:
    """Whether a failure was the upstream's, and may be over soon."""
    return isinstance(error, ProviderError) and error.error_class in _RETRIED | {ErrorClass.TIMEOUT}
