"""Submitting a run: whole or not at all, once per idempotency key, on both databases."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from engine_hand import CHAIN, ONE_STEP, PARALLEL, Hand, opened
from sqlalchemy import Table, func, select, text

from engine import workflows
from engine.clock import now_us
from engine.errors import Conflict, NotFound, UserError
from engine.loader import load
from engine.ports import Succeeded
from engine.states import Priority
from engine.store.database import Database, Tx
from engine.store.definitions import list_versions
from engine.store.statements import Statement
from engine.store.tables import events, payloads, run_tags, runs, steps, workflow_versions
from engine.submission import Submission, Submitted, submit

WITH_INPUTS = """
name: with-inputs
inputs:
  topic: {type: string, minLength: 1}
  count: {type: integer, default: 5}
  style: {type: object, default: {tone: calm}}
steps:
  - {id: only, type: set, value: "${input.topic} ${input.count}"}
"""
TABLES = (runs, steps, events, run_tags, payloads, workflow_versions)


@pytest.fixture
def hand(database_url: str) -> Iterator[Hand]:
    with opened(database_url) as hand:
        yield hand


def rows_of(hand: Hand, table: Table) -> int:
    row = hand.do(lambda tx: tx.one(Statement(select(func.count().label("number")).select_from(table))))
    assert row is not None
    return row["number"]


def row_counts(hand: Hand) -> dict[str, int]:
    return {table.name: rows_of(hand, table) for table in TABLES}


def test_a_submission_is_a_queued_run_with_its_steps_and_the_bells_of_those_that_may_start(hand: Hand) -> None:
    submitted = hand.submit(PARALLEL, tags={"team": "a"}, priority=Priority.HIGH)
    run_id = submitted.run["id"]
    assert submitted.created
    assert {ring.step_id for ring in submitted.rings} == {row["id"] for row in hand.steps(run_id).values()}
    assert {ring.priority for ring in submitted.rings} == {"high"}
    view = hand.view(run_id)
    assert (view["status"], view["priority"], view["tags"]) == ("queued", "high", {"team": "a"})
    assert hand.event_types(run_id) == ["run.submitted"]
    assert hand.run(run_id)["open_steps"] == 2


def test_only_what_waits_on_nothing_is_rung(hand: Hand) -> None:
    submitted = hand.submit(CHAIN)
    assert [ring.step_id for ring in submitted.rings] == [hand.step(submitted.run["id"], "first")["id"]]
    assert hand.statuses(submitted.run["id"]) == {"first": "ready", "second": "pending", "third": "pending"}


def test_defaults_are_filled_in_and_kept_with_the_run(hand: Hand) -> None:
    run_id = hand.start(WITH_INPUTS, {"topic": "tea", "count": 7})
    assert hand.view(run_id)["input"] == {"topic": "tea", "count": 7, "style": {"tone": "calm"}}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({}, "input.topic"),
        ({"topic": ""}, "input.topic"),
        ({"topic": "tea", "count": "5"}, "input.count"),
        ({"topic": "tea", "tpoic": 1}, "input.tpoic"),
        (["tea"], "input"),
        (None, "input"),
    ],
)
def test_a_wrong_input_is_refused_by_name_and_leaves_no_row(hand: Hand, given: Any, param: str) -> None:
    submission = Submission(load(WITH_INPUTS), None, given, tags={"a": "b"}, idempotency_key="k")
    with pytest.raises(UserError) as refused:
        hand.do(lambda tx: submit(tx, hand.catalogue, submission, hand.now))
    assert (refused.value.code, refused.value.param) == ("invalid_input", param)
    assert row_counts(hand) == dict.fromkeys(row_counts(hand), 0)


def test_a_crash_on_the_way_leaves_no_row(hand: Hand) -> None:
    def crash(tx: Tx) -> None:
        submission = Submission(load(WITH_INPUTS), None, {"topic": "x" * 10_000}, tags={"a": "b"})
        submit(tx, hand.catalogue, submission, hand.now)
        raise RuntimeError("killed here")

    with pytest.raises(RuntimeError):
        hand.do(crash)
    assert row_counts(hand) == dict.fromkeys(row_counts(hand), 0)


def test_the_same_key_and_request_give_the_same_run(hand: Hand) -> None:
    first = hand.submit(CHAIN, {"a": 1}, idempotency_key="k", tags={"x": "y"})
    before = row_counts(hand)
    again = hand.submit(CHAIN, {"a": 1}, idempotency_key="k", tags={"x": "y"})
    assert (again.created, again.run["id"], again.rings) == (False, first.run["id"], ())
    assert row_counts(hand) == before


def test_an_idempotency_key_is_that_of_its_api_key_alone(hand: Hand) -> None:
    asked = [hand.submit(CHAIN, {"a": 1}, idempotency_key="k" * 255, key_id=key_id) for key_id in ("one", "two", None)]
    again = [hand.submit(CHAIN, {"a": 1}, idempotency_key="k" * 255, key_id=key_id) for key_id in ("one", "two", None)]
    assert [each.run["id"] for each in again] == [each.run["id"] for each in asked]
    assert len({each.run["id"] for each in asked}) == 3


def test_runs_of_the_first_release_are_found_under_their_keys(hand: Hand) -> None:
    first = hand.submit(CHAIN, {"a": 1}, idempotency_key="k", key_id="one").run
    kept = Statement(text("UPDATE runs SET idempotency_key = 'k' WHERE id = :run"))
    hand.do(lambda tx: tx.run(kept, {"run": first["id"]}))
    assert hand.submit(CHAIN, {"a": 1}, idempotency_key="k", key_id="one").run["id"] == first["id"]
    assert hand.submit(CHAIN, {"a": 1}, idempotency_key="k", key_id="two").run["id"] != first["id"]


@pytest.mark.parametrize(
    ("source", "given", "asked"),
    [
        (CHAIN, {"a": 2}, {}),
        (ONE_STEP, {"a": 1}, {}),
        (CHAIN.replace("value: 3", "value: 4"), {"a": 1}, {}),
        (CHAIN, {"a": 1}, {"budget_picousd": 5}),
        (CHAIN, {"a": 1}, {"priority": Priority.LOW}),
        (CHAIN, {"a": 1}, {"tags": {"x": "z"}}),
        (CHAIN, {"a": 1}, {"webhook_url": "http://example.com/"}),
    ],
)
def test_the_same_key_for_another_request_is_a_conflict(
    hand: Hand, source: str, given: Any, asked: dict[str, Any]
) -> None:
    hand.submit(CHAIN, {"a": 1}, idempotency_key="k")
    before = row_counts(hand)
    with pytest.raises(Conflict) as refused:
        hand.submit(source, given, idempotency_key="k", **asked)
    assert refused.value.code == "idempotency_key_reused"
    assert row_counts(hand) == before


def test_submissions_at_once_with_the_same_key_give_one_run(database_url: str) -> None:
    """From several processes' databases, inline, so that each would store a definition of its own."""
    with opened(database_url) as one, opened(database_url) as two:

        async def all_at_once() -> list[Submitted]:
            submission = Submission(load(CHAIN), None, {"a": 1}, idempotency_key="k")
            return await asyncio.gather(
                *(
                    hand.database.write(lambda tx, hand=hand: submit(tx, hand.catalogue, submission, hand.now))
                    for hand in [one, two] * 10
                )
            )

        submitted = asyncio.run(all_at_once())
        assert len({each.run["id"] for each in submitted}) == 1
        assert sum(each.created for each in submitted) == 1
        assert sum(len(each.rings) for each in submitted) == 1
        counts = row_counts(one)
        assert (counts["runs"], counts["steps"], counts["workflow_versions"]) == (1, 3, 1)


