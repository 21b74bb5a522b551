"""Keeps N worker processes alive: one that dies is replaced, and none of the others is stopped for it.

Children are spawned with exec (never forked: they take their life locks themselves) and hold the reading end of a pipe whose
writing end is this process's: when it closes, however this process ended, they end too.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence

import structlog

log = structlog.get_logger(__name__)

_LONGEST_PAUSE_S = 5.0
_HEALTHY_AFTER_S = 10.0


class Supervisor:
    """`command_of` tells what starts child number N; `environment` is its whole environment."""

    def __init__(
        self, command_of: Callable[[int], Sequence[str]], *, environment: Mapping[str, str], processes: int
    ) -> None:
        self._command_of = command_of
        self._environment = dict(environment)
        self._processes = processes
        self._children: set[asyncio.subprocess.Process] = set()
        self._stopping = asyncio.Event()
        self._read_end, self._write_end = os.pipe()
        os.set_inheritable(self._write_end, False)

    async def run(self) -> None:
        """Keep the children alive until `stop`."""
        await asyncio.gather(*(self._keep(number) for number in range(self._processes)))

    async def stop(self, grace_s: float) -> None:
        """SIGTERM to all; SIGKILL to those that are still there after the grace."""
        self._stopping.set()
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
        pause_s = 0.0
        while not self._stopping.is_set():
            started = time.monotonic()
            with _hang_up_held_back():
                child = await asyncio.create_subprocess_exec(
                    *self._command_of(number),
                    stdin=self._read_end,
                    env=self._environment,
                    start_new_session=True,  # a Ctrl-C in the terminal reaches this process alone, which drains them
                )
                self._children.add(child)
            if self._stopping.is_set():  # `stop` did not see this one
                _signal(child, signal.SIGKILL)
            code = await child.wait()
            self._children.discard(child)
            if self._stopping.is_set():
                return
            log.warning("worker process ended, starting another", action="respawn", number=number, code=code)
            lived_s = time.monotonic() - started
            pause_s = 0.0 if lived_s > _HEALTHY_AFTER_S else min(max(0.1, pause_s * 2), _LONGEST_PAUSE_S)
            await self._rest(pause_s)

    async def _rest(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()
        except TimeoutError:
            return


@contextlib.contextmanager
def _hang_up_held_back() -> Generator[None]:
    """A child inherits what is held back: SIGHUP, which would end a process that still loads, waits until it listens."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _signal(child: asyncio.subprocess.Process, number: int) -> None:
    try:
        child.send_signal(number)
    except ProcessLookupError:
        return
