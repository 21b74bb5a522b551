"""Durations as people write them: `200ms`, `30s`, `5m`, `1h`, `1d`, or a number of seconds."""

import re

DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"
LONGEST_S = 366 * 86_400.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")


def parse_duration(value: object) -> float:
    """Seconds, above 0 and at most a year. Raises: ValueError with a sentence to show."""
    seconds = _seconds(value)
    if not 0 < seconds <= LONGEST_S:
        raise ValueError("a duration has to be above 0 and at most 366 days")
    return seconds


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return min(float(min(value, 1e12)), 1e12)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a duration: write 200ms, 30s, 5m, 1h, 1d, or a number of seconds")
    return float(match[1]) * _UNITS[match[2]]
