"""SQLite behind `engine.store.connections.Connection`."""

import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import RetryableError
from engine.store.statements import Bound

BUSY_TIMEOUT_S = 5.0  # waits for SQLite's one write lock stay under it, and well under a lease
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.0002, 0.002


class SqliteConnection:
    """WAL; NORMAL survives any crash of the process, and FULL is not needed for promises about killed processes."""

    def __init__(self, path: str, *, may_wait: bool = True) -> None:
        """`may_wait` False: for a thread that has other things to do; a lock that is taken is told at once, and checkpoints are left to others.

        Raises: RetryableError where the file cannot be opened.
        """
        self._waits_by_itself = False
        self._may_wait = may_wait
        patience = BUSY_TIMEOUT_S if may_wait else 0.0
        try:
            self._raw = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise RetryableError("database_unavailable", f"{path}: {error}") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._raw.close()
            raise RetryableError("database_unavailable", f"{path}: {error}") from error

    def _prepare(self) -> None:
        self._switch_to_wal()
        for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
            self._raw.execute(f"PRAGMA {pragma}")
        if not self._may_wait:
            self._raw.execute("PRAGMA wal_autocheckpoint=0")

    def _switch_to_wal(self) -> None:
        """Several processes may open a new file at once, and SQLite's busy timeout does not cover this switch."""
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                self._raw.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
                if not busy or not self._may_wait or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @property
    def nothing_done(self) -> bool:
        """See Connection. There is no server that could go away."""
        return False

    def begin(self, *, writes: bool) -> None:
        """IMMEDIATE for writes: a deferred BEGIN fails with `database is locked` as soon as two processes write."""
        if writes:
            self._take_write_lock()
        else:
            self._raw.execute("BEGIN")

    def _take_write_lock(self) -> None:
        """Tries again every few hundred microseconds at first and every 2 ms at last, for BUSY_TIMEOUT_S.

        SQLite's own waiting sleeps for up to 100 ms at a time, in which the lock is free or others pass by.
        """
        if not self._waits_by_itself:
            self._raw.execute("PRAGMA busy_timeout=0")  # once it has the lock nothing else is ever busy
            self._waits_by_itself = True
        deadline, pause = time.monotonic() + BUSY_TIMEOUT_S, _FIRST_PAUSE_S
        while True:
            try:
                self._raw.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or not self._may_wait or time.monotonic() > deadline:
                    raise
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_S)

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> Any:
        """See Connection."""
        return self._raw.execute(sql, parameters)

    def execute_all(self, statements: Sequence[Bound]) -> Sequence[Any]:
        """See Connection."""
        return [self._raw.execute(sql, parameters) for sql, parameters in statements]

    def send(self, sql: str, parameters: Mapping[str, Any]) -> None:
        """See Connection. At once: there is no way to a server to be saved."""
        self._raw.execute(sql, parameters)

    def commit(self) -> None:
        """See Connection."""
        self._raw.execute("COMMIT")

    def rollback(self) -> bool:
        """See Connection."""
        try:
            if self._raw.in_transaction:
                self._raw.execute("ROLLBACK")
        except sqlite3.Error:
            return False
        return True

    def failed_outside(self, error: BaseException) -> bool:
        """See Connection. A plain SQLITE_ERROR is a mistake in a statement."""
        return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode != sqlite3.SQLITE_ERROR

    def close(self) -> None:
        """See Connection."""
        self._raw.close()
