"""Figures as people read them, and a run's bars."""

from datetime import UTC, datetime
from typing import Any

import pytest

from api.pages.formats import count, duration, moment, usd
from api.pages.timeline import timeline
from api.pages.values import HEAD_CHARACTERS, HEAD_LINES, MOST_CHARACTERS, shown


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "\u2013"),
        (0, "$0.00"),
        (0.00000002, "$0.000000020"),
        (0.000042, "$0.000042"),
        (0.00421, "$0.0042"),
        (0.5, "$0.50"),
        (0.9999, "$0.9999"),
        (1234.567, "$1,234.57"),
    ],
)
def test_money(amount: float | None, text: str) -> None:
    assert usd(amount) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, "\u2013"),
        (0.4, "0 ms"),
        (999.4, "999 ms"),
        (999.6, "1.0 s"),
        (59_940, "59.9 s"),
        (59_999, "1 min 00 s"),
        (192_000, "3 min 12 s"),
        (7_500_000, "2 h 05 min"),
    ],
)
def test_durations(milliseconds: float | None, text: str) -> None:
    assert duration(milliseconds) == text


def test_numbers_and_moments() -> None:
    assert (count(None), count(1234567)) == ("\u2013", "1,234,567")
    assert moment("2026-11-22T07:00:01.999999Z") == "2026-11-22 07:00:01"


def test_values_are_cut_by_length_and_by_lines() -> None:
    assert shown("short").whole is None
    assert shown({"a": [1, "ü"]}).head == '{\n  "a": [\n    1,\n    "ü"\n  ]\n}'
    long = shown("x" * (HEAD_CHARACTERS + 1))
    assert len(long.head) == HEAD_CHARACTERS + 2 and long.whole == "x" * (HEAD_CHARACTERS + 1) and not long.cut
    assert shown("x\n" * 100).head.count("\n") == HEAD_LINES
    huge = shown("x" * (MOST_CHARACTERS + 1))
    assert huge.cut and huge.whole is not None and len(huge.whole) == MOST_CHARACTERS


def at(second: float) -> str:
    return f"2026-11-22T07:00:{second:09.6f}Z"


def step(key: str, started: float | None, finished: float | None, **more: Any) -> dict[str, Any]:
    times = {"started_at": None if started is None else at(started), "finished_at": finished and at(finished)}
    attempt = {"number": 1, "status": "succeeded", **times}
    attempts = [] if started is None else [attempt]
    return {"id": key, "parent": None, "status": "succeeded", "attempts": attempts, **times, **more}


def test_bars_lie_on_the_runs_own_time() -> None:
    run = {"created_at": at(0), "finished_at": at(10)}
    steps = [step("a", 1, 3.5), step("b", 3.5, 10, parent="a"), step("c", None, None)]
    drawn = timeline(run, steps, datetime(2026, 11, 22, 8, tzinfo=UTC))
    assert [(bar.x, bar.width, bar.status) for bar in drawn.lanes[0].bars] == [
        (100, 250, "span"),
        (100, 250, "succeeded"),
    ]
    assert [lane.depth for lane in drawn.lanes] == [0, 1, 0]
    assert not drawn.lanes[2].bars
    assert drawn.marks == ("0", "5.0 s", "10.0 s")


def test_what_goes_on_reaches_to_now_and_the_shortest_is_seen() -> None:
    run = {"created_at": at(0), "finished_at": None}
    drawn = timeline(run, [step("a", 4, None), step("b", 9.9999, 10)], datetime(2026, 11, 22, 7, 0, 10, tzinfo=UTC))
    assert (drawn.lanes[0].bars[1].x, drawn.lanes[0].bars[1].width) == (400, 600)
    assert (drawn.lanes[1].bars[1].x, drawn.lanes[1].bars[1].width) == (996, 4)


def test_a_circle_of_parents_or_no_time_at_all_is_drawn_somehow() -> None:
    run = {"created_at": at(0), "finished_at": at(0)}
    drawn = timeline(run, [step("a", 0, 0, parent="b"), step("b", 0, 0, parent="a")], datetime.now(UTC))
    assert all(lane.depth <= 6 for lane in drawn.lanes)
