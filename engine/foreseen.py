"""What a dry run foresees of one step: how often it runs and what it would send, for each item of a list where those differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.definition import Step
from engine.plan import DEFAULT_RETRY


@dataclass(frozen=True, slots=True)
class Times:
    """How often at least and at most, retries left aside."""

    low: int
    high: int

    def inside(self, other: "Times") -> "Times":
        """For each of the others' times."""
        return Times(self.low * other.low, self.high * other.high)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """One step. `fields` are its own keys, rendered as far as possible; `unknown` names what is missing: steps, item, index, run.error.

    `mistake` says why an expression would fail although all it reads is known. `assumed` tells that `times` rests on a list's
    assumed length, `sampled` that some items of a list stand for all. Inside a foreach it is the first item for which the step
    runs, and `times` counts all.
    """

    step: Step
    fields: Mapping[str, Any]
    times: Times
    unknown: frozenset[str]
    mistake: str | None = None
    assumed: bool = False
    sampled: bool = False
    parts: tuple["Foreseen", ...] = ()

    @property
    def cases(self) -> tuple["Foreseen", ...]:
        """What it comes to for each item, each with its own times; itself where there is just one."""
        return self.parts or (self,)

    @property
    def attempts(self) -> int:
        """Attempts in total where each but the last fails."""
        return (self.step.retry or DEFAULT_RETRY).max_attempts


def together(found: Iterable[Foreseen]) -> list[Foreseen]:
    """One entry for each step, of those made for one item after the other."""
    by_path: dict[str, list[Foreseen]] = {}
    for entry in found:
        by_path.setdefault(entry.step.path, []).append(entry)
    return [_merged(entries) for entries in by_path.values()]


def _merged(entries: Sequence[Foreseen]) -> Foreseen:
    if len(entries) == 1:
        return entries[0]
    return replace(
        next((entry for entry in entries if entry.times.high), entries[0]),
        times=Times(sum(entry.times.low for entry in entries), sum(entry.times.high for entry in entries)),
        unknown=frozenset[str]().union(*(entry.unknown for entry in entries)),
        mistake=next((entry.mistake for entry in entries if entry.mistake), None),
        assumed=any(entry.assumed for entry in entries),
        sampled=any(entry.sampled for entry in entries),
        parts=tuple(case for entry in entries for case in entry.cases),
    )
