"""Days and months by the calendar of a zone: without gaps, without overlap, and said in words."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.periods import Period, Span, reset_text, span_at

SECOND = 1_000_000
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "America/Sao_Paulo")


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("period", "zone", "now", "start", "resets"),
    [
        (Period.DAY, "UTC", "2026-11-22T23:59:59Z", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"),
        (Period.DAY, "UTC", "2026-11-23T00:00:00Z", "2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"),
        (Period.DAY, "Asia/Kathmandu", "2026-11-22T18:14:00Z", "2026-11-21T18:15:00Z", "2026-11-22T18:15:00Z"),
        (Period.DAY, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
        (Period.MONTH, "UTC", "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
        (Period.MONTH, "UTC", "2026-12-31T12:00:00Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        (Period.MONTH, "America/New_York", "2026-11-01T03:00:00Z", "2026-10-01T04:00:00Z", "2026-11-01T04:00:00Z"),
    ],
)
def test_where_a_period_begins_and_ends(period: Period, zone: str, now: str, start: str, resets: str) -> None:
    assert span_at(period, zone, at(now)) == Span(at(start), at(resets))


def test_all_time_has_no_end() -> None:
    assert span_at(Period.TOTAL, "UTC", at("2026-11-22T00:00:00Z")) == Span(0, None)


@given(
    now=st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1)),  # noqa: DTZ001 - made aware below
    zone=st.sampled_from(ZONES),
    period=st.sampled_from([Period.DAY, Period.MONTH]),
)
def test_a_moment_lies_in_its_period_and_the_next_one_follows_at_once(now: datetime, zone: str, period: Period) -> None:
    now_us = int(now.replace(tzinfo=UTC).timestamp()) * SECOND
    span = span_at(period, zone, now_us)
    assert span.resets_us is not None
    assert span.start_us <= now_us < span.resets_us
    assert span_at(period, zone, span.start_us) == span
    assert span_at(period, zone, span.resets_us).start_us == span.resets_us
    midnight = datetime.fromtimestamp(span.start_us / SECOND, ZoneInfo(zone))
    assert period is Period.DAY or midnight.day == 1


def test_the_reset_is_said_as_clients_understand_it() -> None:
    now = at("2026-11-22T12:00:00Z")
    tomorrow = span_at(Period.DAY, "Europe/Berlin", now).resets_us
    assert reset_text(tomorrow, "Europe/Berlin", now) == "resets tomorrow, at 2026-11-23T00:00:00+01:00"
    next_month = span_at(Period.MONTH, "UTC", now).resets_us
    assert reset_text(next_month, "UTC", now) == "resets at 2026-12-01T00:00:00+00:00"
    assert reset_text(None, "UTC", now) == "it does not reset: raise it to go on"
