"""Cron lines: what is taken, what is refused and how it is said, and when they come due around clock changes."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cron import check_cron, check_zone, due_times, due_until, next_due

SECOND = 1_000_000
MINUTE = 60 * SECOND
BERLIN = "Europe/Berlin"


def us(text: str) -> int:
    """An ISO 8601 time with its offset."""
    return int(datetime.fromisoformat(text).timestamp()) * SECOND


def told(line: str, zone: str, after: str, count: int) -> list[str]:
    place = ZoneInfo(zone)
    return [
        datetime.fromtimestamp(at // SECOND, place).isoformat()
        for at in islice(due_times(line, zone, us(after)), count)
    ]


@pytest.mark.parametrize(
    "line",
    ["0 7 * * *", "*/15 * * * *", "0 0 29 2 *", "0 9-17/2 * * MON-FRI", "0 0 L * *", "0 0 * * 5L", "0 0 * * MON#1",
     " 5  4 * * sun ", "@daily", "@Hourly", "0 0 31 2 MON"],
)  # fmt: skip
def test_lines_that_are_taken(line: str) -> None:
    assert check_cron(line) == line
    assert next_due(line, "UTC", us("2026-01-01T00:00:00+00:00")) is not None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0 30 2 *", "never comes: there is no day 30 in month 2"),
        ("0 0 31 4,6 *", "never comes: there is no day 31 in month 4,6"),
        ("60 * * * *", "the minute '60' has to be made of 0-59"),
        ("0 24 * * *", "the hour '24' has to be made of 0-23"),
        ("0 0 0 * *", "the day-of-month '0' has to be made of 1-31"),
        ("0 0 * 13 *", "the month '13' has to be made of 1-12"),
        ("0 0 * * 8", "the day-of-week '8' has to be made of 0-7"),
        ("*/0 * * * *", "the minute '*/0'"),
        ("0 7 * *", "has 4 fields; a cron line has five: minute hour day-of-month month day-of-week"),
        ("0 0 7 * * *", "seconds are not taken"),
        ("", "has 0 fields"),
        ("@reboot", "there is no '@reboot': write five fields, or one of @hourly, @daily"),
        ("each morning at seven please", "the minute 'each' has to be"),
        ("9" * 5000 + " * * * *", "at most 200 characters"),
        (7, "has to be a cron line"),
        (None, "has to be a cron line"),
    ],
)
def test_lines_that_are_refused_with_the_reason(line: object, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        check_cron(line)
    assert message in str(refused.value)


@given(st.one_of(st.text(max_size=60), st.text("0123456789*/-,#LW? ABCSUNMOJ@", max_size=40)))
@settings(max_examples=150)
def test_whatever_is_written_is_taken_or_refused_in_words(line: str) -> None:
    try:
        check_cron(line)
    except ValueError as error:
        assert str(error)
    else:
        assert next_due(line, BERLIN, us("2026-01-01T00:00:00+00:00")) is not None


@pytest.mark.parametrize("zone", ["Europe/Berln", "berlin", "Europe", "../x", "\0", "", None, 5, "CET+99999999999"])
def test_an_unknown_zone_is_refused(zone: object) -> None:
    with pytest.raises(ValueError, match="time zone"):
        check_zone(zone)
    if zone in ("Europe/Berln", "berlin"):
        with pytest.raises(ValueError, match="did you mean Europe/Berlin"):
            check_zone(zone)


def test_a_time_in_the_gap_of_spring_comes_right_behind_the_gap_and_once() -> None:
    assert told("30 2 * * *", BERLIN, "2026-03-28T12:00:00+01:00", 2) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_a_time_in_the_doubled_hour_of_autumn_comes_once_the_first_time() -> None:
    assert told("30 2 * * *", BERLIN, "2026-10-24T12:00:00+02:00", 2) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]
    # Asked between the two, or exactly at the first, it is over for that day.
    for after in ("2026-10-25T02:30:00+02:00", "2026-10-25T02:10:00+01:00", "2026-10-25T02:40:00+01:00"):
        assert told("30 2 * * *", BERLIN, after, 1) == ["2026-10-26T02:30:00+01:00"]


def test_a_line_with_a_star_follows_real_time_through_both_changes() -> None:
    spring = list(due_until("*/30 * * * *", BERLIN, us("2026-03-29T01:00:00+01:00"), us("2026-03-29T04:00:00+02:00")))
    autumn = list(due_until("*/30 * * * *", BERLIN, us("2026-10-25T01:00:00+02:00"), us("2026-10-25T04:00:00+01:00")))
    assert (len(spring), len(autumn)) == (4, 8)
    assert all(b - a == 30 * MINUTE for times in (spring, autumn) for a, b in pairwise(times))


def test_a_day_of_a_zone_without_its_midnight() -> None:
    """Where clocks go forward at midnight the day begins at one."""
    assert told("0 0 * * *", "America/Santiago", "2026-09-05T12:00:00-04:00", 2) == [
        "2026-09-06T01:00:00-03:00",
        "2026-09-07T00:00:00-03:00",
    ]


def by_hand(minutes: set[int], hours: set[int], zone: str, after: int, until: int) -> list[int]:
    """A line that names minutes and hours, the slow way: each local time that is meant, then the instant it stands for."""
    place = ZoneInfo(zone)
    day = datetime.fromtimestamp(after // SECOND, place).date() - timedelta(days=1)
    found: set[int] = set()
    while day <= datetime.fromtimestamp(until // SECOND, place).date():
        for hour in hours:
            for minute in minutes:
                at = datetime(day.year, day.month, day.day, hour, minute, tzinfo=place)
                while at.astimezone(UTC).astimezone(place).replace(tzinfo=None) != at.replace(tzinfo=None):
                    at += timedelta(minutes=1)  # by the clock on the wall: this time was left out
                found.add(int(at.timestamp()) * SECOND)
        day += timedelta(days=1)
    return sorted(at for at in found if after < at <= until)


@given(
    minutes=st.sets(st.integers(0, 59), min_size=1, max_size=4),
    hours=st.sets(st.integers(0, 5), min_size=1, max_size=4),
    zone=st.sampled_from(
        [BERLIN, "America/New_York", "Australia/Lord_Howe", "America/Santiago", "UTC", "Africa/Cairo"]
    ),
    day=st.sampled_from(
        ["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2026-04-05", "2026-10-04", "2026-09-06"]
    ),
    offset=st.integers(-2000, 2000),
)
@settings(max_examples=50)
def test_named_times_are_those_that_one_finds_by_hand(
    minutes: set[int], hours: set[int], zone: str, day: str, offset: int
) -> None:
    line = f"{','.join(map(str, sorted(minutes)))} {','.join(map(str, sorted(hours)))} * * *"
    after = us(f"{day}T00:00:00+00:00") + offset * MINUTE
    until = after + 2 * 86_400 * SECOND
    assert list(due_until(line, zone, after, until)) == by_hand(minutes, hours, zone, after, until)
