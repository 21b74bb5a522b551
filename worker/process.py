"""The life of one worker process: lock, register, work, drain. Built by the composition root, which hands in every part."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from dramatiq import Broker, Worker

from engine.catalogue import Catalogue
from engine.clock import new_id, now_us
from engine.crash_points import CrashPoint
from engine.errors import RetryableError
from engine.ports import StepExecutor
from engine.store.database import Database
from engine.sweeper import bury
from worker.broker import BrokerDoorbell, declare_bells
from worker.deliveries import Deliveries
from worker.housekeeping import Heartbeat, Sweeper, register
from worker.liveness import LifeLock, runtime_folder
from worker.retention import Keep, Retention
from worker.rules import Rules
from worker.runner import StepLimits, StepRunner

log = structlog.get_logger(__name__)

_BELL_THREADS = 4  # they only hand over
_POLL_MS = 50  # how long a bell can wait in Redis: Dramatiq polls


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What a worker process is made of. `close` ends the executors' own connections."""

    database_url: str
    crash_at: CrashPoint | None
    make_broker: Callable[[], Broker]
    executors: dict[str, StepExecutor]
    concurrency: int
    grace_s: float
    keep: Keep
    rules: Rules
    beside: Callable[[Database], Awaitable[None]]  # runs until it is cancelled
    metrics_host: str
    metrics_port: int | None
    close: Callable[[], Awaitable[None]]


async def run_worker(parts: WorkerParts) -> int:
    """Work until SIGTERM, SIGINT or the loss of the lease; returns the exit code. The steps under way get their grace."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    process = _Process(parts, stop)
    beside = process.start()
    await stop.wait()
    await process.end(beside)
    return 1 if process.lost else 0


class _Process:
    """All that a worker process holds, from its lock to its bells. Made, started and ended once, on the running loop."""

    def __init__(self, parts: WorkerParts, stop: asyncio.Event) -> None:
        self._parts = parts
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self.lost = False
        self._id = new_id()
        self._locks = runtime_folder()
        self._lock = LifeLock(self._locks, self._id)
        self._database = Database(parts.database_url, crash_at=parts.crash_at)
        self._leases = Database(parts.database_url, readers=0, crash_at=parts.crash_at)
        register(self._leases, self._id, "worker")
        self._heartbeat = Heartbeat(self._leases, self._id, self._lease_lost)
        self._catalogue = Catalogue()
        self._broker = parts.make_broker()
        self._doorbell = BrokerDoorbell(self._broker, declare_bells(self._broker, self._answer))
        limits = StepLimits(self._id, parts.concurrency, parts.rules)
        self._runner = StepRunner(
            self._database, self._catalogue, self._doorbell, parts.executors, limits, observe=_observer(parts)
        )
        self._deliveries = Deliveries(self._database, parts.rules, woken=self._runner.run_ended)
        self._bells = Worker(self._broker, worker_threads=_BELL_THREADS, worker_timeout=_POLL_MS)

    def start(self) -> list[asyncio.Future[None]]:
        """Take bells, sweep, deliver, tell metrics; returns what runs beside."""
        self._stop_metrics = _serve_metrics(self._parts, self._runner)
        sweeper = Sweeper(
            self._database,
            self._catalogue,
            self._doorbell,
            self._runner,
            worker_id=self._id,
            locks=self._locks,
        )
        self._bells.start()
        log.info("worker started", action="start", worker=self._id, pid=os.getpid())
        retention = Retention(self._database, self._parts.keep)
        beside = (sweeper.run(), self._deliveries.run(), retention.run(), self._parts.beside(self._database))
        return [asyncio.ensure_future(work) for work in beside]

    async def end(self, beside: list[asyncio.Future[None]]) -> None:
        """Drain, close everything, and tell the database: nobody has to find this process dead."""
        await self._runner.drain(0 if self.lost else self._parts.grace_s)
        await asyncio.to_thread(self._bells.stop, 2000)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await self._deliveries.close()
        self._stop_metrics()
        await self._parts.close()
        self._heartbeat.stop()
        self._doorbell.close()
        try:
            await self._database.write(lambda tx: bury(tx, self._catalogue, self._id, now_us(), only_if_lapsed=False))
        except RetryableError as error:
            log.warning("the end was not told, the lease will run out", action="stop", error=error.message)
        self._database.close()
        self._leases.close()
        self._broker.close()
        self._lock.release()
        log.info("worker stopped", action="stop", worker=self._id)

    def _answer(self, step_id: str) -> None:
        self._runner.answer(step_id)

    def _lease_lost(self) -> None:
        """Called on the heartbeat's thread."""
        self.lost = True
        log.error("lease lost, stopping", action="renew", worker=self._id)
        self._loop.call_soon_threadsafe(self._stop.set)


def _observer(parts: WorkerParts) -> Callable[[str, str, float], None] | None:
    if parts.metrics_port is None:
        return None
    from worker.metrics import observe_step  # noqa: PLC0415 - only where a port was asked for

    return observe_step


def _serve_metrics(parts: WorkerParts, runner: StepRunner) -> Callable[[], None]:
    """Serve them where a port was asked for; a port that is taken costs the metrics, not the work."""
    if parts.metrics_port is None:
        return lambda: None
    from worker.metrics import serve_metrics  # noqa: PLC0415 - only where a port was asked for

    try:
        return serve_metrics(parts.metrics_host, parts.metrics_port, lambda: len(runner.in_flight))
    except OSError as error:
        log.error("no metrics", action="metrics", port=parts.metrics_port, error=error.strerror)
        return lambda: None
