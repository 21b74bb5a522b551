"""Deletes what the settings no longer keep: one worker process at a time, once an hour, in small transactions with pauses between."""

import asyncio
from collections import Counter
from dataclasses import dataclass

import structlog

from engine.clock import now_us
from engine.errors import RetryableError
from engine.retention import Cutoffs, prune
from engine.store.database import Database
from engine.store.turns import take_turn, turn_is_due

log = structlog.get_logger(__name__)

TURN = "retention"
EVERY_US = 3_600_000_000
LOOK_EVERY_S = 60.0
PAUSE_S = 0.02  # what others may do between two transactions of this one
_DAY_US = 86_400_000_000


@dataclass(slots=True)
class Keep:
    """How long finished runs and ledger rows are kept. A reload of the configuration changes it."""

    runs_days: int
    requests_days: int

    def cutoffs(self, now: int) -> Cutoffs:
        """What is older goes."""
        return Cutoffs(now - self.runs_days * _DAY_US, now - self.requests_days * _DAY_US)


class Retention:
    """Looks whether it is time; every process does."""

    def __init__(self, database: Database, keep: Keep) -> None:
        self._database = database
        self._keep = keep

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except RetryableError as error:
                log.warning("retention failed", action="retention", error=error.message)
            except Exception:
                log.error("retention failed", action="retention", exc_info=True)
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Take the turn where it is due, and delete."""
        now = now_us()
        if not await self._database.read(lambda tx: turn_is_due(tx, TURN, now)):
            return
        if not await self._database.write(lambda tx: take_turn(tx, TURN, now, now + EVERY_US)):
            return
        deleted: Counter[str] = Counter()
        async for counts in prune(self._database, self._keep.cutoffs(now), now_us):
            deleted += counts
            await asyncio.sleep(PAUSE_S)
        if deleted:
            log.info("old rows deleted", action="retention", **deleted)
