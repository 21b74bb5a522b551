"""`aigateway db prune`: retention at once, in the database that the settings name."""

import asyncio
from collections import Counter

from aigateway.backup import sqlite_file
from aigateway.config_keys import Settings
from aigateway.settings import process_crash_point
from engine.clock import now_us
from engine.errors import UserError
from engine.retention import TABLES, Cutoffs, count_prunable, prune
from engine.store.database import Database
from engine.store.revision import bring_up_to_date
from worker.retention import Keep


def prune_now(
    settings: Settings, runs_age_s: float | None, requests_age_s: float | None, *, dry_run: bool
) -> dict[str, int]:
    """Delete (or count) what is older; how many rows by table. Ages that are not told are those of `retention`.

    Raises: UserError where there is no database yet, RetryableError where it cannot be reached.
    """
    file = sqlite_file(settings.database_url)
    if file is not None and not file.is_file():
        raise UserError("invalid_config", f"{file}: there is no database yet")
    bring_up_to_date(settings.database_url)
    now = now_us()
    keep = Keep(settings.retention.runs_days, settings.retention.requests_days).cutoffs(now)
    cutoffs = Cutoffs(
        keep.runs_us if runs_age_s is None else now - int(runs_age_s * 1_000_000),
        keep.requests_us if requests_age_s is None else now - int(requests_age_s * 1_000_000),
    )
    database = Database(settings.database_url, crash_at=process_crash_point())
    try:
        counts = asyncio.run(_counted(database, cutoffs, now, dry_run=dry_run))
    finally:
        database.close()
    return {table: counts[table] for table in TABLES}


async def _counted(database: Database, cutoffs: Cutoffs, now: int, *, dry_run: bool) -> Counter[str]:
    if dry_run:
        return await count_prunable(database, cutoffs, now)
    deleted: Counter[str] = Counter()
    async for counts in prune(database, cutoffs, now_us):
        deleted += counts
    return deleted
