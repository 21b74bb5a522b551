"""Exact money: an integer of pico-dollars (1 USD = 10^12), because one token can cost 2e-8 USD and SQLite sums decimals as floats."""

from decimal import ROUND_HALF_EVEN, Decimal

PICO_PER_USD = 10**12


def to_picousd(usd: Decimal) -> int:
    """Round an amount in USD to whole pico-dollars."""
    return int((usd * PICO_PER_USD).to_integral_value(rounding=ROUND_HALF_EVEN))


def to_usd(picousd: int) -> float:
    """The JSON number for an exact amount."""
    return picousd / PICO_PER_USD  # correctly rounded, as a division of integers is


def usd_text(picousd: int) -> str:
    """An exact amount as plain decimal text without trailing zeros, such as `0.00042`."""
    dollars, rest = divmod(abs(picousd), PICO_PER_USD)
    sign = "-" if picousd < 0 else ""
    return f"{sign}{dollars}.{rest:012d}".rstrip("0").rstrip(".")
