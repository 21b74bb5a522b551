"""Keeps N worker processes alive: one that dies is replaced, and none of the others is stopped for it. Starts the processes of suspects too."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence

import structlog

from worker.children import Child, RestartPause
from worker.isolation import Isolation
from worker.liveness import runtime_folder
from worker.nursery import Nursery

log = structlog.get_logger(__name__)


class Supervisor:
    """`arguments_of` tells what child number N is started with, `alone` what the process of a single step is."""

    def __init__(
        self,
        nursery: Nursery,
        arguments_of: Callable[[int], Sequence[str]],
        *,
        processes: int,
        alone: Sequence[str] = (),
    ) -> None:
        self._nursery = nursery
        self._arguments_of = arguments_of
        self._processes = processes
        self._children: set[Child] = set()
        self._stopping = asyncio.Event()
        self._isolation = Isolation(nursery.asks, self._child, alone, runtime_folder())

    async def run(self) -> None:
        """Keep the children alive until `stop`."""
        if not self._stopping.is_set():
            self._isolation.open()
        await asyncio.gather(*(self._keep(number) for number in range(self._processes)))

    async def stop(self, grace_s: float) -> None:
        """SIGTERM to all; SIGKILL to those that are still there after the grace."""
        self._stopping.set()
        self._isolation.close()
        for child in self._children:
            _signal(child, signal.SIGTERM)
        ends = [asyncio.create_task(child.wait()) for child in self._children]
        if ends:
            await asyncio.wait(ends, timeout=grace_s)
        for child in list(self._children):
            _signal(child, signal.SIGKILL)
            await child.wait()

    def signal(self, number: int) -> None:
        """Send a signal to all children."""
        for child in self._children:
            _signal(child, number)

    @property
    def pids(self) -> list[int]:
        """The living children."""
        return [child.pid for child in self._children]

    async def _keep(self, number: int) -> None:
        pause = RestartPause()
        while not self._stopping.is_set():
            pause.started()
            code = await self._child(self._arguments_of(number))
            if self._stopping.is_set():
                return
            log.warning("worker process ended, starting another", action="respawn", number=number, code=code)
            await self._rest(pause.died_s())

    async def _child(self, arguments: Sequence[str]) -> int | None:
        """Start a child and return its exit code."""
        try:
            child = await self._nursery.start(arguments)
        except OSError as error:
            log.error("worker process not started", action="respawn", error=error.strerror)
            return None
        self._children.add(child)
        if self._stopping.is_set():  # `stop` did not see this one
            _signal(child, signal.SIGKILL)
        code = await child.wait()
        self._children.discard(child)
        return code

    async def _rest(self, pause_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()


def _signal(child: Child, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(number)
