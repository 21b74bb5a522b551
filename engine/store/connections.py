"""The driver's own connection behind one small face: begin, execute, commit. One module a driver, imported when it is needed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import make_url

from engine.errors import UserError
from engine.store.statements import Bound


class Connection(Protocol):
    """What a transaction needs of a driver."""

    def failed_outside(self, error: BaseException) -> bool:
        """Whether this is nobody's mistake: a lock time-out, a lost connection, a full disk."""
        ...

    @property
    def nothing_done(self) -> bool:
        """Whether a transaction that has just failed cannot have done anything: no answer came since it began, nor was it to commit."""
        ...

    def begin(self, *, writes: bool) -> None:
        """Open a transaction; one that writes takes SQLite's write lock at once, so that it can never lose it half way."""
        ...

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> Any:
        """A cursor with rowcount, description, fetchone and fetchall."""
        ...

    def execute_all(self, statements: Sequence[Bound]) -> Sequence[Any]:
        """Statements that do not need each other's answers, the one after the other, and a cursor of each."""
        ...

    def send(self, sql: str, parameters: Mapping[str, Any]) -> None:
        """Execute, now or with the next `execute` or `commit`, which then raises what this one failed of."""
        ...

    def commit(self) -> None:
        """Durable when it returns."""
        ...

    def rollback(self) -> bool:
        """Undo; False where the connection is of no more use."""
        ...

    def close(self) -> None:
        """Never raises."""
        ...


def connector(url: str, *, may_wait: bool = True) -> Callable[[], Connection]:
    """What opens connections to that database; `may_wait`: see SqliteConnection. Raises: UserError for a kind that is not supported."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        from engine.store.sqlite_connection import SqliteConnection  # noqa: PLC0415 - one driver a process

        path = parsed.database or ":memory:"
        return lambda: SqliteConnection(path, may_wait=may_wait)
    if parsed.get_backend_name() == "postgresql":
        from engine.store.postgresql_connection import PostgresqlConnection  # noqa: PLC0415 - 14 MB

        place, mark, options = parsed.set(drivername="postgresql").render_as_string(hide_password=False).partition("?")
        conninfo = place + mark + options.replace("+", "%20")  # libpq knows no other way to write a space
        return lambda: PostgresqlConnection(conninfo)
    raise UserError(
        "invalid_config", f"database_url: {parsed.get_backend_name()} is not supported, use sqlite or postgresql"
    )
