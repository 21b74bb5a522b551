"""Indexes over a few rows of a table, said once for both databases."""

from typing import Any

from sqlalchemy import Index, text

UNSETTLED = "status IN ('started', 'unknown')"
"""As SQL text: SQLite takes a partial index only where the query says the same word for word."""
ACTIVE = "status IN ('ready', 'running')"
"""The same for steps that a worker holds or may take."""
SCHEDULED_OPEN = "schedule_id IS NOT NULL AND finished_us IS NULL"
"""The same for runs that a schedule started and that have not ended."""
SUSPECT_LOSSES = 2
"""A step on board of that many dying workers runs alone from then on (contract, promise 12)."""
SUSPECT = f"steps.status = 'ready' AND steps.losses >= {SUSPECT_LOSSES}"
"""Such steps, ready to be run."""
READY = "status = 'ready'"
"""The same for steps that may be claimed."""


def where(condition: str) -> dict[str, Any]:
    """The condition of a partial index."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


def naming(table: str, column: str) -> Index:
    """By which payload; a column whose name ends with `_digest` names one (engine.store.retention)."""
    return Index(f"ix_{table}_{column}", column, **where(f"{column} IS NOT NULL"))
