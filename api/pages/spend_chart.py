"""Money by day, model and workflow from the ledger's sums, and the bars of the chart in its units."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from api.pages.formats import counted, usd
from engine.money import to_usd
from engine.store.database import Row

DAYS = 30
HEIGHT = 100.0
_SLOT = 10.0
_GAP = 2.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Sum:
    """What some calls add up to."""

    name: str
    detail: str = ""
    calls: int = 0
    cost_picousd: int = 0
    unknown_calls: int = 0
    tokens: int = 0

    def add(self, row: Row) -> None:
        """One row of engine.store.requests.spend."""
        self.calls += row["calls"]
        self.cost_picousd += row["cost_picousd"]
        self.unknown_calls += row["unknown_calls"]
        self.tokens += row["total_tokens"]

    @property
    def cost_usd(self) -> float:
        """For people to read."""
        return to_usd(self.cost_picousd)


@dataclass(frozen=True, slots=True)
class Bar:
    """A day: its slot is _SLOT wide and HEIGHT high, the bar stands on the ground."""

    x: float
    slot: float
    left: float
    width: float
    top: float
    height: float
    title: str
    sum: Sum


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars from the oldest day to today; `top_usd` is the amount at the upper edge."""

    bars: tuple[Bar, ...]
    width: float
    height: float
    top_usd: float


def by_day(rows: Iterable[Row], today: int) -> list[Sum]:
    """One sum for each of the last DAYS days, today last."""
    days = {number: Sum(_date(number)) for number in range(today - DAYS + 1, today + 1)}
    for row in rows:
        if row["day"] in days:
            days[row["day"]].add(row)
    return list(days.values())


def last_days(days: Sequence[Sum], number: int, name: str) -> Sum:
    """The sum of the newest days."""
    whole = Sum(name)
    for day in days[-number:]:
        whole.calls += day.calls
        whole.cost_picousd += day.cost_picousd
        whole.unknown_calls += day.unknown_calls
        whole.tokens += day.tokens
    return whole


def by_name(rows: Iterable[Row], name: Callable[[Row], tuple[str, str]]) -> list[Sum]:
    """Sums by (name, detail), the most expensive first."""
    sums: dict[tuple[str, str], Sum] = {}
    for row in rows:
        key = name(row)
        sums.setdefault(key, Sum(*key)).add(row)
    return sorted(sums.values(), key=lambda found: (-found.cost_picousd, -found.tokens, -found.calls, found.name))


def chart(days: Sequence[Sum]) -> Chart:
    """The highest day fills the height; without any spend all bars are flat."""
    most = max((day.cost_picousd for day in days), default=0)
    bars = tuple(_bar(number, day, most) for number, day in enumerate(days))
    return Chart(bars, _SLOT * len(days), HEIGHT, to_usd(most))


def _bar(number: int, day: Sum, most: int) -> Bar:
    height = HEIGHT * day.cost_picousd / most if most else 0.0
    if day.cost_picousd:
        height = max(height, 1.0)
    title = f"{day.name}: {usd(day.cost_usd)}, {counted(day.calls, 'call')}, {counted(day.tokens, 'token')}"
    if day.unknown_calls:
        title += f", {counted(day.unknown_calls, 'call')} of unknown price"
    x = number * _SLOT
    return Bar(x, _SLOT, x + _GAP / 2, _SLOT - _GAP, round(HEIGHT - height, 2), round(height, 2), title, day)


def _date(number: int) -> str:
    return (_EPOCH + timedelta(days=number)).date().isoformat()
