"""Retention and copies with a real `serve`: `db prune` and `db backup` while it works, and what its workers delete by themselves."""

import json
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, gateway
from services import wait_until

LARGE = "tea " * 5000
HELLO: dict[str, Any] = {"name": "hello", "steps": [{"id": "a", "type": "set", "value": "${input.text}"}]}
TURN = "retention"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("retention"), {"retention": {"runs_days": 10, "requests_days": 20}}) as up:
        up.serve(workers=2)
        yield up


def change(up: Gateway, sql: str) -> None:
    with closing(sqlite3.connect(up.folder / "aigateway.db", timeout=30)) as database:
        database.execute(sql)
        database.commit()


def count(file: Path, table: str) -> int:
    with closing(sqlite3.connect(file, timeout=30)) as database:
        return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def age(up: Gateway, run_id: str, days: int) -> None:
    """As if it had ended that long ago."""
    shift = f"finished_us = finished_us - {days} * 86400000000"
    change(up, f"UPDATE runs SET {shift} WHERE id = '{run_id}'")


def pruned(up: Gateway, *options: str) -> dict[str, int]:
    done = up.run("db", "prune", "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["deleted"]


def test_prune_deletes_what_is_old_while_the_server_works(up: Gateway) -> None:
    old, young = (up.finished(up.submit(HELLO, {"text": LARGE}))["id"] for _ in range(2))
    chat = {"model": "simulated/echo", "messages": [{"role": "user", "content": "hi"}]}
    assert up.http.post("/v1/chat/completions", json=chat).status_code == 200
    age(up, old, 40)
    dry = pruned(up, "--older-than", "30d", "--dry-run")
    assert (dry["runs"], dry["steps"], dry["requests"]) == (1, 1, 0)
    assert up.http.get(f"/v1/runs/{old}").status_code == 200
    told = up.run("db", "prune", "--older-than", "30d")
    assert told.returncode == 0
    assert "runs\t1\n" in told.stdout and "rows deleted" in told.stderr
    assert up.http.get(f"/v1/runs/{old}").status_code == 404
    kept = up.http.get(f"/v1/runs/{young}").json()
    assert kept["output"] == LARGE.strip() or kept["output"] == LARGE
    assert up.http.get(f"/v1/runs/{young}/steps").json()["data"][0]["attempts"]
    assert sum(pruned(up, "--older-than", "30d").values()) == 0
    assert up.http.get("/v1/requests").json()["data"]
    change(up, "UPDATE requests SET started_us = started_us - 30 * 86400000000")
    assert pruned(up)["requests"] == 1
    for wrong in (("--older-than", "soon"), ("--older-than", "0d"), ("--requests-older-than", "-1d")):
        refused = up.run("db", "prune", *wrong)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert wrong[0] in refused.stderr


def test_workers_delete_by_themselves(up: Gateway) -> None:
    old, young = (up.finished(up.submit(HELLO, {"text": "x"}))["id"] for _ in range(2))
    age(up, old, 11)
    age(up, young, 9)
    change(up, f"UPDATE settings SET value = '0' WHERE name = '{TURN}'")
    for pid in up.worker_pids():
        os.kill(pid, signal.SIGKILL)  # the one that takes its place looks at once whose turn it is
    wait_until(lambda: up.http.get(f"/v1/runs/{old}").status_code == 404, "the old run is deleted", 30)
    assert up.http.get(f"/v1/runs/{young}").status_code == 200


def test_a_backup_is_whole_while_others_write_and_overwrites_nothing(up: Gateway, tmp_path: Path) -> None:
    stop = threading.Event()

    change(
        up, "CREATE TABLE ballast AS SELECT randomblob(20000000) AS x"
    )  # a copy in portions would begin anew for ever

    def work() -> None:
        while not stop.is_set():
            up.submit(HELLO, {"text": LARGE})

    writer = threading.Thread(target=work)
    writer.start()
    target = tmp_path / "copy.db"
    try:
        wait_until(lambda: count(up.folder / "aigateway.db", "runs") > 20, "something is written", 20)
        done = up.run("db", "backup", str(target))
    finally:
        stop.set()
        writer.join()
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["copy.db"]
    with closing(sqlite3.connect(target)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert copy.execute("PRAGMA foreign_key_check").fetchall() == []
        lost = "FROM runs LEFT JOIN payloads ON digest = input_digest WHERE input_digest IS NOT NULL AND digest IS NULL"
        assert copy.execute(f"SELECT count(*) {lost}").fetchone() == (0,)
        gaps = "SELECT count(*) FROM runs WHERE event_seq <> (SELECT count(*) FROM events WHERE run_id = runs.id)"
        assert copy.execute(gaps).fetchone() == (0,)
    again = up.run("db", "backup", str(target))
    assert (again.returncode, "never overwrites" in again.stderr) == (2, True)
    assert up.run("db", "backup", str(tmp_path / "no" / "copy.db")).returncode == 2
    up.environment["AIGATEWAY_DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/none"
    try:
        other = up.run("db", "backup", str(tmp_path / "other.db"))
        assert (other.returncode, "pg_dump" in other.stderr) == (2, True)
        assert up.run("db", "prune").returncode == 1
    finally:
        del up.environment["AIGATEWAY_DATABASE_URL"]


def test_nothing_is_made_where_there_is_no_database(tmp_path: Path) -> None:
    with gateway(tmp_path) as empty:
        refused = empty.run("db", "prune")
        assert (refused.returncode, "there is no database yet" in refused.stderr) == (2, True)
        assert list(tmp_path.glob("*.db")) == []
