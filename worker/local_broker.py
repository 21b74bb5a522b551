"""A Dramatiq broker for one machine: bells are datagrams on Unix sockets, one socket a worker process, no server at all.

Measured against fakeredis over loopback (docs/architecture.md, "Embedded queue"). A bell may be lost (a full buffer, a worker that
dies); the sweeper finds what it was for. Same actors, same messages as over Redis.
"""

import itertools
import os
import queue
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from dramatiq import Broker, Message, MessageProxy
from dramatiq.broker import Consumer
from dramatiq.middleware import Middleware

from worker.run_ends import EndTeller

_BUFFER_BYTES = 4 * 1024 * 1024
_CLOCK_TICK_NS = 100_000_000  # file systems tell a change's time by the tick, of which two changes can share one
_LONGEST_WAIT_S = 0.05  # for room in a worker's buffer; then the bell is lost


class LocalBroker(Broker):
    """`listen` opens this process's own socket in `folder`; ringing needs none."""

    def __init__(self, folder: Path, *, middleware: Sequence[Middleware] = (), listen: bool = False) -> None:
        super().__init__(middleware=list(middleware))
        self._folder = folder
        self._turn = itertools.count()
        self._bells: list[Path] = []
        self._seen_ns = -1  # when the folder last changed, as it was when `_bells` was read
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.settimeout(_LONGEST_WAIT_S)
        self._ends = EndTeller(folder)
        self._listener: socket.socket | None = None
        self._path = folder / f"{os.getpid()}.bell"
        self.queues: dict[str, queue.Queue[bytes]] = {}
        if listen:
            self._listen()

    def _listen(self) -> None:
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._listener.bind(str(self._path))
        threading.Thread(target=self._receive, args=(self._listener,), name="bells", daemon=True).start()

    def _receive(self, listener: socket.socket) -> None:
        while True:
            try:
                data = listener.recv(65536)
            except OSError:
                return  # closed
            name, _, body = data.partition(b"\n")
            waiting = self.queues.get(name.decode())
            if waiting is not None:
                waiting.put(body)

    def declare_queue(self, queue_name: str) -> None:
        """Make the queue known; repeating it changes nothing."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = queue.Queue()
            self.emit_after("declare_queue", queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> Consumer:
        """Messages that reached this process's socket."""
        return _LocalConsumer(self.queues[queue_name], timeout / 1000)

    def enqueue(self, message: "Message[None]", *, delay: int | None = None) -> "Message[None]":
        """Hand the message to one listening worker in turn; lost where none listens."""
        data = message.queue_name.encode() + b"\n" + message.encode()
        bells = self._listening()
        first = next(self._turn)
        for number in range(len(bells)):
            if self._send(data, bells[(first + number) % len(bells)]):
                break
        return message

    def _listening(self) -> list[Path]:
        """The sockets of the workers; the folder is read anew only where one came or went, or may have at that very moment."""
        changed_ns = self._folder.stat().st_mtime_ns
        if changed_ns != self._seen_ns:
            self._bells = sorted(self._folder.glob("*.bell"))
            settled = time.time_ns() - changed_ns > _CLOCK_TICK_NS
            self._seen_ns = changed_ns if settled else -1
        return self._bells

    def _send(self, data: bytes, bell: Path) -> bool:
        try:
            self._sender.sendto(data, str(bell))
        except ConnectionRefusedError:
            bell.unlink(missing_ok=True)  # its process is gone
            return False
        except OSError:
            return False
        return True

    def ended(self, run_id: str) -> None:
        """Told to the API of the same command."""
        self._ends.tell(run_id)

    def check(self) -> None:
        """Nothing to reach: it has no server."""

    def flush(self, queue_name: str) -> None:
        """Drop what waits in this process."""
        self.queues[queue_name] = queue.Queue()

    def flush_all(self) -> None:
        """Drop all that waits in this process."""
        for name in list(self.queues):
            self.flush(name)

    def close(self) -> None:
        """Close the sockets."""
        self._sender.close()
        self._ends.close()
        if self._listener is not None:
            self._listener.close()
            self._path.unlink(missing_ok=True)


class _LocalConsumer(Consumer):
    """Nothing is acknowledged: a bell that a dying worker swallowed is found by the sweeper."""

    def __init__(self, waiting: "queue.Queue[bytes]", timeout_s: float) -> None:
        self._waiting = waiting
        self._timeout_s = timeout_s

    def __next__(self) -> MessageProxy | None:
        try:
            data = self._waiting.get(timeout=self._timeout_s)
        except queue.Empty:
            return None
        return MessageProxy(Message.decode(data))  # pyright: ignore[reportUnknownMemberType]

    def ack(self, message: MessageProxy) -> None:
        """Nothing to do."""

    def nack(self, message: MessageProxy) -> None:
        """Nothing to do."""

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Nothing to do: the sweeper rings again."""

    def close(self) -> None:
        """Nothing to do."""
