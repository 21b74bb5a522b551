"""A ledger in memory that refuses what a ledger may never see, and the pieces that tests of providers are built from."""

from decimal import Decimal
from typing import Any

from upstreams.control import Price

from engine.errors import BudgetExceeded
from engine.ledger import CallScope, CostSource, Intent, Settlement
from providers.provider import ModelPrice, Provider
from providers.routing import Candidate, Route

SCOPE = CallScope(request_id="req-test")
PRICES = {"*": ModelPrice(Decimal(1), Decimal(2), Decimal("0.1"), Decimal("1.25"))}  # upstreams.control.Price
assert Price() == Price(Decimal(1), Decimal("0.1"), Decimal("1.25"), Decimal(2))


class MemoryBook:
    """Keeps rows; every settlement belongs to an open intent and comes once."""

    def __init__(self, budget_picousd: int | None = None) -> None:
        self.intents: dict[str, Intent] = {}
        self.settlements: dict[str, Settlement] = {}
        self._budget = budget_picousd

    async def open(self, intent: Intent) -> None:
        if self._budget is not None and (intent.reserve_picousd or 0) > self._budget:
            raise BudgetExceeded("The worst case of this call does not fit.")
        assert intent.id not in self.intents, "an intent was written twice"
        self.intents[intent.id] = intent

    async def settle(self, settlement: Settlement) -> None:
        assert settlement.id in self.intents, "a settlement without its intent"
        assert settlement.id not in self.settlements, "a call was settled twice"
        assert (settlement.cost_picousd is None) == (settlement.cost_source is CostSource.UNKNOWN)
        self.settlements[settlement.id] = settlement

    @property
    def rows(self) -> list[Settlement]:
        """Settlements in the order of their intents; every call has to have ended."""
        assert self.intents.keys() == self.settlements.keys(), "a call was never settled"
        return [self.settlements[identity] for identity in self.intents]

    @property
    def cost_picousd(self) -> int:
        return sum(row.cost_picousd or 0 for row in self.rows)


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def function_tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "description": "A tool.", "parameters": parameters}}


def route(*candidates: tuple[Provider, str]) -> Route:
    return Route("asked", tuple(Candidate(provider, model) for provider, model in candidates))
