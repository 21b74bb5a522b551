"""The database's own refusals, brought about on a connection in the middle of its transaction, where a crash point is armed
(engine.crash_points). The errors are the drivers' and the servers', so that what is tried is how they are taken.
"""

from collections.abc import Callable

from engine.crash_points import Refusal
from engine.store.connections import Connection

_RAISED = {
    "locked": "DO $$ BEGIN RAISE EXCEPTION 'canceling statement due to lock timeout' USING ERRCODE = '55P03'; END $$",
    "full": "DO $$ BEGIN RAISE EXCEPTION 'could not extend file: no space left' USING ERRCODE = '53100'; END $$",
}
_MOST_PAGES = 4_294_967_294  # SQLite's own limit, and its default


def provoke(connection: Connection, dialect: str, connect: Callable[[], Connection], refusal: Refusal) -> None:
    """Raises: what the driver raises for that refusal, with the transaction in the state that it then has."""
    if dialect == "postgresql":
        connection.execute(_RAISED[refusal], {})
    elif refusal == "full":
        _outgrow(connection)
    else:
        _lock_out(connect())


def _outgrow(connection: Connection) -> None:
    connection.execute("PRAGMA max_page_count=1", {})  # it may not grow any more
    try:
        connection.execute("CREATE TABLE outgrown AS SELECT zeroblob(10000000) AS value", {})
    finally:
        connection.execute(f"PRAGMA max_page_count={_MOST_PAGES}", {})


def _lock_out(other: Connection) -> None:
    """A second connection finds the lock taken by the transaction under way."""
    try:
        other.execute("PRAGMA busy_timeout=0", {})
        other.execute("BEGIN IMMEDIATE", {})  # not `begin`, which would wait for it
    finally:
        other.close()
