"""Cron lines: which are good, and when they come due in a time zone. Knows no schedules and no database.

Five fields as in cron(5) (minute, hour, day of month, month, day of week), or a name such as `@daily`. By the clock changes of a
zone, as Debian's cron does it: a line that names hours and minutes comes once each day that it is meant for, where the hour is
left out right behind the gap, where it comes twice the first time; a line whose minute or hour begins with `*` follows real time.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from difflib import get_close_matches
from itertools import takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
MAX_LINE = 200
_FIELDS = ("minute", "hour", "day-of-month", "month", "day-of-week")
_RANGES = {
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31 or L",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT",
}
_SECOND = 1_000_000
_SOME_DAY = datetime(2024, 1, 1, tzinfo=UTC)


def check_cron(line: object) -> str:
    """The line, if it is one that comes due. Raises: ValueError with a sentence to show."""
    if not isinstance(line, str):
        raise ValueError('has to be a cron line such as "0 7 * * *"')
    if len(line) > MAX_LINE:
        raise ValueError(f"a cron line has at most {MAX_LINE} characters")
    if line.strip().startswith("@") and line.strip().lower() not in NAMED:
        raise ValueError(f"there is no '{line.strip()[:30]}': write five fields, or one of {', '.join(NAMED)}")
    fields = _fields(line).split()
    if len(fields) != len(_FIELDS):
        seconds = "; seconds are not taken" if len(fields) == len(_FIELDS) + 1 else ""
        raise ValueError(
            f"has {len(fields)} field{'s' * (len(fields) != 1)}; a cron line has five: {' '.join(_FIELDS)}{seconds}"
        )
    try:
        comes = next(iter(CronSim(" ".join(fields), _SOME_DAY)), None)
    except CronSimError as error:
        raise ValueError(_explained(str(error), fields)) from None
    if comes is None:
        raise ValueError(_never(fields))
    return line


def check_zone(zone: object) -> str:
    """The zone's name, if there is one of that name. Raises: ValueError with a sentence to show."""
    try:
        if isinstance(zone, str) and zone:
            _place(zone)
            return zone
    except ValueError:
        known = {name.lower(): name for name in available_timezones()}
        near = [known[name] for name in get_close_matches(str(zone).lower()[:60], known, n=2, cutoff=0.6)]
        near += sorted(name for name in known.values() if name.lower().endswith("/" + str(zone).lower()))[:1]
        hint = f", did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
        raise ValueError(
            f"there is no time zone '{str(zone)[:60]}'{hint or '; write one such as Europe/Berlin'}"
        ) from None
    raise ValueError("has to be a time zone such as UTC or Europe/Berlin")


def due_times(line: str, zone: str, after_us: int) -> Iterator[int]:
    """Every instant after that one at which a good line comes due, ascending, in microseconds.

    Raises: ValueError where the machine does not know the zone (any more).
    """
    place = _place(zone)
    last = after_us
    for due in CronSim(_fields(line), datetime.fromtimestamp(after_us // _SECOND, place)):
        due_us = int(due.timestamp()) * _SECOND
        if due_us > last:  # where an hour comes twice, the first one may lie behind us already
            yield due_us
            last = due_us


def next_due(line: str, zone: str, after_us: int) -> int | None:
    """The first of them; None: it never comes again within 50 years. Raises: ValueError, as `due_times` does."""
    return next(due_times(line, zone, after_us), None)


def due_until(line: str, zone: str, after_us: int, until_us: int) -> Iterator[int]:
    """Those up to and with `until_us`."""
    return takewhile(lambda due: due <= until_us, due_times(line, zone, after_us))


def _fields(line: str) -> str:
    return NAMED.get(line.strip().lower(), line)


def _place(zone: str) -> tzinfo:
    if zone == "UTC":
        return UTC
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone '{zone[:60]}'") from None


def _explained(found: str, fields: list[str]) -> str:
    """The library says `Bad minute`, and the same for a day that its months do not have."""
    name = found.removeprefix("Bad ")
    if name not in _RANGES:
        return f"is no cron line ({found})"
    if name == "day-of-month" and _reads([*fields[:3], "*", *fields[4:]]):
        return _never(fields)
    written = fields[_FIELDS.index(name)]
    return (
        f"the {name} '{written[:60]}' has to be made of {_RANGES[name]}, *, lists (1,2), ranges (1-5) and steps (*/5)"
    )


def _reads(fields: list[str]) -> bool:
    try:
        CronSim(" ".join(fields), _SOME_DAY)
    except CronSimError:
        return False
    return True


def _never(fields: list[str]) -> str:
    return f"never comes: there is no day {fields[2]} in month {fields[3]} on weekday {fields[4]}".replace(
        " on weekday *", ""
    )
