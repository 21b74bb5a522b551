"""What every worker process does beside its steps: renew its lease, look for the dead, wake what is due.

The lease is renewed on a thread and a connection of its own, so that neither a busy loop nor a long write delays it.
"""

import asyncio
import os
import random
import threading
from collections.abc import Callable
from time import monotonic

import structlog

from engine.catalogue import Catalogue
from engine.child_runs import answer, unanswered
from engine.clock import now_us
from engine.errors import RetryableError
from engine.fairness import Turns, owed_turns, with_aged
from engine.firing import due_now, fire
from engine.places import fill, lines_to_fill
from engine.ports import Doorbell
from engine.store.database import Database, Tx
from engine.store.steps import next_due_us
from engine.store.workers import insert_worker, lock_worker, renew_lease
from engine.sweeper import Swept, anything_due, expire_runs, overlooked, suspects, wake_due
from worker.liveness import host_name
from worker.neighbours import Neighbours
from worker.runner import StepRunner
from worker.undertaker import Undertaker

log = structlog.get_logger(__name__)

LEASE_S = 8.0
RENEW_EVERY_S = 1.0
SWEEP_EVERY_S = 0.25
TICK_S = 0.02  # timers that run out between two sweeps are looked for no more often


def register(database: Database, worker_id: str, kind: str) -> None:
    """Enter this process among the living, as `worker`, `api` or `alone` (`worker.neighbours`). Raises: RetryableError."""
    now = now_us()
    row = {
        "id": worker_id,
        "kind": kind,
        "host": host_name(),
        "pid": os.getpid(),
        "started_us": now,
        "lease_until_us": now + int(LEASE_S * 1_000_000),
    }

    def enter(tx: Tx) -> None:
        if lock_worker(tx, worker_id) is None:  # it is there where only the reply was lost
            insert_worker(tx, row)

    database.write_now(enter)


class Heartbeat:
    """Renews the lease every second; `lost` is called (on this thread) when the process must stop writing.

    Where `lost` returns True the process goes on, and so does this.
    """

    def __init__(self, database: Database, worker_id: str, lost: Callable[[], bool | None]) -> None:
        self._database = database
        self._worker_id = worker_id
        self._lost = lost
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the lease runs out by itself."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _serve(self) -> None:
        held_until = now_us() + int(LEASE_S * 1_000_000)
        while not self._stop.wait(RENEW_EVERY_S):
            until = now_us() + int(LEASE_S * 1_000_000)
            held = self._renewed(until)
            if held:
                held_until = until
            elif (held is False or now_us() > held_until - int(2 * RENEW_EVERY_S * 1_000_000)) and not self._lost():
                return

    def _renewed(self, until: int) -> bool | None:
        """False where somebody took the lease away, None where the database did not answer."""
        try:
            return self._database.write_now(lambda tx: renew_lease(tx, self._worker_id, until))
        except RetryableError as error:
            log.warning("lease not renewed", action="renew", error=error.message)
            return None


class Sweeper:
    """Looks for work that nobody was told of. Reads first, writes only where there is something to do."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        doorbell: Doorbell,
        runner: StepRunner | None,
        *,
        neighbours: Neighbours,
        isolate: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._doorbell = doorbell
        self._runner = runner
        self._undertaker = Undertaker(database, catalogue, neighbours, self._ring)
        self._isolate = isolate
        self._turns = Turns()

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await self.sweep()
                await self._rest(monotonic() + SWEEP_EVERY_S)
                continue
            except RetryableError as error:
                log.warning("sweep failed", action="sweep", error=error.message)
            except Exception:
                log.error("sweep failed", action="sweep", exc_info=True)
            await asyncio.sleep(SWEEP_EVERY_S)

    async def sweep(self) -> None:
        """Once over everything."""
        await self._undertaker.bury_all()
        for step_id in await self._database.read(suspects):
            self._isolate(step_id)
        if await self._database.read(lambda tx: anything_due(tx, now_us())):
            await self._wake()
            self._ring(await self._database.write(lambda tx: expire_runs(tx, self._catalogue, now_us())))
        await self._fire()
        await self._answer_steps()
        for line in await self._database.read(lambda tx: lines_to_fill(tx, now_us())):
            rings = await self._database.write(lambda tx, name=line: fill(tx, name, now_us()))
            self._ring(Swept(tuple(rings)))
        self._offer(await self._database.read(lambda tx: overlooked(tx, now_us())))
        await self._take_turns()

    async def _take_turns(self) -> None:
        """A full process owes slots to workflows that hold less than their share."""
        if self._runner is None:
            return
        if not self._runner.is_full():
            self._runner.owe(())
            return
        slots, held = self._runner.slots()
        last = self._turns
        self._turns = await self._database.read(
            lambda tx: with_aged(tx, owed_turns(tx, held, slots, last.after), now_us(), last.aged_us)
        )
        self._runner.owe(self._turns.step_ids)

    async def _rest(self, until: float) -> None:
        """Until the next sweep, but wake what is due before; steps that begin to wait meanwhile, and for less, are that one's.

        Processes look at different moments: what one has woken the others do not find.
        """
        woken = True  # else something is due that is not to be woken: the sweep tries again
        while woken and (left_s := until - monotonic()) > 0:
            due_s = (await self._database.read(next_due_us) - now_us()) / 1_000_000
            if due_s <= 0:
                woken = await self._wake() > 0
            await asyncio.sleep(min(left_s, max(due_s, TICK_S) + TICK_S * random.random()))
        await asyncio.sleep(max(0.0, until - monotonic()))

    async def _wake(self) -> int:
        """Everything whose time has come, transaction by transaction; how many steps it was."""
        woken, more = 0, True
        while more:
            found = await self._database.write(lambda tx: wake_due(tx, self._catalogue, now_us()))
            self._ring(found)
            woken, more = woken + found.woken, found.more
        return woken

    async def _fire(self) -> None:
        """Start the runs that schedules are due for; of one that was asleep for long, slice by slice."""
        for schedule_id in await self._database.read(lambda tx: due_now(tx, now_us())):
            more = True
            while more:
                fired = await self._database.write(lambda tx, one=schedule_id: fire(tx, self._catalogue, one, now_us()))
                self._ring(Swept(fired.rings))
                more = fired.more

    async def _answer_steps(self) -> None:
        """Steps learn of the ends of the runs they started, and children of the ends of their steps."""
        for child in await self._database.read(unanswered):
            rings, ended = await self._database.write(lambda tx, one=child: answer(tx, self._catalogue, one, now_us()))
            self._ring(Swept(tuple(rings), run_ended=ended))

    def _ring(self, found: Swept) -> None:
        if found.run_ended and self._runner is not None:
            self._runner.run_ended.set()
        for ring in found.rings:
            if self._runner is None or not self._runner.offer(ring.step_id):
                self._doorbell.ring(ring.step_id, ring.priority)

    def _offer(self, found: Swept) -> None:
        """Steps that are still unclaimed are taken where there is room, and rung by nobody: each would fill the queue anew."""
        for ring in found.rings:
            if self._runner is not None and not self._runner.offer(ring.step_id):
                return
