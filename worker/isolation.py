"""Suspects, each in a process of its own (contract, promise 12): workers that find one ask for it, and the supervisor starts it.

A step is a suspect when it was on board while two workers died. Its process runs it alone; if that dies too, all by itself, the step fails. A step must
not fail because everything was killed: so the supervisor holds a lock while it looks after its processes, and lets go of it before
it ends them. Whoever finds such a process dead looks at that lock, twice (`worker.housekeeping`).
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from engine.clock import new_id
from worker.liveness import LifeLock, forget_dead

log = structlog.get_logger(__name__)

MOST_AT_ONCE = 8  # each takes 14 MB and three connections
_REST_S = 1.0
"""Before the same step is isolated again: what its process died of is found out meanwhile, or what kept it from the step goes away."""
_KEEPER = "keeper-"


def asking(line: int) -> Callable[[str], None]:
    """What asks the supervisor at the other end of that pipe for a step's own process. May be lost: it is asked again."""

    def ask(step_id: str) -> None:
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(line, f"{step_id}\n".encode())  # whole: far below PIPE_BUF

    return ask


class Isolation:
    """Listens from `open` to `close`. `run` starts a process with these arguments and returns its exit code."""

    def __init__(
        self, line: int, run: Callable[[Sequence[str]], Awaitable[int | None]], arguments: Sequence[str], locks: Path
    ) -> None:
        self._line = line
        self._run = run
        self._arguments = arguments
        self._locks = locks
        self._name = _KEEPER + new_id()
        self._lock: LifeLock | None = None
        self._half = b""
        self._running = 0
        self._known: dict[str, asyncio.Task[None]] = {}  # that run, or ran a moment ago

    def open(self) -> None:
        """From now on a process that dies has died by itself."""
        forget_dead(self._locks, _KEEPER)
        self._lock = LifeLock(self._locks, self._name)
        asyncio.get_running_loop().add_reader(self._line, self._read)

    def close(self) -> None:
        """Before the first process is ended. Starts nothing more; those that run are the supervisor's to end."""
        if self._lock is not None:
            asyncio.get_running_loop().remove_reader(self._line)
            self._lock.release()
            self._lock = None

    def _read(self) -> None:
        *asked, self._half = (self._half + os.read(self._line, 65536)).split(b"\n")
        for line in asked:
            step_id = line.decode()
            if step_id not in self._known and self._running < MOST_AT_ONCE:
                self._running += 1
                self._known[step_id] = asyncio.create_task(self._isolate(step_id))

    async def _isolate(self, step_id: str) -> None:
        log.warning("a step runs alone", action="isolate", step=step_id)
        code = await self._run([*self._arguments, "--alone", step_id, "--keeper", self._name])
        self._running -= 1
        if code:
            log.error("the process of a step that ran alone died", action="isolate", step=step_id, code=code)
        await asyncio.sleep(_REST_S)
        del self._known[step_id]
