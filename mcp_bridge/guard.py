"""No started server outlives this process: a guard leads the process group that a server and its children live in.

The guard is a shell of about a megabyte that waits for the end of a pipe whose other end only this process holds.
The kernel closes that end when this process ends, SIGKILL included, and the guard then kills its whole group, itself
included. The server joins the group as it is born, so there is no moment in which it is unguarded. Children of the
server are in the group too, unless they leave it on purpose (setsid), as a daemon does; those are beyond it.
Works wherever there is /bin/sh and process groups: Linux and macOS.
"""

import asyncio
import contextlib
import os
import signal
import subprocess

_SCRIPT = 'trap "" HUP INT QUIT TERM; read -r _; kill -KILL 0'
"""A server that signals its own group must not take the guard away, hence the trap; SIGKILL ends both."""

_REAP_POLL_S = 0.01
_REAP_TIMEOUT_S = 2.0


class Guard:
    """Leads one process group until `kill`, or until this process ends."""

    def __init__(self) -> None:
        """Starts the guard.

        Raises:
            OSError: no process or file handle is left, or /bin/sh is missing.
        """
        reading, self._writing = os.pipe()  # both are close-on-exec: no other child can hold the writing end
        try:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                process_group=0,
            )
        except BaseException:
            os.close(self._writing)
            raise
        finally:
            os.close(reading)

    @property
    def group(self) -> int:
        """The process group that a server is to be started in."""
        return self._shell.pid

    def terminate(self) -> None:
        """Asks everything in the group to end (SIGTERM); the guard itself does not listen to it."""
        if self._shell.returncode is None:  # until it is reaped, its number cannot belong to anyone else
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._shell.pid, signal.SIGTERM)

    def kill_now(self) -> None:
        """Kills the group without waiting. Safe to repeat."""
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1
        if self._shell.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._shell.pid, signal.SIGKILL)

    async def kill(self) -> None:
        """Kills the group and reaps the guard; waits at most two seconds."""
        self.kill_now()
        deadline = asyncio.get_running_loop().time() + _REAP_TIMEOUT_S
        while self._shell.poll() is None and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_REAP_POLL_S)
