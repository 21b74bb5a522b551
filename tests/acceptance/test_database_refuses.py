"""Real refusals, met by a whole installation: files that may not grow, a row that somebody keeps locked, SQLite's lock held by another.

Nobody dies, clients are told when to come back, and afterwards every run ends with each step paid for once.
"""

import contextlib
import resource
import sqlite3
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from gateway import Gateway, gateway
from services import wait_until
from upstreams.openai import OpenAIUpstream

CHAT = {"model": "up/gpt-6-sol", "messages": [{"role": "user", "content": "hi"}]}
WORKFLOW: dict[str, Any] = {
    "name": "asks",
    "steps": [
        {"id": "nap", "type": "sleep", "duration": "500ms"},
        {"id": "one", "type": "llm", "model": "up/gpt-6-luna", "prompt": "one"},
        {"id": "two", "type": "llm", "model": "up/gpt-6-luna", "prompt": "two"},
    ],
}
PATIENT = [
    "step not taken",
    "not written yet",
    "sweep failed",
    "lease not renewed",
    "steps not compared",
    "deliveries not read",
]


@contextlib.contextmanager
def running(folder: Path, upstream: OpenAIUpstream, **environment: str) -> Generator[Gateway]:
    provider = {"type": "openai", "base_url": upstream.base_url, "api_key": upstream.key}
    config = {"providers": {"up": provider | {"prices": {"*": {"input": 1, "output": 2}}}}}
    with gateway(folder / "home", config, **environment) as up:
        up.serve()
        workers = up.worker_pids()
        yield up
        assert up.worker_pids() == workers, f"a process ended: {up.logs()}"
        assert "Traceback" not in up.logs()


def submit(up: Gateway, key: str) -> Any:
    body = {"workflow": WORKFLOW, "input": {}}
    return up.http.post("/v1/runs", json=body, headers={"idempotency-key": key})


def refused(answer: Any) -> None:
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.text
    assert answer.json()["error"]["code"] == "database_unavailable"


def each_step_was_paid_once(up: Gateway, run_ids: list[str], upstream: OpenAIUpstream) -> None:
    for run_id in run_ids:
        assert up.finished(run_id)["status"] == "succeeded", up.logs()
        for step in ("one", "two"):
            attempts = up.steps(run_id)[step]["attempts"]
            assert [len(attempt["calls"]) for attempt in attempts] == [1], attempts
    assert upstream.control.count(model="gpt-6-luna") == 2 * len(run_ids)


def let_files_grow(up: Gateway, most: int) -> None:
    """What a write beyond that comes to is an error, as on a full disk."""
    serve = psutil.Process(up.processes[0].pid)
    for process in [serve, *serve.children(recursive=True)]:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def test_files_that_may_not_grow_for_a_while(tmp_path: Path) -> None:
    with OpenAIUpstream() as upstream, running(tmp_path, upstream) as up:
        first = submit(up, "first").json()["id"]
        let_files_grow(up, 4096)
        refused(submit(up, "second"))
        refused(up.http.post("/v1/chat/completions", json=CHAT))
        assert upstream.control.count(model="gpt-6-sol") == 0, "what cannot be booked is not sent"
        wait_until(lambda: any(told in up.logs() for told in PATIENT), "the worker was refused", 5)
        assert up.http.get(f"/v1/runs/{first}").status_code == 200
        let_files_grow(up, resource.RLIM_INFINITY)
        second = submit(up, "second")
        assert second.status_code == 202 and submit(up, "second").json()["id"] == second.json()["id"]
        each_step_was_paid_once(up, [first, second.json()["id"]], upstream)
        with contextlib.closing(sqlite3.connect(up.folder / "aigateway.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.chaos
def test_a_row_that_is_locked_for_longer_than_the_lock_timeout(tmp_path: Path, postgres_url: str) -> None:
    url = f"{postgres_url}&options=-c%20lock_timeout%3D150"
    with OpenAIUpstream() as upstream, running(tmp_path, upstream, AIGATEWAY_DATABASE_URL=url) as up:
        run_id = submit(up, "first").json()["id"]
        with psycopg.connect(postgres_url) as somebody:
            somebody.execute("SELECT id FROM runs WHERE id = %s FOR UPDATE", (run_id,))
            refused(up.http.post(f"/v1/runs/{run_id}/cancel"))
            wait_until(lambda: any(told in up.logs() for told in PATIENT), "the worker was refused", 5)
            assert up.http.get(f"/v1/runs/{run_id}").json()["status"] != "cancelled"
        each_step_was_paid_once(up, [run_id], upstream)


@pytest.mark.chaos  # as long as anybody waits for SQLite's lock: 5 s
def test_a_lock_that_another_program_holds_for_longer_than_anybody_waits(tmp_path: Path) -> None:
    with OpenAIUpstream() as upstream, running(tmp_path, upstream) as up:
        first = submit(up, "first").json()["id"]
        with contextlib.closing(sqlite3.connect(up.folder / "aigateway.db", isolation_level=None)) as somebody:
            somebody.execute("BEGIN IMMEDIATE")
            refused(submit(up, "second"))
            somebody.execute("ROLLBACK")
        each_step_was_paid_once(up, [first, submit(up, "second").json()["id"]], upstream)
