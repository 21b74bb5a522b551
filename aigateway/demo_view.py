"""How the demo looks in a terminal: the story line by line as it happens, a live timeline below it, the figures at the end.

Draws what it is given and asks nobody anything.
"""

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from aigateway.demo_proof import Evidence, broken, proof
from aigateway.timeline import money, printable, timeline

Json = dict[str, Any]
_REPORT_LINES = 3
_COLOURS = {"succeeded": "green", "lost": "red"}


class Narrator:
    """Tells the demo on a console; `animate` draws the run while it goes on."""

    def __init__(self, console: Console, *, animate: bool) -> None:
        self._console = console
        self._animate = animate
        self._began = time.monotonic()
        self._live: Live | None = None

    @contextmanager
    def on_stage(self) -> Generator[None]:
        """While the run goes on; what was drawn live is gone afterwards, what was said stays."""
        if not self._animate:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            self._live = live
            yield
        self._live = None

    def head(self, title: str, explanation: str) -> None:
        """The first lines."""
        self._console.print(Text(title, "bold"))
        self._console.print(Text(explanation, "dim"))
        self._console.print()

    def say(self, text: str, *, loud: bool = False) -> None:
        """A line of the story, with the seconds since the beginning."""
        line = Table.grid(padding=(0, 2))
        line.add_row(
            Text(f"{time.monotonic() - self._began:5.1f} s", "dim"), Text(printable(text), "bold red" if loud else "")
        )
        self._console.print(line)

    def show(self, run: Json, steps: Sequence[Json]) -> None:
        """The run as it stands."""
        if self._live is not None:
            drawing = timeline(run, steps, width=self._width, now=datetime.now(UTC))
            self._live.update(Padding(drawing, (1, 0, 0, 0)), refresh=True)

    def conclude(self, evidence: Evidence) -> None:
        """Timeline, attempts, the report's first lines, and the proof or what is wrong."""
        problems = broken(evidence)
        self._section(timeline(evidence.run, evidence.steps, width=self._width))
        self._section(_attempts(evidence))
        self._section(_report(str(evidence.run["output"] or ""), self._width))
        if problems:
            text = "\n".join(f"✗ {problem}" for problem in problems)
            self._section(Panel(Text(text), title="This does not hold", border_style="red"))
        else:
            self._section(Panel(Text(proof(evidence)), title="What was not paid twice", border_style="green"))

    @property
    def _width(self) -> int:
        return max(40, min(self._console.width, 110))

    def _section(self, content: RenderableType) -> None:
        self._console.print()
        self._console.print(content, width=self._width)


def _attempts(evidence: Evidence) -> Table:
    """A line for each attempt: who ran it, what it asked, and what the ledger says of it."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for name in ("step", "attempt", "worker", "asked", "outcome"):
        table.add_column(name, no_wrap=True)
    for name in ("tokens", "cost", "latency"):
        table.add_column(name, justify="right", no_wrap=True)
    for step in evidence.steps:
        for attempt in step["attempts"]:
            table.add_row(*_attempt(evidence, step, attempt), style=_COLOURS.get(attempt["status"], ""))
    return table


def _attempt(evidence: Evidence, step: Json, attempt: Json) -> Sequence[str]:
    calls: list[Json] = attempt["calls"]
    asked = ", ".join(
        call["model"] if call["kind"] == "tool" else f"{call['provider']}/{call['model']}" for call in calls
    )
    tokens = sum(call["total_tokens"] or 0 for call in calls)
    unknown = any(call["cost_source"] == "unknown" for call in calls)
    cost = "unknown" if unknown else money(sum(call["cost_usd"] for call in calls))
    return (
        printable(step["id"]),
        str(attempt["number"]),
        str(evidence.pids.get(attempt["worker"], "?")),
        printable(asked),
        str(attempt["status"]),
        "unknown" if unknown else f"{tokens:,}" if tokens else "-",
        cost,
        _elapsed(attempt),
    )


def _elapsed(attempt: Json) -> str:
    if attempt["finished_at"] is None:
        return ""
    took = datetime.fromisoformat(attempt["finished_at"]) - datetime.fromisoformat(attempt["started_at"])
    return f"{took.total_seconds():.2f} s"


def _report(output: str, width: int) -> Text:
    lines = Text(printable(output.split("\n\n")[0])).wrap(Console(width=width, quiet=True), width - 2)
    shown = Text().append("The report begins (scripted text of the simulated provider):", "dim")
    for line in lines[:_REPORT_LINES]:
        shown.append("\n").append(line.plain.rstrip(), "italic")
    return shown.append(" …", "italic") if len(lines) > _REPORT_LINES else shown
