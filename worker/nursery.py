"""Where worker processes come from: forked from a template where there can be one, else spawned as new processes.

A template (`worker.template`) that dies takes nobody along: the workers that it forked go on, their ends are seen through their pidfds, and
a new template takes its place. Every child is tied to this process by its standard input, a pipe that this process alone holds open
(`worker.parent`), and may ask it for something on a second pipe.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence

import structlog

from worker.children import Child, RestartPause
from worker.template import Run, be_template
from worker.template_link import NotForked, TemplateLink

log = structlog.get_logger(__name__)

_MOST_FAILURES = 3
"""That many templates one after the other that never could fork: there will be none."""


class Nursery:
    """`program` with a worker's arguments runs one, and with `--template FD` becomes a template. `environment` is its whole one."""

    def __init__(self, program: Sequence[str], *, environment: Mapping[str, str]) -> None:
        self._program = list(program)
        self._environment = dict(environment)
        self._life, self._alive = os.pipe()
        self.asks, self._ask = os.pipe()  # read and write end of what children ask for
        for one in (self.asks, self._ask):
            os.set_blocking(one, False)
        self._original: TemplateLink | None = None
        self._template: TemplateLink | None = None
        self._can_fork = sys.platform == "linux" and hasattr(os, "pidfd_open")
        self._keeping: asyncio.Task[None] | None = None
        self._begun = asyncio.Event()
        self._spawning = asyncio.Lock()

    def fork_template(self, load: Callable[[], Run]) -> None:
        """Let the first template be a fork of this process as it is, which has loaded most of it already.

        To be called before any thread, event loop, connection or lock; where there is a second thread all the same, nothing happens
        and the first template is started as a new process, as all later ones are.
        """
        if not self._can_fork or len(os.listdir("/proc/self/task")) > 1:
            return
        mine, theirs = _packet_sockets()
        pid = os.fork()
        if pid == 0:
            mine.close()
            for one in (self._alive, self.asks):
                os.close(one)
            os.dup2(self._life, 0)
            os.close(self._life)
            os.setsid()
            be_template(theirs, load)
        theirs.close()
        self._original = TemplateLink(mine, pid, lambda: os.waitpid(pid, 0))

    async def start(self, arguments: Sequence[str]) -> Child:
        """A new process with these arguments. Raises: OSError where the machine has no room for one."""
        told = [*arguments, "--asks", str(self._ask)]
        if self._can_fork:
            self._keeping = self._keeping or asyncio.create_task(self._keep_template())
            await self._begun.wait()
        if self._template is not None:
            try:
                return await self._template.fork(told)
            except NotForked as reason:
                log.warning("worker is spawned", action="fork", reason=str(reason))
        async with self._spawning:  # one at a time, or one would take back what another holds
            with _hang_up_held_back():
                return await asyncio.create_subprocess_exec(
                    *self._program,
                    *told,
                    stdin=self._life,
                    env=self._environment,
                    pass_fds=(self._ask,),
                    start_new_session=True,  # a Ctrl-C in the terminal reaches this process alone, which drains its children
                )

    async def close(self) -> None:
        """End the template. The children are to have ended before."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        elif self._original is not None:
            self._original.listen()
            await self._original.end()
        for one in (self._life, self._alive, self.asks, self._ask):
            os.close(one)

    async def _keep_template(self) -> None:
        """One template after the other, until cancelled or until one cannot start."""
        pause, failures = RestartPause(), 0
        while failures < _MOST_FAILURES:
            link = self._original or self._new_template()
            self._original = None
            pause.started()
            gone = link.listen()
            self._template = link
            self._begun.set()
            try:
                await link.loaded()
                failures = 0
                await asyncio.shield(gone)
            except NotForked:
                failures += 1
            finally:
                self._template = None
                await asyncio.shield(link.end())
            log.warning("the template ended", action="fork", pid=link.pid)
            await asyncio.sleep(pause.died_s())
        log.error("no template can start: worker processes are spawned, which takes longer", action="fork")

    def _new_template(self) -> TemplateLink:
        mine, theirs = _packet_sockets()
        with theirs:
            process = subprocess.Popen(
                [*self._program, "--template", str(theirs.fileno())],
                stdin=self._life,
                env=self._environment,
                pass_fds=(theirs.fileno(), self._ask),
                start_new_session=True,
            )
        return TemplateLink(mine, process.pid, process.wait)


@contextlib.contextmanager
def _hang_up_held_back() -> Generator[None]:
    """A child inherits what is held back: SIGHUP, which would end a process that still loads, waits until it listens."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _packet_sockets() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
