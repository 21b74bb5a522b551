"""What every process that runs steps holds, from its lock to its end, whether it runs many or a single one."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from dramatiq import Broker

from engine.catalogue import Catalogue
from engine.clock import new_id, now_us
from engine.crash_points import CrashPoint
from engine.errors import RetryableError
from engine.ports import StepExecutor
from engine.store.database import READERS, Database
from engine.sweeper import bury
from engine.tracing import Tracer
from worker.broker import BrokerDoorbell, declare_bells
from worker.holdings import Holdings
from worker.housekeeping import Heartbeat, register
from worker.liveness import LifeLock, runtime_folder
from worker.neighbours import ALONE
from worker.retention import Keep
from worker.rules import Rules
from worker.runner import StepLimits, StepRunner

log = structlog.get_logger(__name__)


Observe = Callable[[str, str, float], None]
"""Called for each step that ended: its type, its outcome, its seconds."""


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What a worker process is made of. `isolate` asks for a step's own process; `close` ends the executors' own connections."""

    database_url: str
    crash_at: CrashPoint | None
    make_broker: Callable[[], Broker]
    isolate: Callable[[str], None]
    executors: dict[str, StepExecutor]
    concurrency: int
    grace_s: float
    keep: Keep
    rules: Rules
    beside: Callable[[Database], Awaitable[None]]  # runs until it is cancelled, beside many steps
    metrics_host: str
    metrics_port: int | None
    share_health: Callable[[Database], None]  # with the other processes on that database
    close: Callable[[], Awaitable[None]]
    tracer: Tracer | None = None


class StepProcess:
    """Made and ended once, on the running loop. With `kept_by` it is there for a single step; that lock is its supervisor's."""

    def __init__(self, parts: WorkerParts, *, observe: Observe | None = None, kept_by: str | None = None) -> None:
        alone = kept_by is not None
        self._grace_s = parts.grace_s
        self._close_parts = parts.close
        self._loop = asyncio.get_running_loop()
        self.lost = False
        self.stopping = asyncio.Event()  # set by SIGTERM, SIGINT and the loss of the lease
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.stopping.set)
        self.id = new_id()
        self.locks = runtime_folder()
        self._lock = LifeLock(self.locks, self.id, kept_by=kept_by or "")
        self.database = Database(parts.database_url, readers=1 if alone else READERS, crash_at=parts.crash_at)
        self._leases = Database(parts.database_url, readers=0, crash_at=parts.crash_at)
        register(self._leases, self.id, ALONE if alone else "worker")
        parts.share_health(self.database)
        self._heartbeat = Heartbeat(self._leases, self.id, self._lease_lost)
        self.catalogue = Catalogue()
        self.broker = parts.make_broker()
        self.doorbell = BrokerDoorbell(self.broker, declare_bells(self.broker, self._answer))
        limits = StepLimits(self.id, 1 if alone else parts.concurrency, parts.rules, alone=alone)
        self.runner = StepRunner(self.database, self.catalogue, self.doorbell, parts.executors, limits, observe=observe)
        self.runner.tracer = parts.tracer
        self._beside = asyncio.create_task(
            Holdings(self.database, self.catalogue, self.doorbell, self.runner, self.id).run()
        )

    async def drain(self) -> None:
        """Let what is under way finish within its grace, and hand the rest back."""
        await self.runner.drain(0 if self.lost else self._grace_s)

    async def end(self) -> None:
        """Close everything, and tell the database: nobody has to find this process dead."""
        self._beside.cancel()
        await asyncio.gather(self._beside, return_exceptions=True)
        await self._close_parts()
        self._heartbeat.stop()
        self.doorbell.close()
        try:
            await self.database.write(lambda tx: bury(tx, self.catalogue, self.id, now_us(), only_if_lapsed=False))
        except RetryableError as error:
            log.warning("the end was not told, the lease will run out", action="stop", error=error.message)
        self.database.close()
        self._leases.close()
        self.broker.close()
        self._lock.release()

    def _answer(self, step_id: str) -> None:
        self.runner.answer(step_id)

    def _lease_lost(self) -> None:
        """Called on the heartbeat's thread."""
        self.lost = True
        log.error("lease lost, stopping", action="renew", worker=self.id)
        self._loop.call_soon_threadsafe(self.stopping.set)
