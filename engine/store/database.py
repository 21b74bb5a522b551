"""The process's way to its database: one writer with group commit on SQLite, a few connections on PostgreSQL.

Functions handed to `write` and `read` run on a database thread, those of `begin_write` on SQLite on the event loop's, and get a `Tx`. They must not have effects outside the
database: a group in which one member fails is rolled back and replayed one by one. Whoever waits for `write` gets its
answer after the commit. Called by every service of the engine; nobody else opens connections.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import make_url

from engine.crash_points import CrashPoint
from engine.errors import FatalError
from engine.store.asked import Asked, Line
from engine.store.connections import connector
from engine.store.group_commit import GROUP_LIMIT, GroupCommit
from engine.store.loop_commits import LoopCommits
from engine.store.transaction import Row, Tx

__all__ = ["Database", "Row", "Tx"]

T = TypeVar("T")
R = TypeVar("R")

POSTGRESQL_WRITERS = 4
READERS = 2


class Database:
    """Runs transactions on its own threads. Safe to share between an event loop and plain threads."""

    def __init__(self, url: str, *, readers: int = READERS, crash_at: CrashPoint | None = None) -> None:
        self.dialect = make_url(url).get_backend_name()
        self.url = url
        self._connect = connector(url)
        self._crash_at = crash_at
        self._writes: Line = Line()
        self._reads: Line = Line()
        self._threads: list[tuple[threading.Thread, Line]] = []
        self._on_loop: LoopCommits | None = None
        if self.dialect == "sqlite":
            self._additions: Line = self._writes
            self._on_loop = LoopCommits(connector(url, may_wait=False), self._writes, crash_at)
            self._man(self._writes, 1, GROUP_LIMIT, writes=True)
        else:
            self._additions = Line()
            self._man(self._writes, POSTGRESQL_WRITERS, 1, writes=True)
            self._man(self._additions, 1, GROUP_LIMIT, writes=True)
        self._man(self._reads, readers, 1, writes=False)
        self._closed = False
        for thread, _ in self._threads:
            thread.start()

    def _man(self, line: Line, threads: int, group: int, *, writes: bool) -> None:
        name = "database-writer" if writes else "database-reader"
        for _ in range(threads):
            thread = threading.Thread(target=self._serve, args=(line, group, writes), name=name, daemon=True)
            self._threads.append((thread, line))

    async def write(self, work: Callable[[Tx], T]) -> T:
        """Run in a transaction that writes; the answer is durable. Raises what `work` raises, RetryableError on lost connections."""
        return await self._ask(self._writes, work)

    def begin_write(self, work: Callable[[Tx], T], take: Callable[[T], R]) -> "asyncio.Future[R]":
        """`write` for little work, and for who may be cancelled while it goes on: on SQLite the event loop's own thread does it.

        `take` makes the answer, on the event loop; it may raise AIGatewayError.
        """
        if self._on_loop is None:
            return self._ask(self._writes, work, take)
        self._refuse_if_closed()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._on_loop.hand_in(Asked(work, future, loop, take))
        return future

    async def add(self, work: Callable[[Tx], T]) -> T:
        """`write` for rows of one's own: it locks none that others may wait for, so it shares a commit on PostgreSQL too."""
        return await self._ask(self._additions, work)

    async def read(self, work: Callable[[Tx], T]) -> T:
        """Run in a transaction that only reads."""
        return await self._ask(self._reads, work)

    def write_now(self, work: Callable[[Tx], T]) -> T:
        """`write` for code without an event loop."""
        return self._submit(self._writes, work).result()

    def close(self) -> None:
        """Finish what was handed in, close all connections and end the threads; what comes later is refused."""
        self._closed = True
        if self._on_loop is not None:
            self._on_loop.close()
        for _, line in self._threads:
            line.put(None)
        for thread, _ in self._threads:
            thread.join(timeout=30)

    def _ask(
        self, line: Line, work: Callable[[Tx], Any], take: Callable[[Any], Any] | None = None
    ) -> "asyncio.Future[Any]":
        self._refuse_if_closed()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        line.put(Asked(work, future, loop, take))
        return future

    def _submit(self, line: Line, work: Callable[[Tx], T]) -> "Future[T]":
        self._refuse_if_closed()
        future: Future[T] = Future()
        line.put(Asked(work, future))
        return future

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise FatalError("database_closed", "this process has closed its database")

    def _serve(self, line: Line, group_limit: int, writes: bool) -> None:
        runner = GroupCommit(self._connect, self.dialect, self._crash_at if writes else None, writes=writes)
        while (first := line.get()) is not None:
            group = [first]
            while len(group) < group_limit and not line.empty():
                following = line.get()
                if following is None:
                    line.put(None)  # close() is waiting behind this group
                    break
                group.append(following)
            runner.run(group)
        runner.disconnect()
