"""The life of one worker process: lock, register, work, drain. Built by the composition root, which hands in every part."""

import asyncio
import os
from collections.abc import Callable

import structlog
from dramatiq import Worker

from worker.deliveries import Deliveries
from worker.housekeeping import Sweeper
from worker.neighbours import Neighbours
from worker.retention import Retention
from worker.runner import StepRunner
from worker.step_process import Observe, StepProcess, WorkerParts

log = structlog.get_logger(__name__)

_BELL_THREADS = 4  # they only hand over
_POLL_MS = 50  # how long a bell can wait in Redis: Dramatiq polls


async def run_worker(parts: WorkerParts) -> int:
    """Work until SIGTERM, SIGINT or the loss of the lease; returns the exit code. The steps under way get their grace."""
    process = StepProcess(parts, observe=_observer(parts))
    deliveries = Deliveries(
        process.database, process.id, parts.rules, woken=process.runner.run_ended, tracer=parts.tracer
    )
    sweeper = Sweeper(
        process.database,
        process.catalogue,
        process.doorbell,
        process.runner,
        neighbours=Neighbours(process.database, process.id, process.locks),
        isolate=parts.isolate,
    )
    stop_metrics = _serve_metrics(parts, process.runner)
    bells = Worker(process.broker, worker_threads=_BELL_THREADS, worker_timeout=_POLL_MS)
    bells.start()
    log.info("worker started", action="start", worker=process.id, pid=os.getpid())
    retention = Retention(process.database, parts.keep)
    works = (sweeper.run(), deliveries.run(), retention.run(), parts.beside(process.database))
    beside = [asyncio.ensure_future(work) for work in works]
    await process.stopping.wait()
    await process.drain()
    await asyncio.to_thread(bells.stop, 2000)
    for task in beside:
        task.cancel()
    await asyncio.gather(*beside, return_exceptions=True)
    await deliveries.close()
    stop_metrics()
    await process.end()
    log.info("worker stopped", action="stop", worker=process.id)
    return 1 if process.lost else 0


def _observer(parts: WorkerParts) -> Observe | None:
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
