"""A `serve` of one's own, for a command that needs a server and found none: a child on a free port that ends with its parent.

The child holds the reading end of a pipe whose writing end is this process's: however this process ends, SIGKILL included,
the pipe closes and the child and its workers end. Imports nothing slow: the child pays for the server's modules.
"""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.errors import RetryableError

_START_LIMIT_S = 20.0
_STOP_LIMIT_S = 45.0  # more than `serve` itself allows its workers
_LOOK_AGAIN_S = 0.02


@contextmanager
def embedded_server(
    arguments: Sequence[str] = (),
    *,
    environment: Mapping[str, str],
    folder: Path | None = None,
    log: Path | None = None,
) -> Generator[str]:
    """Yields the URL of a `serve` started with `arguments`, in `folder` (None: here); `log` None: it logs to our stderr.

    Ends it as SIGTERM does, waiting for it. Raises: RetryableError(server_not_started).
    """
    port = _free_port()
    command = [sys.executable, "-P", "-m", "aigateway", "serve", "--end-with-stdin"]
    command += ["--host", "127.0.0.1", "--port", str(port), *arguments]
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(log.open("ab")) if log else None
        child = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,  # a Ctrl-C in the terminal reaches this process alone, which ends it in order
        )
        stack.callback(_end, child)
        _wait_until_up(child, port)
        yield f"http://127.0.0.1:{port}"


def _end(child: "subprocess.Popen[bytes]") -> None:
    assert child.stdin is not None
    child.terminate()
    try:
        child.wait(_STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    child.stdin.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _wait_until_up(child: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline and child.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(_LOOK_AGAIN_S)
        else:
            return
    raise RetryableError("server_not_started", "the embedded server did not start; `aigateway serve` shows why")
