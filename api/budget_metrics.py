"""Budgets in `/metrics`, from the database: the same in every process."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from engine.budget_spec import Origin
from engine.budgets import budget_view
from engine.store.budgets import all_budgets
from engine.store.database import Tx

_MOST = 200  # budgets by name; keys' own come last
_FIGURES: Sequence[tuple[str, str, Callable[[dict[str, Any]], float]]] = (
    ("limit_usd", "What may be spent in a period.", lambda budget: budget["limit_usd"]),
    (
        "spent_usd",
        "Spent in this period, calls of unknown cost at their worst case.",
        lambda budget: budget["spent_usd"],
    ),
    ("reserved_usd", "The worst case of calls whose end is not known.", lambda budget: budget["reserved_usd"]),
    ("alerts", "Thresholds reached in this period, a refused call among them.", lambda budget: len(budget["alerts"])),
)


def read_budgets(tx: Tx, now: int) -> list[dict[str, Any]]:
    """The first of them, as users see them."""
    rows = sorted(all_budgets(tx), key=lambda row: (row["origin"] == Origin.KEY.value, row["name"]))
    return [budget_view(tx, row, now) for row in rows[:_MOST]]


def budget_families(budgets: Sequence[dict[str, Any]]) -> Iterator[Metric]:
    """A gauge for each figure: a period that begins anew begins at 0."""
    for name, told, figure in _FIGURES:
        family = GaugeMetricFamily(f"aigateway_budget_{name}", told, labels=("budget", "scope", "period"))
        for budget in budgets:
            family.add_metric((budget["name"], budget["scope"], budget["period"]), figure(budget))
        yield family
