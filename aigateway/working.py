"""Runs `aigateway worker`: a supervisor and its children. What a child does is in `worker_process`."""

import asyncio
import signal
import sys
from collections.abc import Sequence

from aigateway.settings import Settings, process_environment
from engine.store.migrate import upgrade
from worker.supervisor import Supervisor

DRAIN_S = 25.0
"""How long steps under way may go on after SIGTERM; service managers mostly kill after 30 s."""


def run_worker(settings: Settings, *, metrics_port: int | None, config_path: str | None) -> None:
    """Supervise `worker.processes` children until SIGTERM or SIGINT."""
    upgrade(settings.database_url)
    arguments = ["--metrics-port", str(metrics_port)] if metrics_port is not None else []
    asyncio.run(_supervise(make_supervisor(settings, arguments, config_path, settings.worker.processes)))


def make_supervisor(
    settings: Settings, arguments: Sequence[str], config_path: str | None, processes: int
) -> Supervisor:
    """A supervisor of `worker-process` children with this process's configuration."""
    command = [sys.executable, "-P", "-m", "aigateway", "worker-process"]
    command += ["--concurrency", str(settings.worker.concurrency), *arguments]
    if config_path is not None:
        command += ["--config", config_path]
    return Supervisor(command, environment=process_environment(), processes=processes)


async def _supervise(supervisor: Supervisor) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    keeping = asyncio.create_task(supervisor.run())
    await stop.wait()
    await supervisor.stop(DRAIN_S + 5)
    await keeping
