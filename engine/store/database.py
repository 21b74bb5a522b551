"""The process's way to its database: one writer with group commit on SQLite, a few connections on PostgreSQL.

Functions handed to `write` and `read` run on a database thread and get a `Tx`. They must not have effects outside the
database: a group in which one member fails is rolled back and replayed one by one. Whoever waits for `write` gets its
answer after the commit. Called by every service of the engine; nobody else opens connections.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import make_url

from engine.crash_points import CrashPoint, Moment, ReplyLost
from engine.errors import FatalError, RetryableError
from engine.store.asked import Answer, Asked, hand_out
from engine.store.connections import Connection, connector
from engine.store.refusals import provoke
from engine.store.statements import Bound, Statement

T = TypeVar("T")
R = TypeVar("R")
Row = dict[str, Any]
_Line = queue.SimpleQueue[Asked | None]

GROUP_LIMIT = 64  # members of one commit; bounds how long the writer holds SQLite's lock
POSTGRESQL_WRITERS = 4
READERS = 2
_COME_BACK_S = 1.0  # what clients are told: long enough for a restart of the database, or for a lock


class _NothingTaken(RetryableError):
    """A transaction failed for a reason that lies in none of its members: a lock, a full disk, a lost connection."""

    def __init__(self, message: str) -> None:
        super().__init__("database_unavailable", message, retry_after_s=_COME_BACK_S)


class Tx:
    """One transaction, handed to the functions that `Database.write` and `read` run."""

    def __init__(self, connection: Connection, dialect: str) -> None:
        self._connection = connection
        self.dialect = dialect
        self.points: list[str] = []

    def point(self, name: str) -> None:
        """Say which commit point this transaction reaches (engine.crash_points)."""
        self.points.append(name)

    def run(self, statement: Statement, parameters: Mapping[str, Any] | None = None) -> int:
        """Execute; returns the number of rows it touched."""
        return self._execute(statement, parameters).rowcount

    def send(self, statement: Statement, parameters: Mapping[str, Any]) -> None:
        """Execute where nobody asks for an answer: on PostgreSQL it travels with the next one that is asked for, and fails with it."""
        self._connection.send(*self._bound(statement, parameters))

    def one(self, statement: Statement, parameters: Mapping[str, Any] | None = None) -> Row | None:
        """The first row, None where there is none."""
        return _first(statement, self._execute(statement, parameters))

    def pair(
        self, first: tuple[Statement, Mapping[str, Any]], second: tuple[Statement, Mapping[str, Any]]
    ) -> tuple[Row | None, Row | None]:
        """`one` of two statements; the second one sees what the first one waited for."""
        cursors = self._connection.execute_both(self._bound(*first), self._bound(*second))
        return _first(first[0], cursors[0]), _first(second[0], cursors[1])

    def all(self, statement: Statement, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """All rows."""
        cursor = self._execute(statement, parameters)
        names = statement.names(cursor)
        return [dict(zip(names, found, strict=True)) for found in cursor.fetchall()]

    def many(self, statement: Statement, rows: Iterable[Mapping[str, Any]]) -> None:
        """Send once per row."""
        for row in rows:
            self.send(statement, row)

    def _execute(self, statement: Statement, parameters: Mapping[str, Any] | None) -> Any:
        return self._connection.execute(*self._bound(statement, parameters))

    def _bound(self, statement: Statement, parameters: Mapping[str, Any] | None) -> Bound:
        sql, fixed = statement.ready(self.dialect)
        return sql, {**fixed, **parameters} if parameters else fixed


def _first(statement: Statement, cursor: Any) -> Row | None:
    found = cursor.fetchone()
    return None if found is None else dict(zip(statement.names(cursor), found, strict=True))


class Database:
    """Runs transactions on its own threads. Safe to share between an event loop and plain threads."""

    def __init__(self, url: str, *, readers: int = READERS, crash_at: CrashPoint | None = None) -> None:
        self.dialect = make_url(url).get_backend_name()
        self.url = url
        self._connect = connector(url)
        self._crash_at = crash_at
        self._writes: _Line = _Line()
        self._reads: _Line = _Line()
        self._threads: list[tuple[threading.Thread, _Line]] = []
        if self.dialect == "sqlite":
            self._additions: _Line = self._writes
            self._man(self._writes, 1, GROUP_LIMIT, writes=True)
        else:
            self._additions = _Line()
            self._man(self._writes, POSTGRESQL_WRITERS, 1, writes=True)
            self._man(self._additions, 1, GROUP_LIMIT, writes=True)
        self._man(self._reads, readers, 1, writes=False)
        self._closed = False
        for thread, _ in self._threads:
            thread.start()

    def _man(self, line: _Line, threads: int, group: int, *, writes: bool) -> None:
        name = "database-writer" if writes else "database-reader"
        for _ in range(threads):
            thread = threading.Thread(target=self._serve, args=(line, group, writes), name=name, daemon=True)
            self._threads.append((thread, line))

    async def write(self, work: Callable[[Tx], T]) -> T:
        """Run in a transaction that writes; the answer is durable. Raises what `work` raises, RetryableError on lost connections."""
        return await self._ask(self._writes, work)

    def begin_write(self, work: Callable[[Tx], T], take: Callable[[T], R]) -> "asyncio.Future[R]":
        """`write` for who may be cancelled while it goes on; `take` makes its answer, on the event loop. May raise AIGatewayError."""
        return self._ask(self._writes, work, take)

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
        for _, line in self._threads:
            line.put(None)
        for thread, _ in self._threads:
            thread.join(timeout=30)

    def _ask(
        self, line: _Line, work: Callable[[Tx], Any], take: Callable[[Any], Any] | None = None
    ) -> "asyncio.Future[Any]":
        self._refuse_if_closed()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        line.put(Asked(work, future, loop, take))
        return future

    def _submit(self, line: _Line, work: Callable[[Tx], T]) -> "Future[T]":
        self._refuse_if_closed()
        future: Future[T] = Future()
        line.put(Asked(work, future))
        return future

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise FatalError("database_closed", "this process has closed its database")

    def _serve(self, line: _Line, group_limit: int, writes: bool) -> None:
        runner = _Runner(self._connect, self.dialect, writes, self._crash_at if writes else None)
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


class _Runner:
    """One database thread's connection and the group it is working on."""

    def __init__(
        self, connect: Callable[[], Connection], dialect: str, writes: bool, crash_at: CrashPoint | None
    ) -> None:
        self._connect = connect
        self._crash_at = crash_at
        self._dialect = dialect
        self._writes = writes
        self._connection: Connection | None = None

    def run(self, group: list[Asked]) -> None:
        """Give every member its answer: after one common commit, or one by one where a member failed.

        Where the database itself failed (a lock that was not to be had, a lost connection) all get that answer at once.
        """
        group = [member for member in group if not member.given_up()]
        if not group:
            return
        try:
            values = self._transaction([member.work for member in group])
        except Exception as error:  # noqa: BLE001 - group-commit member: any failure belongs to the one who asked
            if len(group) == 1 or isinstance(error, _NothingTaken):
                hand_out(Answer(member, error=error) for member in group)
                return
            for member in group:
                hand_out([self._alone(member)])
            return
        hand_out(map(Answer, group, values))

    def _alone(self, member: Asked) -> Answer:
        try:
            return Answer(member, self._transaction([member.work])[0])
        except Exception as error:  # noqa: BLE001 - as in run
            return Answer(member, error=error)

    def _transaction(self, works: list[Callable[[Tx], Any]], *, again: bool = True) -> list[Any]:
        """`again`: a connection that turns out to be dead before anything was done is replaced, once."""
        connection = self._open()
        try:
            connection = self._begin(connection)
            tx = Tx(connection, self._dialect)
            answers = [work(tx) for work in works]
            self._pass_by(connection, tx, "before")
            connection.commit()
            self._pass_by(connection, tx, "after")
        except BaseException as error:
            nothing_done = connection.nothing_done
            if not connection.rollback():
                self.disconnect()
                if again and nothing_done and connection.failed_outside(error):
                    return self._transaction(works, again=False)
            if connection.failed_outside(error) or isinstance(error, ReplyLost):
                raise _NothingTaken(f"the database did not take it: {error}") from error
            raise
        return answers

    def _pass_by(self, connection: Connection, tx: Tx, moment: Moment) -> None:
        if self._crash_at is not None and (refusal := self._crash_at.pass_by(tx.points, moment)) is not None:
            provoke(connection, self._dialect, self._connect, refusal)

    def _begin(self, kept: Connection) -> Connection:
        """Begin; where the connection died while nobody used it nothing is lost yet, and a new one takes its place."""
        try:
            kept.begin(writes=self._writes)
            return kept
        except Exception as error:
            if kept.failed_outside(error) and not kept.rollback():
                return self._begin_anew()
            raise

    def _begin_anew(self) -> Connection:
        self.disconnect()
        fresh = self._open()
        fresh.begin(writes=self._writes)
        return fresh

    def _open(self) -> Connection:
        if self._connection is None:
            try:
                self._connection = self._connect()
            except RetryableError as error:
                raise _NothingTaken(error.message) from error
        return self._connection

    def disconnect(self) -> None:
        """Close the connection; the next transaction opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
