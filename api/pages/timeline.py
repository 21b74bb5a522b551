"""A run's steps as bars on one time axis. Pure: from the views of run and steps to figures in the chart's units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from api.pages.formats import duration

WIDTH = 1000.0
_NARROWEST = 4.0
_DEEPEST = 6


@dataclass(frozen=True, slots=True)
class Bar:
    """From `x` on; `status` is the attempt's, or `span` for the step's whole time, pauses and children included."""

    x: float
    width: float
    status: str
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One step. `depth` is how many containers it lies in."""

    step: Mapping[str, Any]
    depth: int
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """`marks` are the labels of the axis at its start, middle and end."""

    lanes: tuple[Lane, ...]
    marks: tuple[str, str, str]


def timeline(run: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], now: datetime) -> Timeline:
    """Starts at the submission, so that waiting for a worker is seen; ends at the run's end, or now."""
    axis = _Axis(datetime.fromisoformat(run["created_at"]), _end(run, now))
    parents = {step["id"]: step["parent"] for step in steps}
    lanes = tuple(Lane(step, _depth(step["id"], parents), axis.bars(step)) for step in steps)
    total_ms = axis.seconds * 1000
    return Timeline(lanes, ("0", duration(total_ms / 2), duration(total_ms)))


def _end(run: Mapping[str, Any], now: datetime) -> datetime:
    return datetime.fromisoformat(run["finished_at"]) if run["finished_at"] else now


class _Axis:
    def __init__(self, start: datetime, end: datetime) -> None:
        self._start = start
        self._end = end
        self.seconds = max((end - start).total_seconds(), 0.001)

    def bars(self, step: Mapping[str, Any]) -> tuple[Bar, ...]:
        if step["started_at"] is None:
            return ()
        attempts = [self._bar(one, one["status"], f"attempt {one['number']}") for one in step["attempts"]]
        return (self._bar(step, "span", step["id"]), *attempts)

    def _bar(self, part: Mapping[str, Any], status: str, name: str) -> Bar:
        until = datetime.fromisoformat(part["finished_at"]) if part["finished_at"] else self._end
        since = datetime.fromisoformat(part["started_at"])
        left, right = self._place(since), self._place(until)
        width = max(right - left, _NARROWEST)
        took = duration(max(0.0, (until - since).total_seconds()) * 1000)
        return Bar(round(min(left, WIDTH - width), 2), round(width, 2), status, f"{name}: {part['status']}, {took}")

    def _place(self, at: datetime) -> float:
        return min(max((at - self._start).total_seconds() / self.seconds, 0.0), 1.0) * WIDTH


def _depth(key: str, parents: Mapping[str, str | None]) -> int:
    depth = 0
    parent = parents.get(key)
    while parent is not None and depth < _DEEPEST:
        depth += 1
        parent = parents.get(parent)
    return depth
