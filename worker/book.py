"""A step's ledger: intents are durable before the call, settlements go into the transaction that writes the step's end."""

from engine.admission import settle_call
from engine.attempts import Claimed, open_call, remaining_picousd
from engine.clock import now_us
from engine.errors import RetryableError
from engine.ledger import CallScope, Intent, Settlement, refuse_unknown_price, settle_free
from engine.states import ErrorClass
from engine.store.database import Database
from engine.tracing import Span
from worker.patience import write_patiently


class StepBook:
    """engine.ledger.Book for one claimed step."""

    def __init__(
        self, database: Database, held: Claimed, *, reject_unknown_prices: bool = False, span: Span | None = None
    ) -> None:
        self._database = database
        self._held = held
        self._reject_unknown_prices = reject_unknown_prices
        self._span = span
        self._settlements: list[Settlement] | None = []

    async def open(self, intent: Intent) -> None:
        """Raises: BudgetExceeded; LimitExceeded; Forbidden for a model that the run's key may not use; UserError for a price that
        has to be known; Conflict where another worker holds the step.
        """
        if self._reject_unknown_prices:
            refuse_unknown_price(intent)
        try:
            refused = await self._database.write(lambda tx: open_call(tx, self._held, intent))
        except RetryableError as error:
            # The intent may be there all the same: nothing was sent, and nobody will say so later. `providers.booking` says it of a
            # model's call too, and the first settlement stands; calls of tools and plain requests have this place alone.
            await self.settle(settle_free(intent, now_us(), ErrorClass.CONNECTION, f"not sent: {error.message}"))
            raise
        if refused is not None:
            raise refused

    async def settle(self, settlement: Settlement) -> None:
        """Kept until the step's end is written; one that comes behind it is written at once."""
        if self._settlements is not None:
            self._settlements.append(settlement)
        else:
            await write_patiently(self._database, lambda tx: settle_call(tx, settlement))

    def take(self) -> tuple[Settlement, ...]:
        """What is to be written with the step's end, which comes now."""
        taken = tuple(self._settlements or ())
        self._settlements = None
        return taken

    async def remaining_picousd(self) -> int | None:
        """What is left for the next call in all budgets that count it, None without one."""
        scope = self.scope
        return await self._database.read(lambda tx: remaining_picousd(tx, scope, now_us()))

    @property
    def scope(self) -> CallScope:
        """On whose behalf the step's calls are made."""
        run = self._held.run
        return CallScope(
            request_id=f"{self._held.step_id}.{self._held.attempt}",
            workflow_name=run["workflow_name"],
            run_id=run["id"],
            step_id=self._held.key,
            attempt=self._held.attempt,
            key_id=run["key_id"],
            tags=self._held.tags,
            span=self._span,
        )
