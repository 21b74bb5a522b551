"""Durations as people write them: `200ms`, `30s`, `5m`, `1h`, `1d`, or a number of seconds; and instants in ISO 8601."""

import re
from datetime import datetime

from engine.clock import microseconds

DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"
LONGEST_S = 366 * 86_400.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")


def parse_duration(value: object, *, longest_s: float = LONGEST_S) -> float:
    """Seconds, above 0 and at most a year unless told otherwise. Raises: ValueError with a sentence to show."""
    seconds = _seconds(value)
    if not 0 < seconds <= longest_s:
        raise ValueError(f"a duration has to be above 0 and at most {longest_s / 86_400:.0f} days")
    return seconds


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return min(float(min(value, 1e12)), 1e12)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a duration: write 200ms, 30s, 5m, 1h, 1d, or a number of seconds")
    return float(match[1]) * _UNITS[match[2]]


def parse_instant_us(text: str) -> int:
    """An ISO 8601 time as microseconds since 1970; without a zone it is UTC. Raises: ValueError with a sentence to show."""
    try:
        return microseconds(datetime.fromisoformat(text))
    except ValueError:
        raise ValueError("not a time: write it as 2030-01-01T09:00:00Z") from None
