"""Indexes over a few rows of a table, said once for both databases."""

from typing import Any

from sqlalchemy import Index, text


def where(condition: str) -> dict[str, Any]:
    """The condition of a partial index."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


def naming(table: str, column: str) -> Index:
    """By which payload; a column whose name ends with `_digest` names one (engine.store.retention)."""
    return Index(f"ix_{table}_{column}", column, **where(f"{column} IS NOT NULL"))
