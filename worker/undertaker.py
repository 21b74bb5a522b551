"""Buries the dead: takes back what killed processes held, so that their steps run elsewhere and their open calls are told as `unknown`.

Workers do it in every sweep. API processes do it where no worker has for a while: an installation may have none, and what a
killed process had reserved would count against budgets for ever. Not at once: a step that is taken back before the killed worker's
successor listens is rung for nobody, and waits until a sweep finds it overlooked.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from engine.catalogue import Catalogue
from engine.clock import now_us
from engine.errors import RetryableError
from engine.store.database import Database, Tx
from engine.sweeper import Swept, bury
from worker.neighbours import Dead, Neighbours

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
LEFT_TO_WORKERS_S = 3.0
"""For so long an API process lets the dead lie; a successor is up in less than a second."""


class Undertaker:
    """One for a process. `found` is told of each burial: bells have to be rung. The dead are buried `after_s` from when they were first seen."""

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        neighbours: Neighbours,
        found: Callable[[Swept], None],
        *,
        after_s: float = 0.0,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._neighbours = neighbours
        self._found = found
        self._after_s = after_s
        self._seen: dict[str, float] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.bury_all()
            except RetryableError as error:
                log.warning("the dead not looked for", action="bury", error=error.message)
            except Exception:
                log.error("the dead not looked for", action="bury", exc_info=True)
            await asyncio.sleep(LOOK_EVERY_S)

    async def bury_all(self) -> None:
        """Look once. Raises: RetryableError."""
        seen, now = await self._neighbours.dead(), time.monotonic()
        self._seen = {dead.worker_id: self._seen.get(dead.worker_id, now) for dead in seen}
        for dead in seen:
            if now - self._seen[dead.worker_id] < self._after_s:
                continue
            swept = await self._database.write(lambda tx, dead=dead: self._bury(tx, dead))
            if not swept.buried:
                continue  # its lease was renewed after all, or somebody else was faster
            self._neighbours.forget(dead.worker_id)
            log.warning("process buried", action="bury", worker=dead.worker_id, steps=swept.reclaimed)
            self._found(swept)

    def _bury(self, tx: Tx, dead: Dead) -> Swept:
        return bury(
            tx,
            self._catalogue,
            dead.worker_id,
            now_us(),
            only_if_lapsed=dead.only_if_lapsed,
            died_alone=dead.died_alone,
        )
