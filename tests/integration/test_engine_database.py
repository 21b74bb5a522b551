"""The way to the database on both kinds: concurrent writes, lost connections, and values of every sort kept as they are."""

import asyncio
import json
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from engine_hand import ONE_STEP, Hand, at_once, opened
from services import PostgresServer
from sqlalchemy import bindparam, func, insert, select

from engine.clock import now_us
from engine.errors import RetryableError, UserError
from engine.ports import Failed, Succeeded
from engine.states import ErrorClass
from engine.store.database import Database, Tx
from engine.store.payloads import INLINE_LIMIT, pack, unpack
from engine.store.settings import get_or_make
from engine.store.statements import Statement
from engine.store.tables import payloads, settings

SET = Statement(insert(settings), columns=("name", "value"))
COUNT = Statement(select(func.count().label("number")).select_from(settings))
PAYLOADS = Statement(select(payloads))
VALUE = Statement(select(settings.c.value).where(settings.c.name == bindparam("setting")))

HARD_VALUES: dict[str, Any] = {
    "nul": {"a\0b": ["\0", "x\0"]},
    "lone surrogate": ["\ud800", {"\udfff": 1}],
    "beyond 64 bits": [2**63, -(2**64), 10**40],
    "floats": [0.1, 1e308, -0.0, 5e-324],
    "unicode": "Zoë 日本語 🜚 \u2028",
    "nothing": [[], {}, "", None, False, 0],
}


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        yield hand


@pytest.mark.parametrize("how", ["write", "add"])
def test_many_writes_at_once_all_stand_and_one_that_fails_takes_none_along(database_url: str, how: str) -> None:
    database = Database(database_url)
    transactions: set[Tx] = set()

    def put(tx: Tx, name: str) -> int:
        transactions.add(tx)
        return tx.run(SET, {"name": name, "value": "v"})

    async def write_all() -> list[object]:
        names = [f"n{number}" for number in range(300)] + ["n7"]
        hand_in = database.add if how == "add" else database.write
        works = [hand_in(lambda tx, name=name: put(tx, name)) for name in names]
        return await asyncio.gather(*works, return_exceptions=True)

    answers = asyncio.run(write_all())
    failed = [answer for answer in answers if isinstance(answer, Exception)]
    row = asyncio.run(database.read(lambda tx: tx.one(COUNT)))
    database.close()
    assert row == {"number": 300}
    shared = database.dialect == "sqlite" or how == "add"
    assert len(transactions) < 200 if shared else len(transactions) == 301  # replayed members have their own
    assert [type(error).__name__ for error in failed] in (["IntegrityError"], ["UniqueViolation"])


def test_what_an_asker_takes_may_be_an_error_of_its_own_and_its_write_stands(database_url: str) -> None:
    database = Database(database_url)

    def take(rows: int) -> str:
        if rows != 1:
            raise UserError("refused", "taken back")
        return "taken"

    async def both() -> list[object]:
        one = {"name": "one", "value": "v"}
        works = [lambda tx: tx.run(SET, one), lambda tx: 7]
        return await asyncio.gather(*(database.begin_write(work, take) for work in works), return_exceptions=True)

    taken, refused = asyncio.run(both())
    assert taken == "taken"
    assert isinstance(refused, UserError)
    assert asyncio.run(database.read(lambda tx: tx.one(COUNT))) == {"number": 1}
    database.close()


def test_what_is_answered_is_seen_by_the_next_read(database_url: str) -> None:
    database = Database(database_url)

    async def alternate() -> None:
        for number in range(30):
            name = f"n{number}"
            await database.write(lambda tx, name=name: tx.run(SET, {"name": name, "value": "v"}))
            assert await database.read(lambda tx: tx.one(COUNT)) == {"number": number + 1}

    asyncio.run(alternate())
    database.close()


def test_a_value_made_at_first_start_is_the_same_for_all(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(4)]

    async def make_all() -> list[str]:
        works = [
            database.write(lambda tx, mine=f"{number}": get_or_make(tx, "secret", lambda: mine))
            for number, database in enumerate(databases * 5)
        ]
        return await asyncio.gather(*works)

    made = asyncio.run(make_all())
    for database in databases:
        database.close()
    assert len(set(made)) == 1


@pytest.mark.parametrize("name", HARD_VALUES)
def test_any_json_value_comes_back_as_it_was(hand: Hand, name: str) -> None:
    value = HARD_VALUES[name]
    run_id = hand.start(ONE_STEP, {"value": value})
    held = hand.claim(run_id, "only")
    assert held.scope["input"] == {"value": value}
    hand.complete(held, Succeeded(value))
    view = hand.view(run_id)
    assert (view["status"], view["output"], view["input"]) == ("succeeded", value, {"value": value})
    json.dumps(view)


