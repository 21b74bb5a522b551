"""Runs `aigateway worker`: a supervisor and its children. What a child does is in `worker_process`."""

import asyncio
import signal
import sys
from collections.abc import Sequence

from aigateway.config_keys import Settings
from aigateway.reloading import HangUp
from aigateway.settings import process_environment
from aigateway.tracing import check_tracing
from engine.store.revision import bring_up_to_date
from worker.nursery import Nursery
from worker.supervisor import Supervisor
from worker.template import Run


def run_worker(settings: Settings, *, metrics_port: int | None, config_path: str | None) -> None:
    """Supervise `worker.processes` children until SIGTERM or SIGINT; SIGHUP is passed on to them."""
    nursery = make_nursery(config_path)
    bring_up_to_date(settings.database_url)
    check_tracing(process_environment())
    asyncio.run(_supervise(settings, nursery, metrics_port))


def make_nursery(config_path: str | None) -> Nursery:
    """Where this process's workers will come from. It may fork, so it comes before every thread, loop and connection."""
    program = [sys.executable, "-P", "-m", "aigateway.worker_start"]
    if config_path is not None:
        program += ["--config", config_path]
    nursery = Nursery(program, environment=process_environment())

    def load() -> Run:
        from aigateway.worker_process import load  # noqa: PLC0415 - the template loads it, while this process goes on

        return load(config_path)

    nursery.fork_template(load)
    return nursery


def make_supervisor(
    settings: Settings,
    nursery: Nursery,
    arguments: Sequence[str],
    processes: int,
    *,
    metrics_port: int | None = None,
) -> Supervisor:
    """A supervisor of worker processes with this process's configuration; child N serves metrics on `metrics_port` + N."""
    common = ["--concurrency", str(settings.worker.concurrency), *arguments]

    def arguments_of(number: int) -> list[str]:
        return common if metrics_port is None else [*common, "--metrics-port", str(metrics_port + number)]

    return Supervisor(nursery, arguments_of, processes=processes, alone=common)


def stop_s(settings: Settings) -> float:
    """How long children have to end after SIGTERM: the grace of their steps and a little more."""
    return settings.worker.grace.total_seconds() + 5


async def _supervise(settings: Settings, nursery: Nursery, metrics_port: int | None) -> None:
    supervisor = make_supervisor(settings, nursery, [], settings.worker.processes, metrics_port=metrics_port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    HangUp(reload=lambda: supervisor.signal(signal.SIGHUP), stop=stop.set).listen()
    keeping = asyncio.create_task(supervisor.run())
    await stop.wait()
    await supervisor.stop(stop_s(settings))
    await keeping
    await nursery.close()
