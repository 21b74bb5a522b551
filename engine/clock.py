"""Time and identity: UTC as integer microseconds, ids as UUIDv7 (RFC 9562). Injected where tests need to steer them."""

import os
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], int]
"""Returns now, in microseconds since 1970 UTC."""

_RANDOM = random.Random()  # its own: whoever seeds the common one must not make ids come twice
os.register_at_fork(after_in_child=_RANDOM.seed)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def now_us() -> int:
    """Now, in microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def new_id() -> str:
    """A new UUIDv7 as text: sorts by time of creation, to the microsecond in `rand_a` (RFC 9562 §6.2 method 3).

    Unique, not secret: asking the system for random bytes costs more than all the rest of it. A forked child starts anew.
    """
    microseconds = now_us()
    milliseconds, rest = divmod(microseconds, 1000)
    fraction = rest * 4096 // 1000
    value = milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | _RANDOM.getrandbits(62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def iso(at_us: int) -> str:
    """An instant as ISO 8601 text in UTC with microseconds, such as `2026-11-22T07:00:00.000000Z`."""
    return (_EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def microseconds(at: datetime) -> int:
    """An instant as integer microseconds; without a zone it is UTC. Raises: ValueError outside the years 1 to 9999 of UTC."""
    try:
        return ((at if at.tzinfo is None else at.astimezone(UTC)).replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
    except OverflowError:
        raise ValueError("a time has to lie in the years 1 to 9999 of UTC") from None
