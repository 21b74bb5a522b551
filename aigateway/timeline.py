"""Draws one run as a timeline for a terminal: a bar per step, its attempts as segments, its tokens and its cost.

Pure: takes a run and its steps as the API's JSON and returns a rich renderable of a given width. Used by `runs show`, `run`
and `demo`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Json = Mapping[str, Any]
_COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "lost": "red",
    "cancelled": "yellow",
    "returned": "yellow",
    "paused": "yellow",
    "running": "cyan",
    "waiting": "blue",
    "skipped": "dim",
}
_MARKS = {
    "succeeded": "✓",
    "failed": "✗",
    "cancelled": "■",
    "skipped": "-",
    "running": "▶",
    "waiting": "…",
    "paused": "‖",
}
_LONGEST_NAME = 28
_SHORTEST_BAR = 8
_ROOM_FOR_ALL = 72
_FIGURES = 34  # time, tokens and cost with the gaps between them


def timeline(run: Json, steps: Sequence[Json], *, width: int = 100, now: datetime | None = None) -> RenderableType:
    """The run's head line, a line for each step, a line for each attempt that did not work, and the sums.

    `now` ends the bars of what still runs; without it they end where the last known event is. No line is wider than `width`,
    which is at least 40; below 72 columns tokens are left out.
    """
    scale = _Scale.of(run, steps, now)
    full = width >= _ROOM_FOR_ALL
    name_width = min(_LONGEST_NAME, max([len(str(step["id"])) for step in steps], default=4), max(8, width - 30))
    bar_width = max(_SHORTEST_BAR, width - name_width - (_FIGURES if full else 24))
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(width=name_width, no_wrap=True, overflow="ellipsis")
    table.add_column(width=bar_width, no_wrap=True)
    for _ in range(3 if full else 2):
        table.add_column(justify="right", no_wrap=True)
    for step in steps:
        table.add_row(*_row(step, scale, bar_width, full=full))
    notes = [note for step in steps for note in _notes(step, width)]
    return Group(_head(run, width), table, *notes, _sums(run, width))


class _Scale:
    """Maps instants to columns."""

    def __init__(self, start: datetime, end: datetime) -> None:
        self.start = start
        self.end = end
        self.seconds = max((end - start).total_seconds(), 1e-6)

    @classmethod
    def of(cls, run: Json, steps: Sequence[Json], now: datetime | None) -> "_Scale":
        parts: list[Json] = [run, *steps, *(attempt for step in steps for attempt in _attempts(step))]
        known = [
            instant for part in parts for key in ("started_at", "finished_at") if (instant := _instant(part.get(key)))
        ]
        if now is not None and run.get("finished_at") is None:
            known.append(now)
        if not known:
            known = [now or datetime.now(UTC)]
        return cls(min(known), max(known))

    def column(self, instant: datetime, width: int) -> int:
        share = (instant - self.start).total_seconds() / self.seconds
        return min(width, max(0, round(share * width)))


def _row(step: Json, scale: _Scale, bar_width: int, *, full: bool) -> list[Text]:
    status = str(step["status"])
    colour = _COLOURS.get(status, "")
    row = [Text(_MARKS.get(status, "·"), colour), Text(printable(step["id"])), _bar(step, scale, bar_width)]
    row.append(Text(_duration(_seconds(step, scale))))
    if full:
        row.append(Text(_count(step.get("tokens")), "dim"))
    row.append(Text(money(step.get("cost_usd")), "bold" if step.get("cost_usd") else "dim"))
    return row


def _bar(step: Json, scale: _Scale, width: int) -> Text:
    """One segment per attempt: full for the one that worked, light for those that did not."""
    cells = [" "] * width
    styles = [""] * width
    for part in _attempts(step) or [step]:
        started = _instant(part.get("started_at"))
        if started is None:
            continue
        status = str(part["status"])
        first = min(scale.column(started, width), width - 1)
        last = max(first + 1, scale.column(_instant(part.get("finished_at")) or scale.end, width))
        mark = "█" if status in ("succeeded", "running", "waiting") else "░"
        for index in range(first, last):
            cells[index], styles[index] = mark, _COLOURS.get(status, "")
    bar = Text()
    for cell, style in zip(cells, styles, strict=True):
        bar.append(cell, style or None)
    return bar


def _attempts(step: Json) -> Sequence[Json]:
    return step.get("attempts") or []


def _notes(step: Json, width: int) -> list[Text]:
    notes = [
        _note(f"{step['id']}: attempt {attempt['number']} {attempt['status']}", attempt, width)
        for attempt in _attempts(step)
        if attempt["status"] not in ("succeeded", "running")
    ]
    if not notes and step.get("error"):
        notes = [_note(f"{step['id']}: {step['status']}", step, width)]
    return notes


def _note(text: str, told: Json, width: int) -> Text:
    error: Any = told.get("error")
    worker = told.get("worker")
    reason = error.get("message") if isinstance(error, Mapping) else error  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    whole = f"  ↳ {text}" + (f" on {worker}" if worker else "") + (f": {reason}" if reason else "")
    return _line(Text(printable(whole), _COLOURS.get(str(told["status"]), "dim")), width)


def _head(run: Json, width: int) -> Text:
    status = str(run["status"])
    head = Text(f"{_MARKS.get(status, '·')} ", _COLOURS.get(status, ""))
    head.append(printable(run.get("workflow") or "workflow"), "bold").append(f" {status}", _COLOURS.get(status, ""))
    return _line(head.append(f"  {run['id']}", "dim"), width)


def _sums(run: Json, width: int) -> Text:
    parts = [f"{_count(run.get('tokens')) or '0'} tokens", money(run.get("cost_usd")) or "$0"]
    if (latency := run.get("latency_ms")) is not None:
        parts.insert(0, _duration(float(latency) / 1000))
    if unknown := run.get("cost_unknown_calls"):
        parts.append(f"{unknown} call{'s' if unknown > 1 else ''} of unknown cost")
    return _line(Text("  " + " · ".join(parts), "bold"), width)


def _line(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text


def _instant(value: Any) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else None


def _seconds(step: Json, scale: _Scale) -> float | None:
    if (latency := step.get("latency_ms")) is not None:
        return float(latency) / 1000
    started = _instant(step.get("started_at"))
    return None if started is None else ((_instant(step.get("finished_at")) or scale.end) - started).total_seconds()


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} m" if hours else f"{minutes} m {rest:02} s"


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and value else ""


def money(value: Any) -> str:
    """An amount in USD for people: cents and more with two places, less with what is needed to see a figure."""
    if not isinstance(value, int | float):
        return "" if value is None else str(value)
    if value == 0 or value >= 1:
        return f"${value:,.2f}"
    if value < 0.000001:
        return f"${value:.1e}"
    whole, _, places = f"{value:.6f}".rstrip("0").partition(".")
    return f"${whole}.{places:0<2}"


def printable(value: Any) -> str:
    """Text that can do nothing to a terminal: control characters (escape sequences start with one) become `\N{REPLACEMENT CHARACTER}`."""
    return "".join(mark if mark.isprintable() else " " if mark in "\n\t\r" else "\ufffd" for mark in str(value))
