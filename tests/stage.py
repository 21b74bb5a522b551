"""A database in which things happened: runs, steps and calls played through the engine's own transitions, without a worker."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from api.key_ring import KeyRing
from api.run_watch import RunWatch
from api.services import Services
from engine.attempts import Claimed, Ended, claim, complete
from engine.catalogue import Catalogue
from engine.clock import new_id, now_us
from engine.ledger import CallKind, CallScope, CostSource, Intent, Settlement, Usage
from engine.loader import load
from engine.ports import Outcome
from engine.states import ErrorClass, StepStatus
from engine.store.database import Database, Tx
from engine.store.requests import open_request, settle_request
from engine.store.steps import steps_in_status
from engine.store.workers import insert_worker
from engine.submission import Submission, submit
from engine.workflows import find, put
from mcp_bridge.bridge import McpBridge
from mcp_bridge.servers import McpServerConfig
from providers.failover import Failover
from providers.pricing import PriceBook
from providers.routing import Router

T = TypeVar("T")


class Bell:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.rung: list[str] = []

    def ring(self, step_id: str, priority: str) -> None:
        self.rung.append(step_id)

    def ended(self, run_id: str) -> None:
        """Nobody waits."""

    def check(self) -> None:
        """Always there."""


async def _no_configuration() -> dict[str, Any]:
    raise AssertionError("nothing here has a configuration to read")


class Stage:
    """The parts of an API process around one database, and the hands of a worker."""

    def __init__(self, url: str, servers: dict[str, McpServerConfig] | None = None) -> None:
        self.database = Database(url)
        self.catalogue = Catalogue()
        self.bell = Bell()
        self.worker = new_id()
        self._servers = servers or {}
        now = now_us()
        row = {"id": self.worker, "kind": "worker", "host": "here", "pid": 1, "started_us": now}
        self.write(lambda tx: insert_worker(tx, {**row, "lease_until_us": now + 3_600_000_000}))

    def write(self, work: Callable[[Tx], T]) -> T:
        return self.database.write_now(work)

    def read(self, work: Callable[[Tx], T]) -> T:
        return asyncio.run(self.database.read(work))

    def services(self) -> Services:
        closing = asyncio.Event()
        return Services(
            on_loopback=False,
            lives=lambda _: True,
            version="1.2.3",
            process_id=new_id(),
            database=self.database,
            keys=KeyRing(self.database),
            catalogue=self.catalogue,
            doorbell=self.bell,
            router=Router({}, {}),
            failover=Failover(PriceBook()),
            prices=PriceBook(),
            bridge=McpBridge(self._servers, environment={}),
            workflows_dir=Path("workflows"),
            auth="off",
            metrics_open=False,
            allow_private_networks=True,
            reject_unknown_prices=False,
            on_client_disconnect="cancel",
            pass_tools=False,
            run_watch=RunWatch(self.database, closing),
            closing=closing,
            reload_config=_no_configuration,
        )

    def submit(self, text: str, value: Any = None, **more: Any) -> str:
        """A run's id; the definition is stored on the way."""
        definition = load(text)

        def work(tx: Tx) -> str:
            put(tx, definition, "api", now_us())
            asked = Submission(definition, find(tx, definition.name), value or {}, **more)
            return submit(tx, self.catalogue, asked, now_us()).run["id"]

        return self.write(work)

    def claim(self, run_id: str) -> Claimed:
        """The run's next ready step."""

        def work(tx: Tx) -> Claimed | None:
            ready = steps_in_status(tx, run_id, StepStatus.READY)
            return claim(tx, self.catalogue, ready[0]["id"], self.worker, now_us())

        held = self.write(work)
        assert held is not None
        return held

    def complete(self, held: Claimed, outcome: Outcome) -> None:
        """The step's outcome."""
        done = self.write(lambda tx: complete(tx, self.catalogue, held, Ended(outcome), now_us()))
        assert done.accepted

    def open(self, *, scope: CallScope | None = None, call_id: str | None = None, **more: Any) -> str:
        """A call's intent; returns its id."""
        what: dict[str, Any] = {"provider": "openai", "model": "gpt-6-luna", "at_us": now_us(), **more}
        intent = Intent(
            id=call_id or new_id(),
            scope=scope or CallScope("request"),
            kind=CallKind.CHAT,
            requested_model=what["model"],
            streamed=True,
            reserve_picousd=None,
            **what,
        )
        self.write(lambda tx: open_request(tx, intent, self.worker))
        return intent.id

    def settle(self, call_id: str, **more: Any) -> None:
        """A call's end; a good one unless told otherwise."""
        what: dict[str, Any] = {
            "success": True,
            "usage": Usage(input=100, cache_read=20, cache_write=5, output=40, reasoning=10),
            "cost_picousd": 1_500_000_000,
            "cost_source": CostSource.PRICED,
            "finished_us": now_us(),
            "latency_us": 1_200_000,
            "ttft_us": 300_000,
            "status_code": 200,
            **more,
        }
        settlement = Settlement(id=call_id, **what)
        self.write(lambda tx: settle_request(tx, settlement))

    def fail(self, call_id: str, error_class: ErrorClass = ErrorClass.RATE_LIMIT, **more: Any) -> None:
        """A call that failed and cost nothing."""
        free = {"cost_picousd": 0, "cost_source": CostSource.FREE, "usage": None, "ttft_us": None, "status_code": 429}
        self.settle(call_id, **{**free, "success": False, "error_class": error_class, "error": "slow down", **more})

    def scope(self, held: Claimed) -> CallScope:
        """On behalf of a claimed step."""
        run = held.run
        return CallScope(held.step_id, run["workflow_name"], run["id"], held.key, held.attempt)

    def close(self) -> None:
        self.database.close()
