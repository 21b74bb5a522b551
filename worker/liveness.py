"""Death, told by the kernel: each process holds an flock for life on a file named after its worker id.

Whoever on this host can take the lock knows that its holder is dead, however it died. Leases remain for hosts and networks that vanish.
The lock is taken after the last fork: a forked child would keep it.
"""

import fcntl
import os
import socket
import stat
import tempfile
from pathlib import Path

from engine.errors import UserError

_LONGEST_PARENT = 60
"""Socket paths may have 104 bytes on macOS and 108 on Linux."""


def host_name() -> str:
    """The name under which the processes of this host know each other."""
    return socket.gethostname()


def runtime_folder() -> Path:
    """This user's folder for locks and sockets on this host. Raises: UserError where it belongs to somebody else."""
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) > _LONGEST_PARENT:
        parent = Path("/tmp")
    folder = parent / f"aigateway-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise UserError("unsafe_folder", f"{folder} is not a folder of this user: remove it or set TMPDIR")
    return folder


class LifeLock:
    """Held from construction until the process ends."""

    def __init__(self, folder: Path, worker_id: str) -> None:
        self._path = folder / f"{worker_id}.lock"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def release(self) -> None:
        """A clean end: nobody has to find this process dead."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def is_dead(folder: Path, worker_id: str) -> bool:
    """True where the holder's lock can be taken; False where it lives, or where its file is not there to tell."""
    try:
        file = os.open(folder / f"{worker_id}.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def forget(folder: Path, worker_id: str) -> None:
    """Remove the lock file of a process that was buried."""
    (folder / f"{worker_id}.lock").unlink(missing_ok=True)
