"""Copies of a SQLite database: they end however much is written meanwhile, are of one moment, and replace nothing."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event

import pytest

from aigateway.backup import backup_sqlite
from engine.errors import FatalError, UserError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Large enough that a copy in portions takes several."""
    file = tmp_path / "source.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE pairs (a INTEGER, b INTEGER)")
        database.execute("CREATE TABLE ballast AS SELECT randomblob(60000000) AS x")
    return file


@contextmanager
def written_to(file: Path) -> Iterator[None]:
    """While somebody writes without a pause."""
    stop, begun = Event(), Event()

    def write() -> None:
        with closing(sqlite3.connect(file, isolation_level=None, timeout=30)) as database:
            database.execute("PRAGMA synchronous = OFF")
            number = 0
            while not stop.is_set():
                number += 1
                database.execute("BEGIN IMMEDIATE")
                database.execute("INSERT INTO pairs VALUES (?, 0)", (number,))
                database.execute("UPDATE pairs SET b = a WHERE a = ?", (number,))
                database.execute("COMMIT")
                begun.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            assert begun.wait(30)
            yield
        finally:
            stop.set()
            writing.result(30)


def test_a_copy_ends_while_others_write_and_is_of_one_moment(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "copies" / "copy.db"
    target.parent.mkdir()
    with ThreadPoolExecutor(1) as pool, written_to(source):
        pool.submit(backup_sqlite, f"sqlite:///{source}", target).result(20)
    with closing(sqlite3.connect(target)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert copy.execute("SELECT count(*) FROM pairs WHERE a <> b").fetchone() == (0,)
    assert [path.name for path in target.parent.iterdir()] == ["copy.db"]
    with pytest.raises(UserError, match="never overwrites"):
        backup_sqlite(f"sqlite:///{source}", target)


def test_a_copy_that_cannot_be_made_leaves_nothing(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*missing$"):
        backup_sqlite(f"sqlite:///{source}", tmp_path / "missing" / "copy.db")
    source.write_bytes(b"no database at all" * 1000)
    (tmp_path / "to").mkdir()
    with pytest.raises(FatalError, match="did not get through"):
        backup_sqlite(f"sqlite:///{source}", tmp_path / "to" / "copy.db")
    assert list((tmp_path / "to").iterdir()) == []
    with pytest.raises(UserError, match="pg_dump"):
        backup_sqlite("postgresql://x/y", tmp_path / "copy.db")
