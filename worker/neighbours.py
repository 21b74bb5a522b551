"""Which processes are dead: those of this host by their locks, at once, and those of others by their leases.

A lease has run out where its time is over by this host's clock and it has not been renewed while this process looked on for SILENT_S.
The clock alone would not do: where it is set forward, or goes ahead of another host's, the leases of the living seem to be over.

A process that ran a single suspect (`worker.isolation`) and died by itself is told from one that was killed together with all the rest: its
supervisor, whose lock its own lock file names, is still there, and is there at the next look too. All killed at once can be seen dead in
any order; within the pause between two looks they all are. Only the host itself can tell: a lease that ran out says nothing of the step.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.clock import now_us
from engine.store.database import Database, Row
from engine.store.workers import all_workers
from worker.liveness import forget, host_name, is_alive, is_dead, keeper_of

SILENT_S = 3.0
"""The living renew their leases every second (worker.housekeeping)."""
ALONE = "alone"
"""The kind of a process that runs one suspect and nothing else; others are of kind `worker` or `api`."""


@dataclass(frozen=True, slots=True)
class Dead:
    """A process to bury. `died_alone`: it ran a single step, and died by itself."""

    worker_id: str
    only_if_lapsed: bool = False
    died_alone: bool = False


class Neighbours:
    """All processes but this one, as this one sees them."""

    def __init__(
        self, database: Database, worker_id: str, locks: Path, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._clock = clock
        self._leases: dict[str, tuple[int, float]] = {}  # as they were last renewed, and when that was first seen
        self._worker_id = worker_id
        self._locks = locks
        self._seen: set[str] = set()  # dead by themselves, as far as the last look could tell

    async def dead(self) -> list[Dead]:
        """Look once. Raises: RetryableError."""
        rows = await self._database.read(all_workers)
        here = host_name()
        found = {row["id"]: row["kind"] for row in rows if row["host"] == here and self._is_dead(row["id"])}
        by_themselves = {each for each, kind in found.items() if kind == ALONE and self._keeper_lives(each)}
        unsure, self._seen = by_themselves - self._seen, by_themselves
        told = [Dead(each, died_alone=each in by_themselves) for each in found if each not in unsure]
        return told + [Dead(each, only_if_lapsed=True) for each in self._silent(rows) if each not in found]

    def forget(self, worker_id: str) -> None:
        """It was buried."""
        forget(self._locks, worker_id)

    def _silent(self, rows: list[Row]) -> list[str]:
        at, now = self._clock(), now_us()
        before, self._leases = self._leases, {}
        for row in rows:
            lease, since = before.get(row["id"], (None, at))
            self._leases[row["id"]] = row["lease_until_us"], since if lease == row["lease_until_us"] else at
        return [
            row["id"] for row in rows if row["lease_until_us"] < now and at - self._leases[row["id"]][1] >= SILENT_S
        ]

    def _is_dead(self, worker_id: str) -> bool:
        return worker_id != self._worker_id and is_dead(self._locks, worker_id)

    def _keeper_lives(self, worker_id: str) -> bool:
        keeper = keeper_of(self._locks, worker_id)
        return keeper != "" and is_alive(self._locks, keeper)