@pytest.mark.parametrize("text", ["a\0b", "\ud83d alone", "x" * 100_000])
def test_any_error_message_can_be_stored(hand: Hand, text: str) -> None:
    run_id = hand.start(ONE_STEP)
    hand.complete(hand.claim(run_id, "only"), Failed(ErrorClass.TOOL_ERROR, text, final=True))
    shown = text.replace("\0", "").replace("\ud83d", "?")
    assert hand.run(run_id)["error_message"] == shown
    assert hand.attempts(run_id)[0]["error_message"] == shown


def test_a_model_with_an_endless_name_costs_no_answer(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP)
    hand.complete(hand.claim(run_id, "only"), Succeeded("paid for", model="provider/" + "m" * 500))
    assert hand.view(run_id)["output"] == "paid for"


def test_a_large_value_is_stored_once_and_referenced(hand: Hand) -> None:
    large = {"text": "ö" * INLINE_LIMIT}
    run_id = hand.start(ONE_STEP.replace("value: 1", "value: '${input}'"), large)
    held = hand.claim(run_id, "only")
    assert held.scope["input"] == large
    hand.complete(held, Succeeded(large))
    row = hand.run(run_id)
    assert row["input_json"] is row["output_json"] is None
    assert row["input_digest"] == row["output_digest"] == hand.step(run_id, "only")["output_digest"]
    stored = hand.do(lambda tx: tx.all(PAYLOADS))
    assert [payload["digest"] for payload in stored] == [row["input_digest"]]
    assert stored[0]["size_bytes"] == len(stored[0]["body"].encode()) > 2 * INLINE_LIMIT
    assert hand.view(run_id)["output"] == large


@pytest.mark.parametrize("value", ["x" * (INLINE_LIMIT - 2), "x" * (INLINE_LIMIT - 1), "\ud800" * INLINE_LIMIT])
def test_a_value_at_the_border_is_kept_in_one_place(hand: Hand, value: str) -> None:
    def keep(tx: Tx) -> tuple[str | None, str | None]:
        return pack(tx, value, now_us())

    text, digest = hand.do(keep)
    assert (text is None) == (len(value) != INLINE_LIMIT - 2)
    assert (text is None) != (digest is None)
    assert hand.do(keep) == (text, digest)
    assert hand.do(lambda tx: unpack(tx, text, digest)) == value


def test_a_lost_postgresql_is_retryable_and_the_next_try_works(own_postgres: PostgresServer) -> None:
    database = Database(own_postgres.url())

    async def read() -> object:
        return await database.read(lambda tx: tx.one(COUNT))

    for name in ("a", "b", "c", "d", "e"):  # all writers are connected
        database.write_now(lambda tx, name=name: tx.run(SET, {"name": name, "value": "v"}))
    assert asyncio.run(read()) == {"number": 5}
    own_postgres.kill()
    for _ in range(10):
        with pytest.raises(RetryableError):
            database.write_now(lambda tx: tx.run(SET, {"name": "lost", "value": "v"}))
        with pytest.raises(RetryableError):
            asyncio.run(read())
    own_postgres.start()
    assert asyncio.run(read()) == {"number": 5}
    assert database.write_now(lambda tx: tx.run(SET, {"name": "f", "value": "v"})) == 1
    database.close()


def test_a_postgresql_that_restarts_between_two_writes_is_hardly_noticed(own_postgres: PostgresServer) -> None:
    """A connection that is found dead when a transaction begins has done nothing yet: a new one takes its place."""
    database = Database(own_postgres.url())

    async def write_many(prefix: str) -> None:
        works = [
            database.write(lambda tx, name=f"{prefix}{number}": tx.run(SET, {"name": name, "value": "v"}))
            for number in range(40)
        ]
        await asyncio.gather(*works)
        await database.read(lambda tx: tx.one(COUNT))

    asyncio.run(write_many("a"))
    own_postgres.kill()
    own_postgres.start()
    asyncio.run(write_many("b"))
    assert asyncio.run(database.read(lambda tx: tx.one(COUNT))) == {"number": 80}
    database.close()


def test_transactions_that_store_the_same_values_in_another_order_do_not_wait_for_each_other(postgres_url: str) -> None:
    """A foreach of large items does it, beside one of the same items the other way round."""
    values = ["a" * 5000, "b" * 5000]
    half_way = threading.Barrier(2)

    def store(order: list[str]) -> list[str | None]:
        def work(tx: Tx) -> list[str | None]:
            first = pack(tx, order[0], 1)
            tx.one(COUNT)
            half_way.wait(20)
            second = pack(tx, order[1], 1)
            assert [unpack(tx, *first), unpack(tx, *second)] == order
            return [first[1], second[1]]

        with opened(postgres_url) as process:
            return process.do(work)

    one, other = at_once(partial(store, values), partial(store, values[::-1]))
    assert one == other[::-1]
    with opened(postgres_url) as process:
        assert [process.do(lambda tx, digest=digest: unpack(tx, None, digest)) for digest in one] == values
