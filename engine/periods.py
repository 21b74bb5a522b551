"""A budget's periods: a day, a month (both by the calendar of a time zone), or all time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo


class Period(StrEnum):
    """How often a budget begins anew."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


@dataclass(frozen=True, slots=True)
class Span:
    """From `start_us` to before `resets_us`, in microseconds UTC; `resets_us` None: without an end."""

    start_us: int
    resets_us: int | None


def span_at(period: Period, zone: str, now_us: int) -> Span:
    """The period that `now_us` lies in. Midnight is the zone's own, so a day may have 23 or 25 hours. `zone` must exist."""
    if period is Period.TOTAL:
        return Span(0, None)
    place = ZoneInfo(zone)
    today = datetime.fromtimestamp(now_us / 1_000_000, place).date()
    if period is Period.DAY:
        first, following = today, today + timedelta(days=1)
    else:
        first = today.replace(day=1)
        following = (first + timedelta(days=31)).replace(day=1)
    return Span(*(_us(datetime(day.year, day.month, day.day, tzinfo=place)) for day in (first, following)))


def reset_text(resets_us: int | None, zone: str, now_us: int) -> str:
    """When it begins anew, as a clause: `resets tomorrow, at 2026-11-23T00:00:00+01:00`."""
    if resets_us is None:
        return "it does not reset: raise it to go on"
    place = ZoneInfo(zone)
    at = datetime.fromtimestamp(resets_us / 1_000_000, place)
    today = datetime.fromtimestamp(now_us / 1_000_000, place).date()
    tomorrow = "tomorrow, " if at.date() == today + timedelta(days=1) else ""
    return f"resets {tomorrow}at {at.isoformat()}"


def _us(at: datetime) -> int:
    return int(at.astimezone(UTC).timestamp()) * 1_000_000
