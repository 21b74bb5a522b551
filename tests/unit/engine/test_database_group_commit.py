"""Group commit on SQLite: writes that arrive together share a commit, a failing one fails alone, and an answer means durable."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import bindparam, insert, select, text

from engine.errors import FatalError, RetryableError
from engine.store import sqlite_connection
from engine.store.database import Database, Tx
from engine.store.statements import Statement
from engine.store.tables import settings

Work = Callable[[Tx], object]

ROOT = Path(__file__).parents[3]
SET = Statement(insert(settings), columns=("name", "value"))
GET = Statement(select(settings.c.value).where(settings.c.name == bindparam("setting")))

WRITE_AND_TELL = """
import sys, threading
from engine.store.database import Database
from engine.store.settings import get_or_make
database = Database(sys.argv[1])
for number in range(int(sys.argv[2])):
    database.write_now(lambda tx: get_or_make(tx, f"k{number}", lambda: "v"))
    print(number, flush=True)
threading.Event().wait()
"""


def put(name: str, value: str = "v") -> Work:
    return lambda tx: tx.run(SET, {"name": name, "value": value})


def value_of(tx: Tx, name: str) -> str | None:
    row = tx.one(GET, {"setting": name})
    return None if row is None else row["value"]


class Counting(sqlite_connection.SqliteConnection):
    """Counts commits, of all connections."""

    commits = 0

    def commit(self) -> None:
        type(self).commits += 1
        super().commit()


class Gate:
    """A member of a group that holds the writer until it is opened, so that others pile up behind it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, tx: Tx) -> None:
        self.entered.set()
        assert self.opened.wait(10)


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    database = Database(sqlite_url)
    yield database
    database.close()


def behind_gate(database: Database, works: list[Work]) -> "list[Future[object]]":
    """Hands in all works while the writer is held; their answers when it is let go."""
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(database.write_now, gate)
        assert gate.entered.wait(10)
        answers = [database._submit(database._writes, work) for work in works]
        gate.opened.set()
        held.result(10)
    return answers


def test_writes_that_arrive_together_share_a_commit(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_connection, "SqliteConnection", Counting)
    Counting.commits = 0
    database = Database(sqlite_url, readers=0)
    answers = behind_gate(database, [put(f"n{number}") for number in range(100)])
    assert [answer.result(10) for answer in answers] == [1] * 100
    assert Counting.commits == 3  # the gate's own, a full group of 64, and the 36 behind it
    database.close()


def test_a_failing_member_fails_alone_and_leaves_nothing(database: Database) -> None:
    def wrong(tx: Tx) -> None:
        put("half")(tx)
        raise ValueError("mine alone")

    first, failing, clashing, last = behind_gate(database, [put("a"), wrong, put("a"), put("b")])
    assert (first.result(10), last.result(10)) == (1, 1)
    with pytest.raises(ValueError, match="mine alone"):
        failing.result(10)
    with pytest.raises(sqlite3.IntegrityError):
        clashing.result(10)
    names = asyncio.run(database.read(lambda tx: [value_of(tx, name) for name in ("a", "b", "half")]))
    assert names == ["v", "v", None]


def test_a_retryable_error_of_one_member_is_its_own(database: Database) -> None:
    def later(tx: Tx) -> None:
        raise RetryableError("later", "not now")

    good, own = behind_gate(database, [put("a"), later])
    assert good.result(10) == 1
    with pytest.raises(RetryableError, match="not now"):
        own.result(10)


def test_a_member_that_was_cancelled_in_the_queue_is_not_run(database: Database) -> None:
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(database.write_now, gate)
        assert gate.entered.wait(10)
        unwanted = database._submit(database._writes, put("unwanted"))
        assert unwanted.cancel()
        gate.opened.set()
        held.result(10)
    database.write_now(put("wanted"))
    assert database.write_now(lambda tx: (value_of(tx, "unwanted"), value_of(tx, "wanted"))) == (None, "v")


def test_a_reader_does_not_see_what_is_not_committed(database: Database) -> None:
    written, looked = threading.Event(), threading.Event()

    def slow(tx: Tx) -> None:
        put("a")(tx)
        written.set()
        assert looked.wait(10)

    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(database.write_now, slow)
        assert written.wait(10)
        assert asyncio.run(database.read(lambda tx: value_of(tx, "a"))) is None
        looked.set()
        pending.result(10)
    assert asyncio.run(database.read(lambda tx: value_of(tx, "a"))) == "v"


def test_a_lock_that_is_not_to_be_had_is_retryable_for_all_at_once_and_recovers(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_connection, "BUSY_TIMEOUT_S", 0.3)
    database = Database(sqlite_url, readers=0)
    blocker = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    database.write_now(put("before"))
    blocker.execute("BEGIN IMMEDIATE")
    answers = [database._submit(database._writes, put(f"n{number}")) for number in range(40)]
    began = time.monotonic()
    for answer in answers:
        with pytest.raises(RetryableError, match="locked"):
            answer.result(10)
    assert time.monotonic() - began < 4  # one by one they would take twelve seconds
    blocker.execute("ROLLBACK")
    blocker.close()
    assert database.write_now(put("after")) == 1
    database.close()


def test_a_mistake_in_a_statement_is_not_retryable(database: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        database.write_now(lambda tx: tx.run(Statement(text("DELETE FROM nowhere"))))


def test_close_finishes_what_was_handed_in_and_refuses_what_comes_later(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    answers = behind_gate(database, [put(f"n{number}") for number in range(200)])
    database.close()
    assert all(answer.done() and answer.result() == 1 for answer in answers)
    with pytest.raises(FatalError, match="closed"):
        database.write_now(put("late"))
    with pytest.raises(FatalError, match="closed"):
        asyncio.run(database.read(lambda tx: value_of(tx, "late")))


def test_what_was_answered_survives_sigkill(sqlite_url: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_TELL, sqlite_url, "30"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        told = [child.stdout.readline().strip() for _ in range(30)]
        child.send_signal(signal.SIGKILL)
    assert told == [str(number) for number in range(30)]
    database = Database(sqlite_url)
    kept = asyncio.run(database.read(lambda tx: [value_of(tx, f"k{number}") for number in range(30)]))
    database.close()
    assert kept == ["v"] * 30


def test_an_unknown_kind_of_database_is_named() -> None:
    with pytest.raises(Exception, match="mysql is not supported"):
        Database("mysql://somewhere/db")
