"""A database that the first schema's release left behind, killed in the middle of its work: later releases take it up and finish it.

`first_schema.json` holds its rows as that release wrote them: runs done, failed, in a retry's pause, killed in flight, paused, queued.
"""

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from gateway import Gateway, gateway
from services import PostgresServer, wait_until
from sqlalchemy import (
    CheckConstraint,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    create_engine,
    func,
    select,
    text,
)

from engine.store.revision import NEWEST

LEFT = json.loads((Path(__file__).parent / "first_schema.json").read_text(encoding="utf-8"))
RUNS: dict[str, str] = LEFT["runs"]
MIGRATIONS = Path(__file__).parents[2] / "migrations"
PAID = {"input": 1, "output": 2}
CONFIG = {
    "providers": {
        "sim": {
            "type": "simulated",
            "models": {
                "ok": {"reply": "fine", **PAID},
                "slow": {"reply": "late", **PAID},
                "down": {"reply": "up again", **PAID},
                "bad": {"reply": "good now", **PAID},
            },
        }
    },
    "webhooks": {"allow_private_networks": True},
}


@pytest.fixture(params=["sqlite", "postgresql"])
def left(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The URL of the database as it was left, for the settings and for SQLAlchemy."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/left.db"
        make_first_schema(url)
        yield url, url
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with server.database("left_behind") as url:
        driver = url.replace("postgresql://", "postgresql+psycopg://")
        make_first_schema(driver)
        yield url, driver


def migrate(url: str, revision: str) -> MetaData:
    """The tables as they are at that revision."""
    config, found = Config(), MetaData()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        found.reflect(connection)
    engine.dispose()
    return found


def make_first_schema(url: str) -> None:
    tables = migrate(url, "0001")
    engine = create_engine(url)
    with engine.begin() as connection:
        for name, rows in LEFT["tables"].items():
            for row in rows:
                connection.execute(tables.tables[name].insert(), row)
    engine.dispose()


def test_what_an_older_release_left_unfinished_is_finished(left: tuple[str, str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    before = sum(row.get("cost_picousd", 0) for row in LEFT["tables"]["requests"])
    with gateway(home, CONFIG, AIGATEWAY_DATABASE_URL=left[0]) as up:
        up.serve(workers=2)
        assert up.finished(RUNS["killed"])["output"] == "fine-late"
        assert up.steps(RUNS["killed"])["one"]["attempts"][0]["number"] == 1
        assert [len(up.steps(RUNS["killed"])[step]["attempts"]) for step in ("one", "two", "three")] == [1, 2, 1]
        assert up.finished(RUNS["retrying"])["status"] == "succeeded"
        assert len(up.steps(RUNS["retrying"])["a"]["attempts"]) == 1
        assert up.finished(RUNS["queued"])["output"] == "fine"
        done = up.http.get(f"/v1/runs/{RUNS['done']}").json()
        assert (done["status"], done["output"], done["tags"]) == ("succeeded", {"said": "fine"}, {"team": "a"})
        assert up.http.get(f"/v1/runs/{RUNS['done']}/webhooks").json()["data"][0]["attempts"]
        assert up.http.get(f"/v1/runs/{RUNS['paused']}").json()["status"] == "paused"
        assert up.http.post(f"/v1/runs/{RUNS['paused']}/resume").status_code == 202
        assert up.finished(RUNS["paused"])["output"] == {"said": "late"}
        assert up.http.post(f"/v1/runs/{RUNS['failed']}/retry").status_code == 202
        assert up.finished(RUNS["failed"])["output"] == "good now"
        assert len(up.steps(RUNS["failed"])["a"]["attempts"]) == 1
        again = up.http.post("/v1/runs", json=SUBMITTED, headers={"Idempotency-Key": "first"})
        assert again.status_code == 202 and again.json()["id"] == RUNS["queued"], again.text
        books_balance(left[1], before)
        a_later_release_arrives(left[1])
        os.kill(
            up.worker_pids()[0], signal.SIGKILL
        )  # what takes its place is of this release, and meets the later schema
        assert up.finished(up.submit(SUBMITTED["workflow"], {}))["output"] == "fine"
        wait_until(lambda: up.ready_workers() == 2, "another worker took its place", 10)


SUBMITTED = {
    "workflow": {"name": "queued", "steps": [{"id": "a", "type": "llm", "model": "sim/ok", "prompt": "q"}]},
    "priority": "high",
}


def a_later_release_arrives(url: str) -> None:
    """Its migration adds and takes nothing away, as ours do."""
    engine = create_engine(url)
    with engine.begin() as connection:
        for change in ("ALTER TABLE steps ADD COLUMN later TEXT", "CREATE TABLE later (id TEXT)"):
            connection.execute(text(change))
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()


def books_balance(url: str, before: int) -> None:
    """No row of the ledger was lost, and none changed that had been settled."""
    engine = create_engine(url)
    metadata = MetaData()
    with engine.connect() as connection:
        metadata.reflect(connection, only=["requests"])
        requests: Table = metadata.tables["requests"]
        kept = {row["id"] for row in LEFT["tables"]["requests"]}
        rows = connection.execute(select(requests).where(requests.c.id.in_(kept))).mappings().all()
        assert len(rows) == len(kept)
        assert sum(row["cost_picousd"] or 0 for row in rows) == before
        assert not connection.scalar(select(func.count()).where(requests.c.status == "started"))
    engine.dispose()


def test_an_older_release_can_go_on_beside_each_newer_schema(tmp_path: Path) -> None:
    """While processes are replaced one by one, old ones write to the new schema: nothing they know is gone, nothing new is demanded."""
    url = f"sqlite:///{tmp_path}/growing.db"
    revisions = [str(script.revision) for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()][::-1]
    before = migrate(url, revisions[0])
    for revision in revisions[1:]:
        now = migrate(url, revision)
        for table in before.tables.values():
            goes_on(table, now.tables[table.name], f"{revision}: {table.name}")
        before = now


def goes_on(old: Table, new: Table, where: str) -> None:
    """What was written to the old table may be written to the new one."""
    for column in new.columns:
        as_it_was = old.columns.get(column.name)
        if as_it_was is not None:
            assert str(column.type) == str(as_it_was.type), f"{where}.{column.name} has another type"
        optional = column.nullable or column.server_default is not None or column.computed is not None
        assert optional or (as_it_was is not None and not as_it_was.nullable), f"{where}.{column.name} is demanded"
    known = {column.name for column in old.columns}
    assert known <= {column.name for column in new.columns}, where
    assert demands(new, known) <= demands(old, known), where


def demands(table: Table, known: set[str]) -> set[str]:
    """What rows have to be, in words, as far as it is about known columns alone: keys, unique columns, rows of other tables, checks."""
    unique = [index.columns.keys() for index in table.indexes if index.unique]
    unique += [
        each.columns.keys() for each in table.constraints if isinstance(each, PrimaryKeyConstraint | UniqueConstraint)
    ]
    found = {f"unique {sorted(columns)}" for columns in unique if known.issuperset(columns)}
    found |= {f"{key.parent.name} is {key.target_fullname}" for key in table.foreign_keys if key.parent.name in known}
    return found | {str(each.sqltext) for each in table.constraints if isinstance(each, CheckConstraint)}


def test_a_database_of_a_later_release_is_left_alone(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    up = Gateway(tmp_path / "home", {}, AIGATEWAY_DATABASE_URL=sqlite_url, AIGATEWAY_REDIS_URL="redis://127.0.0.1:9/0")
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        for command_line, code in (("serve", 2), ("worker", 2), ("db current", 1)):
            ended = up.run(*command_line.split())
            (line,) = (ended.stdout + ended.stderr).splitlines()
            assert ended.returncode == code and all(told in line for told in ("9999", NEWEST, "release")), ended
        assert database.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)
        assert database.execute("SELECT count(*) FROM workers").fetchone() == (0,)
    up.http.close()
