"""The Dramatiq broker on Redis. Keys: `aigateway:*`, all Dramatiq's own; losing them costs time and no truth."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import redis
import structlog
from dramatiq import Message, MessageProxy
from dramatiq.broker import Consumer
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import BrokerConnectionError

from engine.errors import RetryableError

T = TypeVar("T")

log = structlog.get_logger(__name__)

_CONNECTIONS = 16
_LOOK_AGAIN_S = 0.5


class BellBroker(RedisBroker):
    """RedisBroker whose failures are RetryableError. The pool blocks instead of failing when all its connections are in use."""

    def __init__(self, url: str) -> None:
        pool = redis.BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
            url, max_connections=_CONNECTIONS, timeout=20, socket_connect_timeout=5, socket_timeout=10
        )
        self._bells = redis.Redis(connection_pool=pool)
        self._outage = _Outage()
        # Dead workers' messages are looked for on every fetch; by default that is once in a thousand.
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            client=self._bells, middleware=[], namespace="aigateway", maintenance_chance=1_000_000
        )

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Messages of that queue; while Redis is away there are none."""
        return _PatientConsumer(super().consume(queue_name, prefetch, timeout), self._outage, prefetch, timeout / 1000)

    def enqueue(self, message: "Message[None]", *, delay: int | None = None) -> "Message[None]":
        """Raises: RetryableError where Redis does not take it."""
        try:
            super().enqueue(message, delay=delay)  # pyright: ignore[reportUnknownMemberType]
            return message
        except redis.RedisError as error:
            raise RetryableError("queue_unavailable", f"redis cannot be reached: {error}") from error

    def ended(self, run_id: str) -> None:
        """Nobody hears it: API processes look at the database."""

    def check(self) -> None:
        """Raises: RetryableError where Redis cannot be reached."""
        try:
            self._bells.ping()  # pyright: ignore[reportUnknownMemberType]
        except redis.RedisError as error:
            raise RetryableError("queue_unavailable", f"redis cannot be reached: {error}") from error


class _Outage:
    """Says once that Redis is away and once that it is back, for all the threads that find out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._away = False
        self._since = 0.0

    def found(self, error: BaseException | None, asked: float) -> None:
        """An answer from Redis to what was asked at that time (time.monotonic), or why there was none."""
        if (error is not None) is self._away:
            return
        with self._lock:
            if asked < self._since:  # of the time before; another thread knows better
                return
            changed, self._away = (error is not None) is not self._away, error is not None
            self._since = time.monotonic()
        if changed and error is not None:
            log.warning("redis is away, ready steps are found by looking", action="bells", error=str(error))
        elif changed:
            log.info("redis is back", action="bells")


class _PatientConsumer(Consumer):
    """A consumer that waits for Redis by itself: Dramatiq would log several lines a second, at its highest level.

    What could not be acknowledged is delivered again, which changes nothing: a claim finds the step taken.
    While as many are held as may be, it waits for the end of one, where Dramatiq would sleep for up to `timeout_s`, in which less urgent
    ones have their turn.
    """

    def __init__(self, inner: Consumer, outage: _Outage, most: int, timeout_s: float) -> None:
        self._inner = inner
        self._outage = outage
        self._room = threading.Semaphore(most)
        self._timeout_s = timeout_s

    def __next__(self) -> MessageProxy | None:
        if not self._room.acquire(timeout=self._timeout_s):
            return None
        message = self._fetched()
        if message is None:
            self._room.release()
        return message

    def _fetched(self) -> MessageProxy | None:
        asked = time.monotonic()
        try:
            message = next(self._inner)
        except (BrokerConnectionError, redis.RedisError) as error:
            self._outage.found(error, asked)
            time.sleep(_LOOK_AGAIN_S)
            return None
        self._outage.found(None, asked)
        return message

    def ack(self, message: MessageProxy) -> None:
        """Lost while Redis is away."""
        self._end(self._inner.ack, message)

    def nack(self, message: MessageProxy) -> None:
        """The same."""
        self._end(self._inner.nack, message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """The same."""
        self._tell(self._inner.requeue, messages)

    def close(self) -> None:
        """See Consumer."""
        self._inner.close()

    def _end(self, how: Callable[[MessageProxy], None], message: MessageProxy) -> None:
        try:
            self._tell(how, message)
        finally:
            self._room.release()

    def _tell(self, what: Callable[[T], None], about: T) -> None:
        asked = time.monotonic()
        try:
            what(about)
        except (BrokerConnectionError, redis.RedisError) as error:
            self._outage.found(error, asked)
