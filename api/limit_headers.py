"""`x-ratelimit-*`: how the caller's key stands with its limits, under OpenAI's names and in its formats.

A key without limits has no such headers. Limits count the last 60 seconds, so `reset` is when the oldest call that counts will
be a minute old and there is more room, rather than when a window ends.
"""

from collections.abc import Sequence

from engine.admission import Standing
from engine.errors import LimitExceeded


def standing_headers(standings: Sequence[Standing]) -> dict[str, str]:
    """On an answer: what is left once this request is counted, its tokens at their worst case."""
    headers: dict[str, str] = {}
    for standing in standings:
        headers |= _headers(standing.unit, standing.limit, standing.remaining, standing.resets_s)
    return headers


def exceeded_headers(error: LimitExceeded) -> dict[str, str]:
    """On a 429."""
    return _headers(error.unit, error.limit, error.remaining, error.retry_after_s or 0.0)


def duration_text(seconds: float) -> str:
    """As OpenAI writes a time to wait: `850ms`, `12.5s`, `1m0s`."""
    millis = max(0, round(seconds * 1000))
    if millis < 1000:
        return f"{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    text = f"{rest / 1000:g}s"
    return f"{minutes}m{text}" if minutes else text


def _headers(unit: str, limit: int, remaining: int, resets_s: float) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{unit}": str(limit),
        f"x-ratelimit-remaining-{unit}": str(remaining),
        f"x-ratelimit-reset-{unit}": duration_text(resets_s),
    }
