import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from aigateway.timeline import money, printable, timeline


def at(second: float) -> str:
    return datetime.fromtimestamp(1_800_000_000 + second, UTC).isoformat()


def attempt(number: int, status: str, start: float, end: float | None, message: str | None = None) -> dict[str, Any]:
    error = {"class": "worker_lost", "message": message} if message else None
    return {"number": number, "status": status, "worker": f"w{number}", "error": error, "calls": [],
            "started_at": at(start), "finished_at": None if end is None else at(end)}  # fmt: skip


def step(name: str, status: str, *attempts: dict[str, Any], cost: float = 0, tokens: int = 0) -> dict[str, Any]:
    started = attempts[0]["started_at"] if attempts else None
    return {"id": name, "status": status, "error": None, "cost_usd": cost, "tokens": tokens, "latency_ms": None,
            "started_at": started, "finished_at": attempts[-1]["finished_at"] if attempts else None,
            "attempts": list(attempts)}  # fmt: skip


RUN: dict[str, Any] = {
    "id": "01997f3e", "workflow": "research", "status": "succeeded", "tokens": 1234, "cost_usd": 0.0042,
    "latency_ms": 10_000, "cost_unknown_calls": 2, "started_at": at(0), "finished_at": at(10),
}  # fmt: skip
STEPS = [
    step("search", "succeeded", attempt(1, "succeeded", 0, 5)),
    step(
        "summarize",
        "succeeded",
        attempt(1, "lost", 5, 6, "its worker died"),
        attempt(2, "succeeded", 6, 10),
        cost=0.0042,
        tokens=1234,
    ),
    step("report", "skipped"),
]


def draw(run: dict[str, Any], steps: list[dict[str, Any]], width: int, now: datetime | None = None) -> list[str]:
    out = io.StringIO()
    # The console is wider than the drawing, so that a line that is too wide shows.
    Console(file=out, width=400).print(timeline(run, steps, width=width, now=now))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_bar_stands_where_its_attempts_ran() -> None:
    head, search, summarize, report, lost, sums = draw(RUN, STEPS, 100)
    assert head == "✓ research succeeded  01997f3e"
    assert search.startswith("✓ search")
    bar = search[12:]
    assert bar.index("█") == 0
    assert summarize[12:].index("░") == bar.rindex("█") + 1
    assert summarize.index("█") == summarize.rindex("░") + 1
    assert summarize.split()[-3:] == ["s", "1,234", "$0.0042"]
    assert report.split() == ["-", "report", "$0.00"]
    assert len(report) == len(summarize)
    assert lost == "  ↳ summarize: attempt 1 lost on w1: its worker died"
    assert sums == "  10.0 s · 1,234 tokens · $0.0042 · 2 calls of unknown cost"


@pytest.mark.parametrize("width", [40, 41, 71, 72, 80, 120, 200])
def test_no_line_is_wider_than_asked(width: int) -> None:
    long = step("a" * 60, "failed", attempt(1, "failed", 0, 10, "x" * 500), cost=123_456.789, tokens=123_456_789)
    lines = draw(RUN | {"workflow": "w" * 100}, [*STEPS, long], width)
    assert max(len(line) for line in lines) <= width


def test_a_running_step_ends_now() -> None:
    run = RUN | {"status": "running", "finished_at": None, "latency_ms": None}
    steps = [step("a", "running", attempt(1, "running", 0, None)), step("b", "pending")]
    _, first, second, _ = draw(run, steps, 80, datetime.fromtimestamp(1_800_000_020, UTC))
    assert "20.0 s" in first
    assert "█" in first
    assert second.startswith("· b")


def test_a_run_without_steps_is_drawn() -> None:
    run = {"id": "x", "workflow": None, "status": "queued", "tokens": 0, "cost_usd": 0}
    assert draw(run, [], 80) == ["· workflow queued  x", "  0 tokens · $0.00"]


def test_what_upstreams_say_cannot_steer_the_terminal() -> None:
    evil = step("a", "failed", attempt(1, "failed", 0, 1, "\x1b]0;owned\x07\x1b[2J[bold]\nnext"))
    text = "\n".join(draw(RUN, [evil], 200))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold] next" in text
    assert printable("a\x9bb\u202ec") == "a\ufffdb\ufffdc"


@pytest.mark.parametrize(
    ("usd", "text"),
    [(0, "$0.00"), (None, ""), (12.5, "$12.50"), (1234.5, "$1,234.50"), (0.05, "$0.05"), (0.5, "$0.50"), (0.0042, "$0.0042"),
     (2e-8, "$2.0e-08"), ("unknown", "unknown")],
)  # fmt: skip
def test_money_is_written_for_people(usd: object, text: str) -> None:
    assert money(usd) == text
