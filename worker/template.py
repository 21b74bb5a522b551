"""The template: a process that has loaded all that a worker needs and does nothing but fork.

A new Python takes most of a second until it can claim a step; a fork of this one takes a few milliseconds and shares its memory. It starts no
thread, no event loop and no connection, so that there is nothing a fork could copy half-way; what a worker opens, it opens
after the fork. Orders and answers are packets on a socket whose other end only the supervisor holds (`worker.nursery`):
when that closes the template ends, and the workers end by `worker.parent`. Linux only: it answers with a pidfd.
"""

import contextlib
import gc
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import structlog

from worker.parent import end_with_parent

log = structlog.get_logger(__name__)

LONGEST_PACKET = 65536
NAME = "aigw-template"

Run = Callable[[Sequence[str]], int]
"""What a forked process does with its arguments; returns its exit code."""


def be_template(control: socket.socket, load: Callable[[], Run]) -> NoReturn:
    """Load, then fork a process for each order until the supervisor is gone. Never returns, in no process."""
    code = 0
    try:
        name_process(NAME)
        signal.pthread_sigmask(
            signal.SIG_BLOCK, {signal.SIGHUP}
        )  # inherited: a worker hears it once it knows what to do
        run = load()
        gc.freeze()  # a collection in a child would write to every page that it shares with this process
        _tell(control, {"ready": True})
        arguments = _serve(control)
        if arguments is not None:
            threading.Thread(target=end_with_parent, name="parent", daemon=True).start()
            code = run(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        code = 130
    except Exception:
        log.error("process failed", action="fork", exc_info=True)
        code = 1
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def name_process(name: str) -> None:
    """What tools show: forked processes have the command line of the process they were forked from. At most 15 bytes, on Linux."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def _serve(control: socket.socket) -> list[str] | None:
    """In each forked process its arguments; None in the template, when its supervisor is gone."""
    ended, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, _heard)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    numbers: dict[int, int] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(ended, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready == ended:
                os.read(ended, 4096)
                _tell_ends(control, numbers)
                continue
            packet = _next_packet(control)
            if not packet:
                return None
            order = json.loads(packet)
            pid = _fork(control, order["number"])
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for one in (ended, wake):
                    os.close(one)
                return order["arguments"]
            if pid is not None:
                numbers[pid] = order["number"]


def _heard(number: int, frame: FrameType | None) -> None:
    """Nothing: that it was heard is written to the wake-up pipe."""


def _fork(control: socket.socket, number: int) -> int | None:
    """Its process id, None where it could not be; 0 in the forked process.

    That tells of itself before it does anything else: it is known, even if the template dies right now.
    """
    try:
        pid = os.fork()
    except OSError as error:
        _tell(control, {"number": number, "failed": str(error)})
        return None
    if pid == 0:
        os.setsid()  # a Ctrl-C in the terminal reaches the supervisor alone, which drains
        handle = os.pidfd_open(os.getpid())
        with contextlib.suppress(OSError):  # no supervisor any more: standard input says so too
            socket.send_fds(control, [json.dumps({"number": number, "pid": os.getpid()}).encode()], [handle])
        os.close(handle)
        control.close()
    return pid


def _tell_ends(control: socket.socket, numbers: dict[int, int]) -> None:
    while numbers:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        _tell(control, {"number": numbers.pop(pid), "code": os.waitstatus_to_exitcode(status)})


def _tell(control: socket.socket, what: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the next look at the socket shows that nobody is there
        control.send(json.dumps(what).encode())


def _next_packet(control: socket.socket) -> bytes:
    """Empty where the supervisor is gone."""
    try:
        return control.recv(LONGEST_PACKET)
    except ConnectionError:  # with something unread
        return b""
