"""A database that the first schema's release left behind, killed in the middle of its work: later releases take it up and finish it.

`first_schema.json` holds its rows as that release wrote them: runs done, failed, in a retry's pause, killed in flight, paused, queued.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from gateway import gateway
from services import PostgresServer
from sqlalchemy import MetaData, Table, create_engine, func, select

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


SUBMITTED = {
    "workflow": {"name": "queued", "steps": [{"id": "a", "type": "llm", "model": "sim/ok", "prompt": "q"}]},
    "priority": "high",
}


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


def test_an_older_release_can_go_on_beside_the_newest_schema(tmp_path: Path) -> None:
    """While processes are replaced one by one, old ones write to the new schema: nothing they know is gone, nothing new is demanded."""
    first = migrate(f"sqlite:///{tmp_path}/first.db", "0001")
    newest = migrate(f"sqlite:///{tmp_path}/newest.db", "head")
    for name, table in first.tables.items():
        now = newest.tables[name]
        for column in table.columns:
            assert str(now.columns[column.name].type) == str(column.type), f"{name}.{column.name}"
        for column in now.columns:
            demanded = not (column.nullable or column.server_default is not None or column.computed is not None)
            assert column.name in table.columns or not demanded, f"{name}.{column.name} has no default"
