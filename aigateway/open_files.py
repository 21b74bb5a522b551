"""How many files, and so connections, this process may have open. Called once by each process that serves HTTP."""

import contextlib
import resource

_ENOUGH = 65_536


def allow_open_files() -> None:
    """Take what the system grants without asking anybody: every stream needs two, and shells allow as few as 256."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if most == resource.RLIM_INFINITY else min(_ENOUGH, most)
    if allowed != resource.RLIM_INFINITY and allowed < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS grants less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
