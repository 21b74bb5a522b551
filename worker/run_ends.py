"""How the API hears at once that a worker of the same command has ended a run: datagrams on a Unix socket beside the bells.

One may be lost, and nothing depends on it: who waits for a run looks at the database too (`api.run_watch`).
"""

import asyncio
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME = "api.ends"
_ID_BYTES = 64
_AT_ONCE = 100  # then other work of the loop has its turn


class EndTeller:
    """A worker's side."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / _NAME)
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)

    def tell(self, run_id: str) -> None:
        """Never raises and never blocks: lost where nobody listens, or too slowly."""
        with suppress(OSError):
            self._sender.sendto(run_id.encode(), self._path)

    def close(self) -> None:
        """Close the socket."""
        self._sender.close()


@contextmanager
def hear_ends(folder: Path, heard: Callable[[str], None]) -> Generator[None, None, None]:
    """Call `heard` on the running loop for every run that is told of, from entering to leaving."""
    path = folder / _NAME
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.setblocking(False)
    listener.bind(str(path))
    loop = asyncio.get_running_loop()

    def receive() -> None:
        with suppress(BlockingIOError):
            for _ in range(_AT_ONCE):
                heard(listener.recv(_ID_BYTES).decode(errors="replace"))

    loop.add_reader(listener, receive)
    try:
        yield
    finally:
        loop.remove_reader(listener)
        listener.close()
        path.unlink(missing_ok=True)
