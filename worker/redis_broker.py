"""The Dramatiq broker on Redis. Keys: `aigateway:*`, all Dramatiq's own; losing them costs time and no truth."""

import redis
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker

from engine.errors import RetryableError

_CONNECTIONS = 16


class BellBroker(RedisBroker):
    """RedisBroker whose failures are RetryableError. The pool blocks instead of failing when all its connections are in use."""

    def __init__(self, url: str) -> None:
        pool = redis.BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
            url, max_connections=_CONNECTIONS, timeout=20, socket_connect_timeout=5, socket_timeout=10
        )
        self._bells = redis.Redis(connection_pool=pool)
        # Dead workers' messages are looked for on every fetch; by default that is once in a thousand.
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            client=self._bells, middleware=[], namespace="aigateway", maintenance_chance=1_000_000
        )

    def enqueue(self, message: "Message[None]", *, delay: int | None = None) -> "Message[None]":
        """Raises: RetryableError where Redis does not take it."""
        try:
            super().enqueue(message, delay=delay)  # pyright: ignore[reportUnknownMemberType]
            return message
        except redis.RedisError as error:
            raise RetryableError("queue_unavailable", f"redis cannot be reached: {error}") from error

    def check(self) -> None:
        """Raises: RetryableError where Redis cannot be reached."""
        try:
            self._bells.ping()  # pyright: ignore[reportUnknownMemberType]
        except redis.RedisError as error:
            raise RetryableError("queue_unavailable", f"redis cannot be reached: {error}") from error
