"""Which processes are dead: those of this host by their locks, at once, and those of others by their leases.

A process that ran a single suspect (`worker.isolation`) and died by itself is told from one that was killed together with all the rest: its
supervisor, whose lock its own lock file names, is still there, and is there at the next look too. All killed at once can be seen dead in
any order; within the pause between two looks they all are. Only the host itself can tell: a lease that ran out says nothing of the step.
"""

from dataclasses import dataclass
from pathlib import Path

from engine.clock import now_us
from engine.store.database import Database
from engine.store.workers import workers_on_host
from engine.sweeper import lapsed
from worker.liveness import forget, host_name, is_alive, is_dead, keeper_of

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

    def __init__(self, database: Database, worker_id: str, locks: Path) -> None:
        self._database = database
        self._worker_id = worker_id
        self._locks = locks
        self._seen: set[str] = set()  # dead by themselves, as far as the last look could tell

    async def dead(self) -> list[Dead]:
        """Look once. Raises: RetryableError."""
        rows = await self._database.read(lambda tx: workers_on_host(tx, host_name()))
        found = {row["id"]: row["kind"] for row in rows if self._is_dead(row["id"])}
        by_themselves = {each for each, kind in found.items() if kind == ALONE and self._keeper_lives(each)}
        unsure, self._seen = by_themselves - self._seen, by_themselves
        told = [Dead(each, died_alone=each in by_themselves) for each in found if each not in unsure]
        silent = await self._database.read(lambda tx: lapsed(tx, now_us()))
        return told + [Dead(each, only_if_lapsed=True) for each in silent if each not in found]

    def forget(self, worker_id: str) -> None:
        """It was buried."""
        forget(self._locks, worker_id)

    def _is_dead(self, worker_id: str) -> bool:
        return worker_id != self._worker_id and is_dead(self._locks, worker_id)

    def _keeper_lives(self, worker_id: str) -> bool:
        keeper = keeper_of(self._locks, worker_id)
        return keeper != "" and is_alive(self._locks, keeper)
