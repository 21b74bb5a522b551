"""Opens and settles calls against budgets by hand: one process's database, and a clock that only the test moves."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from engine.admission import open_admitted, settle_call
from engine.api_keys import ApiKey, KeyLimits, NewKey, create_key, new_secret
from engine.budget_spec import BudgetSpec, Origin
from engine.budgets import budget_view, put_budget
from engine.clock import new_id
from engine.errors import AIGatewayError
from engine.ledger import CallKind, CallScope, CostSource, Intent, Settlement, Usage
from engine.periods import Period
from engine.states import ErrorClass
from engine.store.budgets import all_budgets, open_picousd, settled_picousd
from engine.store.database import Database, Row, Tx

T = TypeVar("T")
SECOND = 1_000_000
DAY = 86_400 * SECOND
NOON_US = 1_800_014_400 * SECOND  # 2027-01-15 12:00 UTC


class Till:
    """`now` is its clock, in microseconds; amounts are pico-dollars."""

    def __init__(self, database: Database, worker: str = "w1") -> None:
        self.database = database
        self.worker = worker
        self.now = NOON_US
        self._tx: Tx | None = None

    def do(self, work: Callable[[Tx], T]) -> T:
        return self.database.write_now(work) if self._tx is None else work(self._tx)

    def together(self, work: Callable[[], None]) -> None:
        """All that `work` does is one transaction, as that of a commit group is."""

        def play(tx: Tx) -> None:
            self._tx = tx
            try:
                work()
            finally:
                self._tx = None

        self.database.write_now(play)

    def read(self, work: Callable[[Tx], T]) -> T:
        return asyncio.run(self.database.read(work))

    def set_budget(self, name: str, limit: int, period: Period = Period.DAY, **more: Any) -> None:
        self.do(lambda tx: put_budget(tx, BudgetSpec(name, limit, period, **more), Origin.HTTP, self.now))

    def make_key(self, name: str, **limits: Any) -> ApiKey:
        return self.do(lambda tx: create_key(tx, NewKey(name, KeyLimits(**limits)), new_secret(), self.now))

    def intent(self, reserve: int | None = 100, **more: Any) -> Intent:
        scope = {name: more.pop(name) for name in ("key_id", "workflow_name", "tags", "request_id") if name in more}
        found: dict[str, Any] = {
            "id": new_id(),
            "scope": CallScope(**{"request_id": new_id(), **scope}),
            "kind": CallKind.CHAT,
            "provider": "sim",
            "model": "echo",
            "requested_model": "local",
            "streamed": False,
            "at_us": self.now,
            "reserve_picousd": reserve,
            **more,
        }
        return Intent(**found)

    def try_open(self, intent: Intent) -> AIGatewayError | None:
        return self.do(lambda tx: open_admitted(tx, intent, self.worker).refused)

    def open(self, reserve: int | None = 100, **more: Any) -> str:
        """The call's id. Raises: what refused it."""
        intent = self.intent(reserve, **more)
        refused = self.try_open(intent)
        if refused is not None:
            raise refused
        return intent.id

    def settle(self, call_id: str, cost: int | None, tokens: int = 10) -> None:
        self.do(lambda tx: settle_call(tx, settlement(call_id, self.now, cost, tokens)))

    def view(self, name: str) -> dict[str, Any]:
        return self.read(lambda tx: budget_view(tx, self.row(tx, name), self.now))

    def sums(self, name: str) -> tuple[int, int, int]:
        """What the budget keeps as settled, the same from all rows, and what is reserved."""

        def read(tx: Tx) -> tuple[int, int, int]:
            row = self.row(tx, name)
            return (
                row["settled_picousd"],
                settled_picousd(tx, row, row["period_start_us"]),
                open_picousd(tx, row, self.now),
            )

        return self.read(read)

    @staticmethod
    def row(tx: Tx, name: str) -> Row:
        return {row["name"]: row for row in all_budgets(tx)}[name]


def settlement(call_id: str, now: int, cost: int | None, tokens: int = 10) -> Settlement:
    known = cost is not None
    return Settlement(
        id=call_id,
        success=known,
        usage=Usage(input=tokens) if known else None,
        cost_picousd=cost,
        cost_source=CostSource.PRICED if known else CostSource.UNKNOWN,
        finished_us=now,
        latency_us=1000,
        error_class=None if known else ErrorClass.TIMEOUT,
        error=None if known else "nobody saw its end",
    )


@contextmanager
def opened(url: str, worker: str = "w1") -> Iterator[Till]:
    database = Database(url)
    try:
        yield Till(database, worker)
    finally:
        database.close()
