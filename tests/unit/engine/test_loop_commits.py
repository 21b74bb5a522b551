"""SQLite's small writes on the event loop's own thread: what could make the loop stand still is the database thread's."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import bindparam, insert, select

from engine.errors import FatalError, RetryableError
from engine.store import loop_commits, sqlite_connection
from engine.store.database import Database, Tx
from engine.store.statements import Statement
from engine.store.tables import settings

SET = Statement(insert(settings), columns=("name", "value"))
GET = Statement(select(settings.c.value).where(settings.c.name == bindparam("setting")))


@pytest.fixture
def database(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr(loop_commits, "_SLOW_S", 60.0)  # the machine may be busy
    database = Database(sqlite_url)
    yield database
    database.close()


def put(tx: Tx, name: str) -> tuple[int, Tx]:
    """On which thread it was done, and in which transaction."""
    tx.run(SET, {"name": name, "value": "v"})
    return threading.get_ident(), tx


def begin(database: Database, *names: str) -> "list[asyncio.Future[tuple[int, Tx]]]":
    return [database.begin_write(lambda tx, name=name: put(tx, name), lambda told: told) for name in names]


def is_there(tx: Tx, name: str) -> bool:
    return tx.one(GET, {"setting": name}) is not None


def test_writes_of_one_turn_share_a_commit_on_the_loops_own_thread(database: Database) -> None:
    async def play() -> None:
        told = await asyncio.gather(*begin(database, "a", "b", "c"))
        assert {thread for thread, _ in told} == {threading.get_ident()}
        assert len({tx for _, tx in told}) == 1
        assert await database.read(lambda tx: is_there(tx, "c"))

    asyncio.run(play())


def test_a_failing_member_fails_alone(database: Database) -> None:
    async def play() -> list[object]:
        return await asyncio.gather(*begin(database, "a", "a", "b"), return_exceptions=True)

    first, second, third = asyncio.run(play())
    assert isinstance(second, sqlite3.IntegrityError)
    assert not isinstance(first, Exception) and not isinstance(third, Exception)


def test_who_shares_a_group_with_a_failing_member_is_not_refused_for_a_lock(
    database: Database, sqlite_url: str
) -> None:
    blocker = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
    soon = threading.Timer(0.1, blocker.execute, ("ROLLBACK",))

    def take(_: object) -> None:
        """Another process writes between two of those that are replayed one by one."""
        blocker.execute("BEGIN IMMEDIATE")
        soon.start()

    async def play() -> list[object]:
        first = database.begin_write(lambda tx: put(tx, "a"), take)
        return await asyncio.gather(first, *begin(database, "a", "b"), return_exceptions=True)

    first, second, third = asyncio.run(play())
    assert first is None and isinstance(second, sqlite3.IntegrityError)
    assert not isinstance(third, Exception)
    soon.join()
    blocker.close()


def test_a_lock_that_another_holds_does_not_stop_the_loop_and_is_waited_for_on_the_thread(
    database: Database, sqlite_url: str
) -> None:
    blocker = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)

    async def play() -> int:
        await asyncio.gather(*begin(database, "before"))
        blocker.execute("BEGIN IMMEDIATE")
        (waiting,) = begin(database, "after")
        longest, last = 0.0, time.monotonic()
        while time.monotonic() < last + 0.2 and longest < 0.2:
            turn = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - turn)
        assert not waiting.done()
        assert longest < sqlite_connection.BUSY_TIMEOUT_S / 2
        blocker.execute("ROLLBACK")
        thread, _ = await asyncio.wait_for(waiting, 10)
        return thread

    assert asyncio.run(play()) != threading.get_ident()
    blocker.close()


def test_a_lock_that_is_soon_free_is_taken_on_the_loop(
    database: Database, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_commits, "_PATIENCE_S", 30.0)
    blocker = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)

    async def play() -> None:
        blocker.execute("BEGIN IMMEDIATE")
        waiting = begin(database, "a")
        asyncio.get_running_loop().call_later(0.01, blocker.execute, "ROLLBACK")
        waiting += begin(database, "b")
        told = await asyncio.wait_for(asyncio.gather(*waiting), 10)
        assert {thread for thread, _ in told} == {threading.get_ident()}

    asyncio.run(play())
    blocker.close()


def test_a_lock_that_is_never_free_is_told_as_the_thread_tells_it(
    database: Database, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_connection, "BUSY_TIMEOUT_S", 0.2)
    blocker = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)

    async def play() -> None:
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(RetryableError, match="locked"):
            await asyncio.wait_for(begin(database, "a")[0], 10)

    asyncio.run(play())
    blocker.close()


def test_the_thread_makes_the_checkpoints_and_the_log_stays_small(database: Database, sqlite_url: str) -> None:
    """Under a load that never ends, as no checkpoint reaches the end of a log to which commits are added meanwhile."""
    log = Path(sqlite_url.removeprefix("sqlite:///") + "-wal")
    threads: set[int] = set()

    async def one_after_another(mine: int) -> None:
        for number in range(1000):
            (writing,) = begin(database, f"{mine}.{number}." + "x" * 500)
            thread, _ = await writing
            threads.add(thread)

    async def play() -> None:
        await asyncio.gather(*(one_after_another(mine) for mine in range(8)))

    asyncio.run(play())
    assert log.stat().st_size < 8_000_000
    assert len(threads) == 2


def test_after_a_slow_commit_the_thread_writes_for_a_while(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_commits, "_SLOW_S", 0.0)

    async def play() -> tuple[int, int]:
        ((first, _),) = await asyncio.gather(*begin(database, "a"))
        ((second, _),) = await asyncio.gather(*begin(database, "b"))
        return first, second

    first, second = asyncio.run(play())
    assert first == threading.get_ident() != second


def test_a_second_loop_takes_over_when_the_first_is_closed(database: Database) -> None:
    async def leave(name: str) -> None:
        begin(database, name)  # nobody waits for it, and the loop may end before it is written

    async def play() -> int:
        await database.write(lambda _: None)  # behind what the thread has taken over
        ((thread, _),) = await asyncio.gather(*begin(database, "c"))
        return thread

    asyncio.run(leave("a"))
    assert asyncio.run(play()) == threading.get_ident()
    assert database.write_now(lambda tx: (is_there(tx, "a"), is_there(tx, "c"))) == (True, True)


def test_close_finishes_what_was_handed_in_and_refuses_what_comes_later(sqlite_url: str) -> None:
    database = Database(sqlite_url)

    async def play() -> None:
        waiting = begin(database, "a", "b")
        database.close()
        await asyncio.wait_for(asyncio.gather(*waiting), 10)
        with pytest.raises(FatalError, match="closed"):
            begin(database, "late")

    asyncio.run(play())


def test_while_the_thread_tidies_up_nothing_is_added_to_the_log(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_commits, "_TIDY_AFTER", 1)
    order: list[str] = []

    async def write(name: str) -> bool:
        (writing,) = begin(database, name)
        await asyncio.sleep(0)
        thread, _ = await writing
        order.append(name)
        return thread == threading.get_ident()

    async def play() -> list[bool]:
        first = await write("a")
        tidying = asyncio.ensure_future(write("b"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # now the thread has it
        last = asyncio.ensure_future(write("c"))
        return [first, await tidying, await last]

    assert asyncio.run(play()) == [True, False, True]
    assert order == ["a", "b", "c"]
