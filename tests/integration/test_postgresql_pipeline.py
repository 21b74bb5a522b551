"""Statements that travel together to a real PostgreSQL (engine.store.pipeline): answers, errors, and what the server may forget."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from services import wait_until
from sqlalchemy import text

from engine.errors import FatalError, UserError
from engine.store.database import Database, Tx
from engine.store.postgresql_connection import PostgresqlConnection
from engine.store.statements import Statement

MEGABYTE = 1_000_000


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    database = Database(postgres_url, readers=1)
    try:
        yield database
    finally:
        database.close()


def asks(sql: str) -> Statement:
    return Statement(text(sql))


def value(database: Database, sql: str, **parameters: Any) -> Any:
    row = database.write_now(lambda tx: tx.one(asks(sql), parameters))
    assert row is not None
    return next(iter(row.values()))


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("bigint", 2**63 - 1),
        ("bigint", -(2**63)),
        ("integer", 0),
        ("boolean", True),
        ("boolean", False),
        ("float", 0.1),
        ("float", -1e300),
        ("text", ""),
        ("text", "100% of %(a)s, \\ and ' and ∅ 𝄞"),
        ("text", "1"),
        ("text", None),
    ],
)
def test_a_value_comes_back_as_it_was_sent(database: Database, kind: str, sent: Any) -> None:
    got = value(database, f"SELECT CAST(:a AS {kind})", a=sent)
    assert (type(got), got) == (type(sent), sent)


def test_one_parameter_may_stand_for_two_types(database: Database) -> None:
    row = database.write_now(
        lambda tx: tx.one(asks("SELECT CAST(:a AS text) AS t, CAST(:a AS bigint) + 1 AS n"), {"a": "41"})
    )
    assert row == {"t": "41", "n": 42}


def test_what_cannot_be_written_is_refused_before_anything_is_sent(database: Database) -> None:
    with pytest.raises(UserError, match="NUL"):
        value(database, "SELECT CAST(:a AS text)", a="a\0b")
    with pytest.raises(TypeError):
        value(database, "SELECT CAST(:a AS text)", a=["x"])
    assert value(database, "SELECT CAST(:a AS text)", a="after") == "after"


def test_behind_a_statement_that_fails_none_is_executed_and_none_before_it_stands(database: Database) -> None:
    database.write_now(lambda tx: tx.run(asks("CREATE TABLE kept (id integer PRIMARY KEY)")))
    insert = asks("INSERT INTO kept VALUES (:id)")

    def write(tx: Tx) -> None:
        for number in (1, 2, 1, 3):
            tx.send(insert, {"id": number})

    with pytest.raises(psycopg.errors.UniqueViolation):
        database.write_now(write)
    assert value(database, "SELECT count(*) FROM kept") == 0
    database.write_now(lambda tx: tx.many(insert, [{"id": 1}, {"id": 2}]))
    assert value(database, "SELECT count(*) FROM kept") == 2


@pytest.mark.parametrize("refused", ["x", "a\0b"])
def test_what_goes_on_behind_a_statement_that_failed_is_not_taken_for_stored(database: Database, refused: str) -> None:
    """The server answers COMMIT with ROLLBACK then, and what waited to be sent was lost with that statement."""
    database.write_now(lambda tx: tx.run(asks("CREATE TABLE IF NOT EXISTS whole (id integer)")))

    def write(tx: Tx) -> None:
        tx.send(asks("INSERT INTO whole VALUES (:id)"), {"id": 1})
        with suppress(UserError):
            tx.one(asks("SELECT CAST(:a AS integer)"), {"a": refused})
        if refused != "x":
            tx.send(asks("INSERT INTO whole VALUES (:id)"), {"id": 2})

    with pytest.raises(FatalError):
        database.write_now(write)
    assert value(database, "SELECT count(*) FROM whole") == 0


def test_no_connection_takes_a_statement_of_another_for_its_own(postgres_url: str) -> None:
    """As behind a pooler that shares connections: names that were given twice would be executed for each other."""
    names: list[str] = []
    for _ in range(2):
        connection = PostgresqlConnection(postgres_url)
        connection.begin(writes=False)
        names += [name for (name,) in connection.execute("SELECT name FROM pg_prepared_statements", {}).fetchall()]
        connection.commit()
        connection.close()
    assert len(names) == len(set(names)) == 4


def test_more_than_the_sockets_hold_goes_both_ways_at_once(database: Database) -> None:
    echo = asks("SELECT CAST(:a AS text) AS a")
    sent = [chr(97 + number) * MEGABYTE for number in range(20)]
    rows = database.write_now(lambda tx: tx.together(*((echo, {"a": each}) for each in sent)))
    assert [row["a"] for [row] in rows] == sent


def test_more_texts_than_are_kept_prepared_are_all_answered(database: Database) -> None:
    for number in (*range(300), *range(300)):
        assert value(database, f"SELECT {number} + CAST(:a AS integer)", a=1) == number + 1


def test_a_server_that_has_forgotten_what_was_prepared_is_hardly_noticed(database: Database) -> None:
    """As behind a pooler that resets its connections."""
    assert value(database, "SELECT CAST(:a AS text)", a="before") == "before"
    for _ in range(8):  # each writer has a connection of its own
        value(database, "SELECT CAST(:a AS text)", a="x")
    for _ in range(4):
        database.write_now(lambda tx: tx.run(asks("DEALLOCATE ALL")))
    assert [value(database, "SELECT CAST(:a AS text)", a=str(number)) for number in range(8)] == [*map(str, range(8))]


def test_a_column_that_a_newer_release_has_changed_is_hardly_noticed(database: Database, postgres_url: str) -> None:
    database.write_now(lambda tx: tx.run(asks("CREATE TABLE wide (a integer)")))
    database.write_now(lambda tx: tx.run(asks("INSERT INTO wide VALUES (7)")))
    for _ in range(8):
        assert value(database, "SELECT a FROM wide") == 7
    with psycopg.connect(postgres_url, autocommit=True) as migration:
        migration.execute("ALTER TABLE wide ALTER a TYPE text")
    assert [value(database, "SELECT a FROM wide") for _ in range(8)] == ["7"] * 8


def test_a_transaction_that_only_read_is_over_though_nobody_waited_for_its_end(
    database: Database, postgres_url: str
) -> None:
    one = asks("SELECT 1 AS one")
    assert asyncio.run(_read(database, one)) == [{"one": 1}] * 3
    state = b"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"

    def none_open() -> bool:
        with psycopg.connect(postgres_url) as looker:
            row = looker.execute(state).fetchone()
        return row == (0,)

    wait_until(none_open, "no transaction is left open", 10)


async def _read(database: Database, statement: Statement) -> list[Any]:
    return [await database.read(lambda tx: tx.one(statement)) for _ in range(3)]
