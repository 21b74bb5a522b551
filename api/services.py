"""What the routes are given by the composition root. Holds parts, does nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from api.key_ring import KeyRing
from api.run_watch import RunWatch
from engine.admission import Admission, Standing, admit, open_admitted, settle_call
from engine.catalogue import Catalogue
from engine.ledger import Intent, Settlement, refuse_unknown_price
from engine.ports import Doorbell
from engine.store.database import Database, Row
from engine.tracing import Tracer
from mcp_bridge.bridge import McpBridge
from providers.failover import Failover
from providers.pricing import PriceBook
from providers.routing import Router


class CheckedDoorbell(Doorbell, Protocol):
    """A doorbell that can say whether it works."""

    def check(self) -> None:
        """Raises: RetryableError where the queue cannot be reached. Blocks for a moment."""
        ...


@dataclass(slots=True, eq=False)
class Services:
    """The parts of one API process. `process_id` is its row in `workers`.

    A reload of the configuration sets the fields below `reload_config` anew: read them where they are used, once a request.
    """

    version: str
    process_id: str
    database: Database
    keys: KeyRing
    catalogue: Catalogue
    doorbell: CheckedDoorbell
    failover: Failover
    prices: PriceBook
    bridge: McpBridge
    auth: Literal["off", "required"]
    metrics_open: bool
    on_loopback: bool
    lives: Callable[[Row], bool]  # whether a row of `workers` stands for a living process, as far as this host can tell
    run_watch: RunWatch
    closing: asyncio.Event  # set when the process is told to end: whoever waits for a run is answered at once
    reload_config: Callable[[], Awaitable[dict[str, Any]]]  # raises UserError with every mistake where it is refused
    router: Router
    workflows_dir: Path
    allow_private_networks: bool
    reject_unknown_prices: bool
    on_client_disconnect: Literal["cancel", "drain"]
    pass_tools: bool  # whether clients of `/mcp` see the tools of connected servers
    tracer: Tracer | None = None


@dataclass(slots=True)
class ChatBook:
    """engine.ledger.Book for calls that clients wait for: intent and outcome are durable when these return.

    `standings`: how the caller's key stood with its limits when the newest call was opened.
    """

    services: Services
    standings: tuple[Standing, ...] = ()

    def open(self, intent: Intent) -> Awaitable[None]:
        """Durable when it returns. Raises: BudgetExceeded, LimitExceeded, Forbidden; UserError for a price that has to be known."""
        if self.services.reject_unknown_prices:
            refuse_unknown_price(intent)
        services, key = self.services, self.services.keys.limits_of(intent.scope.key_id)
        return services.database.begin_write(lambda tx: open_admitted(tx, intent, services.process_id, key), self._note)

    async def check(self, intent: Intent) -> None:
        """The same for what is answered here, without an upstream: nothing is booked. Raises like `open`, prices aside."""
        self._note(await self.services.database.write(lambda tx: admit(tx, intent)))

    def settle(self, settlement: Settlement) -> Awaitable[None]:
        """Durable when it returns."""
        return self.services.database.begin_write(lambda tx: settle_call(tx, settlement), _nothing)

    def _note(self, admission: Admission) -> None:
        self.standings = admission.standings
        if admission.refused is not None:
            raise admission.refused


def _nothing(_: None) -> None:
    """There is nothing to take."""
