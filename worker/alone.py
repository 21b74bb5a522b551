"""The process of a single step: claims that one and no other, runs it to the end of its attempt, and ends. See `worker.isolation`."""

import asyncio

import structlog

from worker.step_process import StepProcess, WorkerParts

log = structlog.get_logger(__name__)


async def run_alone(parts: WorkerParts, step_id: str, kept_by: str) -> int:
    """Returns the exit code. SIGTERM gives the step its grace and then hands it back, still a suspect."""
    process = StepProcess(parts, kept_by=kept_by)
    waiting = {
        asyncio.create_task(process.runner.finish(step_id)),
        asyncio.create_task(process.stopping.wait()),
    }
    _, left = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    await process.drain()
    for task in left:
        task.cancel()
    await process.end()
    log.info("a step ran alone", action="isolate", step=step_id, worker=process.id)
    return 1 if process.lost else 0
