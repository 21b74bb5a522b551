"""The life of one worker process: lock, register, work, drain. Built by the composition root, which hands in every part."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from dramatiq import Broker, Worker

from engine.catalogue import Catalogue
from engine.clock import new_id, now_us
from engine.ports import StepExecutor
from engine.store.database import Database
from engine.sweeper import bury
from worker.broker import BrokerDoorbell, declare_bells
from worker.deliveries import Deliveries
from worker.housekeeping import Heartbeat, Sweeper, register
from worker.liveness import LifeLock, runtime_folder
from worker.runner import StepLimits, StepRunner

log = structlog.get_logger(__name__)

_BELL_THREADS = 4  # they only hand over
_POLL_MS = 50  # how long a bell can wait in Redis: Dramatiq polls


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What a worker process is made of. `close` ends the executors' own connections."""

    database_url: str
    make_broker: Callable[[], Broker]
    executors: dict[str, StepExecutor]
    concurrency: int
    grace_s: float
    webhook_secret: str
    allow_private_networks: bool
    reject_unknown_prices: bool
    metrics_host: str
    metrics_port: int | None
    close: Callable[[], Awaitable[None]]


async def run_worker(parts: WorkerParts) -> int:
    """Work until SIGTERM, SIGINT or the loss of the lease; returns the exit code. The steps under way get their grace."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with _working(parts, stop) as lost:
        await stop.wait()
    return 1 if lost.is_set() else 0


@asynccontextmanager
async def _working(parts: WorkerParts, stop: asyncio.Event) -> AsyncGenerator[threading.Event, None]:
    worker_id = new_id()
    locks = runtime_folder()
    lock = LifeLock(locks, worker_id)
    database, leases = Database(parts.database_url), Database(parts.database_url, readers=0)
    register(leases, worker_id, "worker")
    loop = asyncio.get_running_loop()
    lost = threading.Event()

    def lease_lost() -> None:
        lost.set()
        log.error("lease lost, stopping", action="renew")
        loop.call_soon_threadsafe(stop.set)

    catalogue = Catalogue()
    broker = parts.make_broker()
    answering: list[StepRunner] = []
    doorbell = BrokerDoorbell(broker, declare_bells(broker, lambda step_id: answering[0].answer(step_id)))
    runner = StepRunner(
        database,
        catalogue,
        doorbell,
        parts.executors,
        StepLimits(worker_id, parts.concurrency, parts.reject_unknown_prices),
        observe=_observer(parts),
    )
    stop_metrics = _serve_metrics(parts, runner)
    answering.append(runner)
    sweeper = Sweeper(database, catalogue, doorbell, runner, worker_id=worker_id, locks=locks)
    deliveries = Deliveries(
        database,
        parts.webhook_secret,
        allow_private_networks=parts.allow_private_networks,
        woken=runner.run_ended,
    )
    heartbeat = Heartbeat(leases, worker_id, lease_lost)
    bells = Worker(broker, worker_threads=_BELL_THREADS, worker_timeout=_POLL_MS)
    bells.start()
    beside = [asyncio.create_task(sweeper.run()), asyncio.create_task(deliveries.run())]
    log.info("worker started", action="start", worker=worker_id, pid=os.getpid())
    try:
        yield lost
    finally:
        await runner.drain(0 if lost.is_set() else parts.grace_s)
        await asyncio.to_thread(bells.stop, 2000)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await deliveries.close()
        stop_metrics()
        await parts.close()
        heartbeat.stop()
        doorbell.close()
        # A clean end is told at once: nobody has to find this process dead.
        await database.write(lambda tx: bury(tx, catalogue, worker_id, now_us(), only_if_lapsed=False))
        database.close()
        leases.close()
        broker.close()
        lock.release()
        log.info("worker stopped", action="stop", worker=worker_id)


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
