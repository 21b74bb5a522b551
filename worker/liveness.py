"""Death, told by the kernel: each process holds an flock for life on a file named after its worker id.

Whoever on this host can take the lock knows that its holder is dead, however it died. Leases remain for hosts and networks that vanish.
The lock is taken after the last fork: a forked child would keep it.
"""

import fcntl
import os
import socket
import stat
import tempfile
from contextlib import suppress
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
    """Held from construction until the process ends. `kept_by` names the lock of a process that looks after this one."""

    def __init__(self, folder: Path, name: str, *, kept_by: str = "") -> None:
        self._path = folder / f"{name}.lock"
        self._file = self._take()
        os.write(self._file, kept_by.encode())

    def release(self) -> None:
        """A clean end: nobody has to find this process dead."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)

    def _take(self) -> int:
        """The file, locked, and still the one that others find under its name."""
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), self._path.stat()):
                    return file
            os.close(file)


def is_dead(folder: Path, name: str) -> bool:
    """True where the holder's lock can be taken; False where it lives, or where its file is not there to tell."""
    return _is_held(folder, name) is False


def is_alive(folder: Path, name: str) -> bool:
    """True where somebody holds the lock; False where its holder is dead, or where its file is not there to tell."""
    return _is_held(folder, name) is True


def keeper_of(folder: Path, name: str) -> str:
    """Whose lock tells whether the process that looks after that one lives; empty where there is none, or no file to tell."""
    try:
        return (folder / f"{name}.lock").read_text()
    except FileNotFoundError:
        return ""


def forget(folder: Path, worker_id: str) -> None:
    """Remove the lock file of a process that was buried."""
    (folder / f"{worker_id}.lock").unlink(missing_ok=True)


def forget_dead(folder: Path, prefix: str) -> None:
    """Remove what processes with such names left behind that were killed."""
    for path in folder.glob(f"{prefix}*.lock"):
        if is_dead(folder, path.stem):
            path.unlink(missing_ok=True)


def _is_held(folder: Path, name: str) -> bool | None:
    """None: there is no file. Looking takes a shared lock, so that two who look at the same time see the same."""
    try:
        file = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
