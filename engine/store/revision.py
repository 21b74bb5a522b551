"""The schema's revision, read without Alembic: loading it takes a third of a second, and mostly there is nothing to do."""

from engine.store.connections import connector

NEWEST = "0017"
"""The newest migration's id; a test holds it to the migrations folder."""

_STORED = "SELECT version_num FROM alembic_version"
_KNOWN = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'",
    "postgresql": "SELECT 1 WHERE to_regclass('alembic_version') IS NOT NULL",
}


def bring_up_to_date(url: str) -> None:
    """Create or upgrade the schema where it is empty or behind. Raises: RetryableError, UserError."""
    if _stored(url) != NEWEST:
        from engine.store.migrate import upgrade  # noqa: PLC0415 - see above

        upgrade(url)


def _stored(url: str) -> str | None:
    dialect = "sqlite" if url.startswith("sqlite") else "postgresql"
    connection = connector(url)()
    try:
        if connection.execute(_KNOWN[dialect], {}).fetchone() is None:
            return None
        row = connection.execute(_STORED, {}).fetchone()
        return None if row is None else str(row[0])
    finally:
        connection.close()
