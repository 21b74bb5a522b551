"""Holds what this process runs against what the database says that it runs: cancellations arrive here, and lost claims are given back."""

import asyncio

import structlog

from engine.catalogue import Catalogue
from engine.clock import now_us
from engine.errors import RetryableError
from engine.ports import Doorbell
from engine.store.database import Database
from engine.store.steps import steps_held_by
from engine.sweeper import take_back
from worker.runner import StepRunner

log = structlog.get_logger(__name__)

COMPARE_EVERY_S = 0.25


class Holdings:
    """The steps of one process."""

    def __init__(
        self, database: Database, catalogue: Catalogue, doorbell: Doorbell, runner: StepRunner, worker_id: str
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._doorbell = doorbell
        self._runner = runner
        self._worker_id = worker_id
        self._unknown: set[tuple[str, int]] = set()

    async def run(self) -> None:
        """Compare until cancelled."""
        while True:
            try:
                await self.compare()
            except RetryableError as error:
                log.warning("steps not compared", action="compare", error=error.message)
            except Exception:
                log.error("steps not compared", action="compare", exc_info=True)
            await asyncio.sleep(COMPARE_EVERY_S)

    async def compare(self) -> None:
        """Once."""
        seen = {step_id: entry.held.attempt for step_id, entry in self._runner.in_flight.items()}
        rows = await self._database.read(lambda tx: steps_held_by(tx, self._worker_id))
        self._runner.stop_lost({row["id"]: row["attempt"] for row in rows}, seen)
        unknown = [row for row in rows if row["id"] not in self._runner.in_flight]
        forgotten = [row for row in unknown if (row["id"], row["attempt"]) in self._unknown]  # still, a look later
        self._unknown = {(row["id"], row["attempt"]) for row in unknown}
        if not forgotten:
            return
        log.warning("claims taken back", action="take_back", steps=len(forgotten))
        found = await self._database.write(
            lambda tx: take_back(tx, self._catalogue, self._worker_id, forgotten, now_us())
        )
        for ring in found.rings:
            if not self._runner.offer(ring.step_id):
                self._doorbell.ring(ring.step_id, ring.priority)
