"""A step's ledger: intents are durable before the call, settlements go into the transaction that writes the step's end."""

from engine.attempts import Claimed, open_call, remaining_picousd
from engine.ledger import Intent, Settlement
from engine.store.database import Database


class StepBook:
    """engine.ledger.Book for one claimed step."""

    def __init__(self, database: Database, held: Claimed, worker_id: str) -> None:
        self._database = database
        self._held = held
        self._worker_id = worker_id
        self.settlements: list[Settlement] = []

    async def open(self, intent: Intent) -> None:
        """Raises: BudgetExceeded; Conflict where another worker holds the step now."""
        await self._database.write(lambda tx: open_call(tx, self._held, intent, self._worker_id))

    async def settle(self, settlement: Settlement) -> None:
        """Kept until the step's end is written."""
        self.settlements.append(settlement)

    async def remaining_picousd(self) -> int | None:
        """What is left of the run's budget, None without one."""
        return await self._database.read(lambda tx: remaining_picousd(tx, self._held.run["id"]))
