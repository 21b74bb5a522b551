"""Where the processes of one `serve` ring each other: a folder of its own, for as long as it lives."""

import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from worker.liveness import LifeLock, is_dead, runtime_folder

_PREFIX = "bells-"
_LIFE = "serve"


@contextmanager
def bells_folder() -> Generator[Path, None, None]:
    """A new folder, gone on leaving. What servers left that were killed goes when another one starts. Raises: UserError."""
    parent = runtime_folder()
    for left in parent.glob(f"{_PREFIX}*"):
        if is_dead(left, _LIFE):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    life = LifeLock(folder, _LIFE)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        life.release()
