"""Small writes of an event loop, committed on the loop's own thread. SQLite alone: elsewhere a commit waits for a server.

The way to a database thread and back costs two wake-ups and a fight for Python's lock at every statement, more than the write
itself (benchmarks/README.md). What could make the loop stand still is left to the thread: a lock that another holds for long,
checkpoints, and a disk that was slow a moment ago. Writes that come in one turn of the loop share a commit.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from engine.crash_points import CrashPoint
from engine.store.asked import Asked, Line, give_all
from engine.store.connections import Connection
from engine.store.group_commit import GROUP_LIMIT, GroupCommit

_LOOK_AGAIN_S = 0.001
_PATIENCE_S = 0.02  # with a lock that another holds; then it is the thread's to wait for it
_SLOW_S = 0.05
_SPARED_S = 5.0  # for so long nothing is written here after a slow commit
_TIDY_AFTER = 64  # commits: about the thousand pages after which SQLite itself makes a checkpoint


class LoopCommits:
    """Belongs to the first loop that asks, until that is closed. `thread` is the line of the writer's thread."""

    def __init__(self, connect: Callable[[], Connection], thread: Line, crash_at: CrashPoint | None) -> None:
        # One by one takes many locks and long: the thread waits for each, where this loop would have to refuse.
        self._commits = GroupCommit(connect, "sqlite", crash_at, hand_out=give_all, replay=self._leave_to_thread)
        self._thread = thread
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending: list[Asked] = []
        self._due: asyncio.Handle | None = None
        self._made = 0  # commits since the thread made one
        self._refused_since: float | None = None
        self._thread_until = 0.0
        self._tidying: asyncio.Future[Any] | None = None

    def hand_in(self, asked: Asked) -> None:
        """It gets its answer, sooner or later; called on `asked`'s loop."""
        loop = asked.loop
        assert loop is not None
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                self._thread.put(asked)
                return
            self._hand_on()
            self._loop, self._due, self._tidying = loop, None, None
        self._pending.append(asked)
        if self._due is None and self._tidying is None:
            self._due = loop.call_soon(self._write)

    def close(self) -> None:
        """What was handed in goes to the thread."""
        self._hand_on()
        self._commits.disconnect()

    def _write(self) -> None:
        """One group. Under a lock that another holds it is tried again soon, and handed on in the end."""
        loop, self._due = self._loop, None
        assert loop is not None
        started = loop.time()
        if started < self._thread_until:
            self._hand_on()
        elif self._made >= _TIDY_AFTER:
            self._tidy()
        elif self._pending:
            group, self._pending = self._pending[:GROUP_LIMIT], self._pending[GROUP_LIMIT:]
            if self._commits.run_if_free(group) is not None:
                self._pending = group + self._pending
                self._wait_for_lock(loop, started)
                return
            self._refused_since = None
            self._made += 1
            if loop.time() - started > _SLOW_S:
                self._thread_until = loop.time() + _SPARED_S
            if self._pending:
                self._due = loop.call_soon(self._write)

    def _wait_for_lock(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        since = self._refused_since = self._refused_since or now
        if now - since < _PATIENCE_S:
            self._due = loop.call_later(_LOOK_AGAIN_S, self._write)
        else:
            self._refused_since = None
            self._hand_on()

    def _tidy(self) -> None:
        """The thread writes a group, and its connection makes the checkpoint that is due. What comes meanwhile waits for its end:
        beside commits that go on no checkpoint would reach the end of the log, which would grow and grow.
        """
        self._made = 0
        self._tidying = self._hand_on()
        if self._tidying is not None:
            self._tidying.add_done_callback(self._tidied)

    def _tidied(self, _: object) -> None:
        self._tidying = None
        if self._pending and self._due is None:
            self._write()

    def _hand_on(self) -> "asyncio.Future[Any] | None":
        """Returns what the last of them waits for."""
        group, self._pending = self._pending, []
        self._leave_to_thread(group)
        return cast("asyncio.Future[Any]", group[-1].future) if group else None

    def _leave_to_thread(self, group: list[Asked]) -> None:
        for asked in group:
            self._thread.put(asked)
