"""Figures as people read them. What is not known is a dash, never a zero."""

from datetime import datetime
from decimal import Decimal

NONE = "\u2013"


def usd(amount: float | None) -> str:
    """`$12.30`, `$0.50`, `$0.0042`; amounts below a hundredth of a cent with two significant digits."""
    if amount is None:
        return NONE
    if amount >= 1 or round(amount, 2) == amount:
        return f"${amount:,.2f}"
    if amount >= 0.0001:
        return f"${amount:.4f}"
    return f"${Decimal(f'{amount:.1e}'):f}"


def count(number: int | None) -> str:
    """Thousands apart."""
    return NONE if number is None else f"{number:,}"


def counted(number: int, noun: str) -> str:
    """`1 call`, `1,234 calls`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(milliseconds: float | None) -> str:
    """`830 ms`, `4.2 s`, `3 min 12 s`, `2 h 05 min`."""
    if milliseconds is None:
        return NONE
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def moment(text: str | None) -> str:
    """An ISO time to the second, in UTC as it is stored."""
    return NONE if text is None else datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S")


def short_id(text: str) -> str:
    """The end of an id: UUIDv7 begin alike."""
    return text[-8:]
