"""What follows from what: pure functions of a definition. No I/O, no clock, no randomness.

A step waits on its needs; it becomes ready when the last of them has ended, whatever the end (skipped and, with
`on_error: continue`, failed count). A container waits on the steps of the branch it chose.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.definition import Definition, RetryPolicy, Step
from engine.states import RETRIED_BY_DEFAULT, ErrorClass

DEFAULT_RETRY = RetryPolicy(max_attempts=3, errors=RETRIED_BY_DEFAULT)

LONGEST_RETRY_AFTER_S = 86_400.0  # an upstream may ask for more; nobody waits that long


@dataclass(frozen=True, slots=True)
class NewStep:
    """A step about to be stored; ready at once where it waits on nothing."""

    key: str
    type: str
    parent_key: str | None
    position: int
    waiting_on: int


class Graph:
    """A definition with its edges turned round: who waits for whom."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self._steps: dict[str, Step] = {}
        self._siblings: dict[str, tuple[Step, ...]] = {}
        self._dependents: dict[str, list[str]] = {}
        self._lists(definition.steps)

    def _lists(self, siblings: tuple[Step, ...]) -> None:
        pending = [siblings]
        while pending:
            siblings = pending.pop()
            for step in siblings:
                self._steps[step.id] = step
                self._siblings[step.id] = siblings
                for need in step.needs:
                    self._dependents.setdefault(need, []).append(step.id)
                pending.extend(step.branches.values())

    def step(self, key: str) -> Step:
        """The step of that key. Raises: KeyError."""
        return self._steps[key]

    def dependents(self, key: str) -> Sequence[str]:
        """Keys of the steps that wait for this one."""
        return self._dependents.get(key, ())

    def siblings(self, key: str) -> tuple[Step, ...]:
        """The list that the step stands in, itself included."""
        return self._siblings[key]


def lay_out(steps: Sequence[Step], *, parent_key: str | None, first_position: int) -> list[NewStep]:
    """The rows of one list of steps."""
    return [
        NewStep(
            key=step.id,
            type=step.type,
            parent_key=parent_key,
            position=first_position + number,
            waiting_on=len(step.needs),
        )
        for number, step in enumerate(steps)
    ]


def retry_pause_s(
    policy: RetryPolicy,
    *,
    failures: int,
    error_class: ErrorClass,
    retry_after_s: float | None,
    chance: float,
) -> float | None:
    """Seconds until the next attempt after `failures` failures, None where there is none. `chance` in [0, 1) is the jitter.

    Full-range jitter around the exponential pause (half to one and a half of it); a longer Retry-After wins.
    """
    if failures >= policy.max_attempts or error_class not in (policy.errors or RETRIED_BY_DEFAULT):
        return None
    pause = min(policy.initial_s * policy.factor ** (failures - 1), policy.max_s)
    if policy.jitter:
        pause *= 0.5 + chance
    return max(pause, min(retry_after_s or 0.0, LONGEST_RETRY_AFTER_S))