def test_an_inline_definition_is_kept_with_its_run_and_is_no_stored_workflow(hand: Hand) -> None:
    run_id = hand.start(ONE_STEP)
    with opened(hand.database.url) as other:  # a process that has to read it from the database
        other.complete(other.claim(run_id, "only"), Succeeded(1))
        assert other.view(run_id)["status"] == "succeeded"
    assert hand.view(run_id)["version"] is None
    with pytest.raises(NotFound):
        hand.do(lambda tx: workflows.find(tx, "one"))


def test_a_run_keeps_the_version_that_it_started_with(hand: Hand) -> None:
    hand.do(lambda tx: workflows.put(tx, load(CHAIN), "api", hand.now))
    version = hand.do(lambda tx: workflows.find(tx, "chain"))
    submission = Submission(load(CHAIN), version, {})
    run_id = hand.do(lambda tx: submit(tx, hand.catalogue, submission, hand.now)).run["id"]
    changed = hand.do(lambda tx: workflows.put(tx, load(CHAIN.replace("third", "fourth")), "api", hand.now))
    assert (changed.created, changed.changed, changed.row["version"]) == (False, True, 2)
    hand.do(lambda tx: workflows.remove(tx, "chain"))
    hand.catalogue = type(hand.catalogue)()
    for key in ("first", "second", "third"):
        hand.finish(run_id, key, key)
    assert (hand.view(run_id)["status"], hand.view(run_id)["output"], hand.view(run_id)["version"]) == (
        "succeeded",
        "third",
        1,
    )


def test_processes_that_take_up_the_same_files_at_once_store_one_version(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(3)]
    texts = [CHAIN, CHAIN.replace("third", "fourth")]

    async def take_up_all() -> None:
        works = [
            database.write(lambda tx, text=text: workflows.take_up(tx, load(text), "file", now_us()))
            for database in databases * 4
            for text in texts[:1]
        ]
        await asyncio.gather(*works)
        puts = [database.write(lambda tx: workflows.put(tx, load(texts[1]), "api", now_us())) for database in databases]
        assert sorted(stored.changed for stored in await asyncio.gather(*puts)) == [False, False, True]

    asyncio.run(take_up_all())
    versions = asyncio.run(databases[0].read(lambda tx: list_versions(tx, "chain")))
    assert [(row["version"], row["origin"]) for row in versions] == [(2, "api"), (1, "file")]
    for database in databases:
        database.close()


def test_submissions_with_a_value_that_is_stored_by_content_share_no_commit() -> None:
    """It is locked until the commit: groups of two processes that held several of them would wait for each other."""
    text = (
        "name: of-text\ninputs:\n  text: {type: string, default: DEFAULT}\nsteps:\n  - {id: a, type: set, value: 1}\n"
    )

    def is_plain(default: str, given: dict[str, Any]) -> bool:
        version = {"id": "v", "version": 1, "name": "of-text"}
        return Submission(definition=load(text.replace("DEFAULT", default)), version=version, input=given).is_plain()

    assert is_plain("short", {}) and is_plain("short", {"text": "x" * 1000})
    assert not is_plain("short", {"text": "x" * 5000})
    assert not is_plain("x" * 5000, {})
