"""The Dramatiq broker from settings, and the bell that others ring through it.

Bells carry a step's id and nothing else. One queue a priority class, so that what is urgent is fetched whatever waits in the others, and
Dramatiq's priorities on top, which order what a process has fetched. No middleware: retries, delays and time limits are in the database.
"""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, cast

import structlog
from dramatiq import Actor, Broker
from dramatiq.errors import BrokerError

from engine.errors import RetryableError
from engine.states import RANKS, Priority
from worker.local_broker import LocalBroker

_WAITING_BELLS = 10_000  # beyond it bells are dropped: the sweeper rings them again
_PAUSE_AFTER_ERROR_S = 0.5

log = structlog.get_logger(__name__)


class BellQueue(Protocol):
    """What a doorbell needs of a broker beside Dramatiq's own face."""

    def check(self) -> None:
        """Raises: RetryableError where the queue cannot be reached."""
        ...

    def ended(self, run_id: str) -> None:
        """See Doorbell."""
        ...


def redis_broker(url: str) -> Broker:
    """A broker on Redis."""
    from worker.redis_broker import BellBroker  # noqa: PLC0415 - 25 MB that an embedded queue does not need

    return BellBroker(url)


def local_broker(folder: Path, *, listen: bool) -> Broker:
    """A broker without a server, for processes of one machine."""
    return LocalBroker(folder, listen=listen)


def declare_bells(broker: Broker, answer: Callable[[str], None]) -> dict[str, Actor[[str], None]]:
    """The actor of each priority class; `answer` runs on a Dramatiq thread of the process that got the bell."""
    return {
        priority.value: Actor(
            answer,
            broker=broker,
            actor_name=f"ring_{priority.value}",
            queue_name=f"steps-{priority.value}",
            priority=RANKS[priority],
            options={},
        )
        for priority in Priority
    }


class BrokerDoorbell:
    """engine.ports.Doorbell over a broker. Rings on a thread of its own, so that a slow or dead Redis delays nobody."""

    def __init__(self, broker: Broker, actors: dict[str, Actor[[str], None]]) -> None:
        self._broker = broker
        self._actors = actors
        self._waiting: queue.Queue[tuple[str, str] | None] = queue.Queue(_WAITING_BELLS)
        self._failing = False
        self._dropping = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="doorbell", daemon=True)
        self._thread.start()

    def ring(self, step_id: str, priority: str) -> None:
        """Never raises and never blocks."""
        try:
            self._waiting.put_nowait((step_id, priority))
            self._dropping = False
        except queue.Full:
            if not self._dropping:
                log.warning("bells are dropped", action="ring", reason="too many are waiting")
            self._dropping = True

    def ended(self, run_id: str) -> None:
        """See Doorbell."""
        cast(BellQueue, self._broker).ended(run_id)

    def check(self) -> None:
        """Raises: RetryableError where the queue cannot be reached."""
        cast(BellQueue, self._broker).check()

    def close(self) -> None:
        """Ring what is waiting, where the queue takes it, and stop."""
        self._closing.set()
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(timeout=2)

    def _serve(self) -> None:
        while (bell := self._waiting.get()) is not None:
            step_id, priority = bell
            try:
                self._actors[priority].send(step_id)
                self._failing = False
            except (RetryableError, BrokerError, OSError) as error:
                if not self._failing:
                    log.warning("the queue does not take bells", action="ring", error=str(error))
                self._failing = True
                if self._closing.wait(_PAUSE_AFTER_ERROR_S):
                    return
