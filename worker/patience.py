"""Writes that must not be lost because the database is away for a while: what they tell of has been paid for."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import structlog

from engine.errors import RetryableError
from engine.store.database import Database, Tx

T = TypeVar("T")

PAUSE_S = 0.2

log = structlog.get_logger(__name__)


async def write_patiently(database: Database, work: Callable[[Tx], T]) -> T:
    """`database.write`, tried until the database takes it. `work` must be safe to repeat. Raises what `work` raises."""
    while True:
        try:
            return await database.write(work)
        except RetryableError as error:
            log.warning("not written yet", action="write", error=error.message)
            await asyncio.sleep(PAUSE_S)
