"""Runs `aigateway worker`: a supervisor and its children. What a child does is in `worker_process`."""

import asyncio
import signal
import sys
from collections.abc import Sequence

from aigateway.reloading import HangUp
from aigateway.settings import Settings, process_environment
from engine.store.revision import bring_up_to_date
from worker.supervisor import Supervisor


def run_worker(settings: Settings, *, metrics_port: int | None, config_path: str | None) -> None:
    """Supervise `worker.processes` children until SIGTERM or SIGINT; SIGHUP is passed on to them."""
    bring_up_to_date(settings.database_url)
    supervisor = make_supervisor(settings, [], config_path, settings.worker.processes, metrics_port=metrics_port)
    asyncio.run(_supervise(supervisor, stop_s(settings)))


def make_supervisor(
    settings: Settings,
    arguments: Sequence[str],
    config_path: str | None,
    processes: int,
    *,
    metrics_port: int | None = None,
) -> Supervisor:
    """A supervisor of worker processes with this process's configuration; child N serves metrics on `metrics_port` + N."""
    command = [sys.executable, "-P", "-m", "aigateway.worker_start"]
    command += ["--concurrency", str(settings.worker.concurrency), *arguments]
    if config_path is not None:
        command += ["--config", config_path]

    def command_of(number: int) -> list[str]:
        return command if metrics_port is None else [*command, "--metrics-port", str(metrics_port + number)]

    return Supervisor(command_of, environment=process_environment(), processes=processes)


def stop_s(settings: Settings) -> float:
    """How long children have to end after SIGTERM: the grace of their steps and a little more."""
    return settings.worker.grace.total_seconds() + 5


async def _supervise(supervisor: Supervisor, grace_s: float) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    HangUp(reload=lambda: supervisor.signal(signal.SIGHUP), stop=stop.set).listen()
    keeping = asyncio.create_task(supervisor.run())
    await stop.wait()
    await supervisor.stop(grace_s)
    await keeping
