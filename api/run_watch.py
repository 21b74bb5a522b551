"""Waiting for runs: one look at the database at a time for all who wait in this process, however many they are.

Where somebody tells of a run's end (`ended`) nobody has to look for it. Otherwise each waiter is looked for soon at first and then less and less often, as a long poll would; looks that are due together are one
statement. No two looks follow each other within TICK_S, so a process asks at most a hundred times a second.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

import structlog

from engine.errors import NotFound, RetryableError
from engine.states import RUN_ENDED, RunStatus
from engine.store.database import Database, Row, Tx
from engine.store.runs import RunAt, get_run, runs_at

log = structlog.get_logger(__name__)

T = TypeVar("T")

SETTLED = RUN_ENDED | {RunStatus.PAUSED}
"""Where waiting for a run's end is over: a paused run goes on only when somebody resumes it."""

TICK_S = 0.01
_END_LOOK_S = 0.004
_CHANGE_LOOK_S = 0.02  # whoever follows every step of a busy run asks no more often than this
_SLOWER = 1.25  # late by a quarter of what has passed
_LONGEST_PAUSE_S = 0.25


@dataclass(eq=False, slots=True)
class _Waiter:
    run_id: str
    seen: int | None  # the number of the newest event that is known; None: only the run's end counts
    due: float
    pause_s: float
    done: "asyncio.Future[None]"

    def waits(self, at: RunAt) -> bool:
        """Whether it goes on waiting."""
        return at.status not in SETTLED if self.seen is None else at.event_seq <= self.seen


class RunWatch:
    """Tells when runs change. One for a process; its task runs only while somebody waits."""

    def __init__(self, database: Database, closing: asyncio.Event) -> None:
        self._database = database
        self._closing = closing
        self._waiters: set[_Waiter] = set()
        self._earlier = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    async def changed(self, run_id: str, seen: int, wait_s: float) -> bool:
        """True as soon as the run's history has grown beyond event number `seen`, or the process is told to end.

        False where nothing happened for `wait_s` seconds.
        """
        return await self._until(run_id, seen, wait_s, _CHANGE_LOOK_S)

    def ended(self, run_id: str) -> None:
        """A run is said to have ended: whoever waits for it looks at once. Called on the loop."""
        for waiter in self._waiters:
            if waiter.run_id == run_id and not waiter.done.done():
                waiter.done.set_result(None)

    async def run(self, run_id: str) -> Row:
        """The run's row. Raises: NotFound."""
        return await self._database.read(lambda tx: _found(tx, run_id))

    async def end_of(self, run_id: str, wait_s: float) -> Row:
        """The run as soon as it has ended or paused, or as it stands after `wait_s` seconds. Raises: NotFound."""
        return await self.told_at_end(run_id, wait_s, lambda _, run: run)

    async def told_at_end(
        self, run_id: str, wait_s: float, tell: Callable[[Tx, Row], T], *, just_made: bool = False
    ) -> T:
        """What `tell` makes of the run at that moment, in the transaction that found it so. Raises: NotFound.

        A run that was `just_made` is not looked at before it had the time to end.
        """
        deadline = monotonic() + wait_s
        if just_made and wait_s > 0:
            await self._until(run_id, None, wait_s, _END_LOOK_S)
        while True:
            left_s = deadline - monotonic()
            last = left_s <= 0 or self._closing.is_set()
            told = await self._database.read(lambda tx, last=last: _tell(tx, run_id, tell, even_if_open=last))
            if told is not None:
                return told[0]
            await self._until(run_id, None, left_s, _END_LOOK_S)

    async def _until(self, run_id: str, seen: int | None, wait_s: float, first_look_s: float) -> bool:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(run_id, seen, monotonic() + first_look_s, first_look_s, done)
        self._waiters.add(waiter)
        self._earlier.set()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(wait_s):
                await done
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
        return True

    async def _look(self) -> None:
        while self._waiters:
            due = [waiter for waiter in self._waiters if waiter.due <= monotonic()]
            if due:
                await self._compare(due)
                await asyncio.sleep(TICK_S)
            self._earlier.clear()
            next_due = min((waiter.due for waiter in self._waiters), default=0.0)
            try:
                async with asyncio.timeout(max(0.0, next_due - monotonic())):
                    await self._earlier.wait()
            except TimeoutError:
                continue

    async def _compare(self, due: list[_Waiter]) -> None:
        wanted = sorted({waiter.run_id for waiter in due})
        try:
            found = await self._database.read(lambda tx: runs_at(tx, wanted))
        except RetryableError as error:  # they go on waiting
            log.warning("runs not looked at", action="watch", error=error.message)
            found = None
        except Exception as error:  # noqa: BLE001 - task top: whoever waits is told
            for waiter in due:
                if not waiter.done.done():
                    waiter.done.set_exception(error)
            return
        for waiter in due:
            at = None if found is None else found.get(waiter.run_id)
            waits = found is None or (at is not None and waiter.waits(at))
            if (not waits or self._closing.is_set()) and not waiter.done.done():
                waiter.done.set_result(None)
            waiter.pause_s = min(waiter.pause_s * _SLOWER, _LONGEST_PAUSE_S)
            waiter.due = monotonic() + waiter.pause_s


def _found(tx: Tx, run_id: str) -> Row:
    run = get_run(tx, run_id)
    if run is None:
        raise NotFound("run_not_found", f"there is no run {run_id}", param="run_id")
    return run


def _tell(tx: Tx, run_id: str, tell: Callable[[Tx, Row], T], *, even_if_open: bool) -> tuple[T] | None:
    run = _found(tx, run_id)
    return (tell(tx, run),) if even_if_open or run["status"] in SETTLED else None
