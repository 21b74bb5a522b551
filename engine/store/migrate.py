"""Brings a database to the newest schema, safely with several processes starting together.

The lock is SQLite's write lock (BEGIN IMMEDIATE) or a PostgreSQL advisory lock; whoever comes second finds nothing to do.
"""

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from engine.errors import RetryableError, UserError

_LOCK_NUMBER = 715_201_644  # any constant that nobody else in the database uses
_LOCK_WAIT_S = 60
_MIGRATIONS = Path(__file__).parents[2] / "migrations"  # by its place: the name may be somebody else's too


def upgrade(url: str) -> None:
    """Create or upgrade the schema; does nothing where it is up to date. Raises: RetryableError, UserError."""
    with _open(url).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK_NUMBER})"))
        if _revision(connection) != head():
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def current(url: str) -> str | None:
    """The database's revision, None where it is empty. Raises: RetryableError, UserError."""
    with _open(url).connect() as connection:
        return _revision(connection)


def head() -> str | None:
    """The newest revision that this program knows."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _open(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    elif parsed.get_backend_name() != "sqlite":
        raise UserError(
            "invalid_config", f"database_url: {parsed.get_backend_name()} is not supported, use sqlite or postgresql"
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        folder = Path(parsed.database).resolve().parent
        if not folder.is_dir():
            raise UserError("invalid_config", f"database_url: the folder {folder} does not exist")
    engine = create_engine(parsed, poolclass=NullPool)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
    try:
        engine.connect().close()
    except OperationalError as error:
        raise RetryableError("database_unavailable", f"the database cannot be reached: {error.orig}") from error
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver must not emit BEGIN
    connection.execute(f"PRAGMA busy_timeout={_LOCK_WAIT_S * 1000}")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
