"""Group commit: what several askers want written shares a transaction, and each gets its answer once that is durable.

A group in which one member fails is rolled back and replayed one by one, so a member must have no effects outside the database.
"""

from collections.abc import Callable, Iterable
from typing import Any

from engine.crash_points import CrashPoint, Moment, ReplyLost
from engine.errors import RetryableError
from engine.store.asked import Answer, Asked, hand_out
from engine.store.connections import Connection
from engine.store.refusals import provoke
from engine.store.transaction import Tx

GROUP_LIMIT = 64  # members of one commit; bounds how long the writer holds SQLite's lock
_COME_BACK_S = 1.0  # what clients are told: long enough for a restart of the database, or for a lock


class _NothingTaken(RetryableError):
    """A transaction failed for a reason that lies in none of its members: a lock, a full disk, a lost connection."""

    def __init__(self, message: str) -> None:
        super().__init__("database_unavailable", message, retry_after_s=_COME_BACK_S)


class GroupCommit:
    """One connection and the groups that are written over it, one after the other. Belongs to one thread."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        dialect: str,
        crash_at: CrashPoint | None,
        *,
        writes: bool = True,
        hand_out: Callable[[Iterable[Answer]], None] = hand_out,
        replay: Callable[[list[Asked]], None] | None = None,
    ) -> None:
        """`hand_out` gives the answers, from the thread that this runs on. `replay` takes over a group in which one member failed."""
        self._connect = connect
        self._crash_at = crash_at
        self._dialect = dialect
        self._writes = writes
        self._hand_out = hand_out
        self._replay = replay or self._one_by_one
        self._connection: Connection | None = None
        self._begun = False

    def run(self, group: list[Asked]) -> None:
        """Give every member its answer: after one common commit, or one by one where a member failed.

        Where the database itself failed (a lock that was not to be had, a lost connection) all get that answer at once.
        """
        refused = self.run_if_free(group)
        if refused is not None:
            self._hand_out(Answer(member, error=refused) for member in group)

    def run_if_free(self, group: list[Asked]) -> RetryableError | None:
        """The same, but where no transaction could be begun nobody is answered: returns why."""
        group = [member for member in group if not member.given_up()]
        if not group:
            return None
        self._begun = False
        try:
            values = self._transaction([member.work for member in group])
        except Exception as error:  # noqa: BLE001 - group-commit member: any failure belongs to the one who asked
            if isinstance(error, _NothingTaken) and not self._begun:
                return error
            if len(group) == 1 or isinstance(error, _NothingTaken):
                self._hand_out(Answer(member, error=error) for member in group)
            else:
                self._replay(group)
            return None
        self._hand_out(map(Answer, group, values))
        return None

    def _one_by_one(self, group: list[Asked]) -> None:
        for member in group:
            self._hand_out([self._alone(member)])

    def _alone(self, member: Asked) -> Answer:
        try:
            return Answer(member, self._transaction([member.work])[0])
        except Exception as error:  # noqa: BLE001 - as in run
            return Answer(member, error=error)

    def _transaction(self, works: list[Callable[[Tx], Any]], *, again: bool = True) -> list[Any]:
        """`again`: a connection that turns out to be dead before anything was done is replaced, once."""
        connection = self._open()
        try:
            connection = self._begin(connection)
            self._begun = True
            tx = Tx(connection, self._dialect)
            answers = [work(tx) for work in works]
            tx.finish()
            self._pass_by(connection, tx, "before")
            connection.commit()
            self._pass_by(connection, tx, "after")
        except BaseException as error:
            nothing_done = connection.nothing_done
            if not connection.rollback():
                self.disconnect()
                if again and nothing_done and connection.failed_outside(error):
                    return self._transaction(works, again=False)
            if connection.failed_outside(error) or isinstance(error, ReplyLost):
                raise _NothingTaken(f"the database did not take it: {error}") from error
            raise
        return answers

    def _pass_by(self, connection: Connection, tx: Tx, moment: Moment) -> None:
        if self._crash_at is not None and (refusal := self._crash_at.pass_by(tx.points, moment)) is not None:
            provoke(connection, self._dialect, self._connect, refusal)

    def _begin(self, kept: Connection) -> Connection:
        """Begin; where the connection died while nobody used it nothing is lost yet, and a new one takes its place."""
        try:
            kept.begin(writes=self._writes)
            return kept
        except Exception as error:
            if kept.failed_outside(error) and not kept.rollback():
                return self._begin_anew()
            raise

    def _begin_anew(self) -> Connection:
        self.disconnect()
        fresh = self._open()
        fresh.begin(writes=self._writes)
        return fresh

    def _open(self) -> Connection:
        if self._connection is None:
            try:
                self._connection = self._connect()
            except RetryableError as error:
                raise _NothingTaken(error.message) from error
        return self._connection

    def disconnect(self) -> None:
        """Close the connection; the next transaction opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
