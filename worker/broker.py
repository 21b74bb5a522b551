"""The Dramatiq broker from settings, and the bell that others ring through it. Redis keys: `aigateway:*` (Dramatiq's own).

Bells carry a step's id and nothing else. One queue a priority class, because Dramatiq's priorities only order what a process has
fetched already. No middleware: retries, delays and time limits are in the database.
"""

import queue
import threading
from collections.abc import Callable
from pathlib import Path

import dramatiq
import redis
import structlog
from dramatiq import Actor, Broker
from dramatiq.brokers.redis import RedisBroker

from engine.errors import RetryableError
from engine.states import Priority
from worker.local_broker import LocalBroker

_CONNECTIONS = 16
_WAITING_BELLS = 10_000  # beyond it bells are dropped: the sweeper rings them again
_PAUSE_AFTER_ERROR_S = 0.5

log = structlog.get_logger(__name__)


def redis_broker(url: str) -> Broker:
    """A broker on Redis. The pool blocks instead of failing when all its connections are in use."""
    pool = redis.BlockingConnectionPool.from_url(
        url, max_connections=_CONNECTIONS, timeout=20, socket_connect_timeout=5, socket_timeout=10
    )
    # Dead workers' messages are looked for on every fetch; by default that is once in a thousand.
    return RedisBroker(
        client=redis.Redis(connection_pool=pool), middleware=[], namespace="aigateway", maintenance_chance=1_000_000
    )


def local_broker(folder: Path, *, listen: bool) -> Broker:
    """A broker without a server, for processes of one machine."""
    return LocalBroker(folder, listen=listen)


def declare_bells(broker: Broker, answer: Callable[[str], None]) -> dict[str, Actor[[str], None]]:
    """The actor of each priority class; `answer` runs on a Dramatiq thread of the process that got the bell."""
    dramatiq.set_broker(broker)
    return {
        priority.value: dramatiq.actor(
            answer, broker=broker, actor_name=f"ring_{priority.value}", queue_name=f"steps-{priority.value}"
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
        self._thread = threading.Thread(target=self._serve, name="doorbell", daemon=True)
        self._thread.start()

    def ring(self, step_id: str, priority: str) -> None:
        """Never raises and never blocks."""
        try:
            self._waiting.put_nowait((step_id, priority))
        except queue.Full:
            log.warning("bell dropped", action="ring", reason="too many are waiting")

    def check(self) -> None:
        """Raises: RetryableError where the queue cannot be reached."""
        if isinstance(self._broker, RedisBroker):
            try:
                self._broker.client.ping()
            except redis.RedisError as error:
                raise RetryableError("queue_unavailable", f"redis cannot be reached: {error}") from error

    def close(self) -> None:
        """Ring what is waiting and stop."""
        self._waiting.put(None)
        self._thread.join(timeout=2)

    def _serve(self) -> None:
        while (bell := self._waiting.get()) is not None:
            step_id, priority = bell
            try:
                self._actors[priority].send(step_id)
                self._failing = False
            except (redis.RedisError, dramatiq.errors.BrokerError, OSError) as error:
                if not self._failing:
                    log.warning("the queue does not take bells", action="ring", error=str(error))
                self._failing = True
                threading.Event().wait(_PAUSE_AFTER_ERROR_S)
