"""Brings a database to the newest schema, safely with several processes starting together.

The lock is SQLite's write lock (BEGIN IMMEDIATE) or a PostgreSQL advisory lock; whoever comes second finds nothing to do.
"""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from engine.errors import RetryableError, UserError

_LOCK_NUMBER = 715_201_644  # any constant that nobody else in the database uses
_LOCK_WAIT_S = 60
_UNKNOWN = (
    "the database has schema {found}, which this release does not know (its newest is {newest}):"
    " use the release of aigateway that made it, or a newer one"
)
_MIGRATIONS = Path(__file__).parents[2] / "migrations"  # by its place: the name may be somebody else's too


def upgrade(url: str) -> None:
    """Create or upgrade the schema; does nothing where it is up to date.

    Raises: RetryableError; UserError, also where a newer release has made it. Nothing is changed then.
    """
    with _told(url), _open(url).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK_NUMBER})"))
        found = _revision(connection)
        if found == head():
            return
        if not is_known(found):
            raise UserError("schema_unknown", _UNKNOWN.format(found=found, newest=head()))
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def current(url: str) -> str | None:
    """The database's revision, None where it is empty. Raises: RetryableError, UserError."""
    with _told(url), _open(url).connect() as connection:
        return _revision(connection)


def head() -> str | None:
    """The newest revision that this program knows."""
    return _scripts().get_current_head()


def is_known(revision: str | None) -> bool:
    """Whether a migration here leads to it; an empty database is known."""
    return revision is None or revision in {script.revision for script in _scripts().walk_revisions()}


@contextmanager
def _told(url: str) -> Generator[None]:
    """What a driver raises, as an error that says what to look at."""
    try:
        yield
    except DBAPIError as error:
        where = make_url(url).render_as_string(hide_password=True)
        reason = str(error.orig).strip().splitlines()[0]
        raise RetryableError(
            "database_unavailable", f"the schema of {where} was neither read nor changed: {reason}"
        ) from error


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


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
