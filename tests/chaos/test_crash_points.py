"""Each commit point: killed before and after, cut off from the database's answer with the commit done or not, and refused by a lock or a
full disk, once or for two seconds. Whatever was answered 202 still ends right, and nothing finished is paid for twice.
"""

import ast
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gateway import Gateway, gateway
from receiver import Receiver
from services import wait_until
from upstreams.control import Fault
from upstreams.openai import OpenAIUpstream

ENGINE = Path(__file__).parents[2] / "engine"

# What each process does on its own way; the rest is asked for below.
KILLED = ["before", "after"]  # before and after the commit
REFUSED = ["locked", "full_for_2"]  # by the database, once or for so many seconds
FAULTS = [*KILLED, "refused", "lost", *REFUSED]  # answer lost without and with the commit
ON_BOTH = [*(("sqlite", fault) for fault in FAULTS), *(("postgresql", fault) for fault in ["after", "lost", *REFUSED])]
BY_ITSELF = {
    "make_setting", "insert_worker", "renew_lease", "put_workflow", "submit", "claim", "complete", "open_call", "open_request",
    "settle_request", "wake_due", "take_delivery", "record_delivery", "bury",
}  # fmt: skip
ASKED_FOR = {"cancel", "pause", "resume", "retry", "remove_workflow", "redeliver", "expire_runs", "give_back"}
OF_STEP_TYPES = {"signal", "fork", "answer", "remember"}
OF_RETENTION = {"take_turn", "give_up_runs", "delete_runs", "prune_old", "prune_payloads"}
OF_CHAT = {"claim_answer", "keep_answer", "release_answer", "remember_answer"}
OF_SCHEDULES = {"create_schedule", "fire_schedule", "pause_schedule", "remove_schedule"}
OF_LIMITS = {"fill"}
ALONE: dict[str, Any] = {
    "name": "alone",
    "concurrency": 1,
    "steps": [{"id": "only", "type": "llm", "model": "up/gpt-6-luna", "prompt": "one"}],
}
OUTER: dict[str, Any] = {
    "name": "outer",
    "steps": [
        {"id": "ask", "type": "llm", "model": "up/gpt-6-luna", "prompt": "one", "cache": "1h"},
        {"id": "wait", "type": "wait", "signal": "go"},
        {"id": "call", "type": "workflow", "workflow": "inner"},
        {"id": "last", "type": "set", "value": "${steps.call.output}"},
    ],
}
INNER: dict[str, Any] = {"name": "inner", "steps": [{"id": "only", "type": "set", "value": "done"}]}
LEFT = {"runs": 1, "steps": 1, "attempts": 1, "payloads": 2}  # of three runs of one step with a large value
WORKFLOW: dict[str, Any] = {
    "name": "three",
    "steps": [
        {"id": "first", "type": "llm", "model": "up/gpt-6-luna", "prompt": "one"},
        {
            "id": "again",
            "type": "llm",
            "model": "up/gpt-6-sol",
            "prompt": "two",
            "retry": {"max_attempts": 3, "initial": "20ms"},
        },
        {"id": "last", "type": "set", "value": "${steps.first.output} ${steps.again.output}"},
    ],
}


def points_in_the_code() -> set[str]:
    """Every name that a transaction says."""
    names: set[str] = set()
    for file in ENGINE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "tx.point":
                names.add(ast.literal_eval(node.args[0]))
    return names


def test_every_commit_point_is_killed_at() -> None:
    parts = (BY_ITSELF, ASKED_FOR, OF_STEP_TYPES, OF_SCHEDULES, OF_RETENTION, OF_CHAT, OF_LIMITS)
    assert points_in_the_code() == set().union(*parts)


class Patient:
    """A client that comes back when its server died: start it again, ask again under the same key."""

    def __init__(self, up: Gateway) -> None:
        self._up = up

    def ask(self, method: str, path: str, **request: Any) -> httpx2.Response:
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = self._up.http.request(method, path, **request)
                if answer.status_code != 503:  # the database did not answer: come back
                    assert answer.status_code != 500, answer.text
                    return answer
                assert answer.headers.get("retry-after") == "1" or "wait" in request.get("params", {}), answer.text
            except httpx2.HTTPError:
                self.start_again()
            assert time.monotonic() < deadline

    def start_again(self) -> None:
        if not self._up.processes or self._up.processes[-1].poll() is not None:
            self._up.start("serve", "--port", str(self._up.port), "--workers", "2")
        wait_until(lambda: self._up.ready_workers() >= 1 or self._up.processes[-1].poll() is not None, "it is up", 40)
        if self._up.processes[-1].poll() is not None:
            self.start_again()


@pytest.fixture
def database(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of a gateway on the kind of database that the drill names."""
    if request.param == "sqlite":
        return {}  # its own file
    return {"AIGATEWAY_DATABASE_URL": str(request.getfixturevalue("postgres_url"))}


def config(upstream: OpenAIUpstream) -> dict[str, Any]:
    prices = {"*": {"input": 1, "output": 2}}
    provider = {"type": "openai", "base_url": upstream.base_url, "api_key": upstream.key, "prices": prices}
    return {
        "providers": {"up": provider},
        "webhooks": {"allow_private_networks": True},
        "log": {"level": "warning"},
    }


@pytest.mark.chaos
@pytest.mark.parametrize(("database", "moment"), ON_BOTH, indirect=["database"])
@pytest.mark.parametrize("point", sorted(BY_ITSELF - {"bury"}))
def test_a_run_survives_death_at(point: str, moment: str, tmp_path: Path, database: dict[str, str]) -> None:
    marker = tmp_path / "died"
    crash = {"_AIGATEWAY_CRASH_AT": f"{point}:{moment}:{marker}"}
    with OpenAIUpstream() as upstream, Receiver(200).listening() as receiver:
        upstream.control.script(Fault("status", status=500), model="gpt-6-sol")
        with gateway(tmp_path / "home", config(upstream), **crash, **database) as up:
            patient = Patient(up)
            patient.start_again()
            assert patient.ask("PUT", "/v1/workflows/three", json=WORKFLOW).status_code in (200, 201)
            body: dict[str, Any] = {"input": {}, "webhook_url": receiver.url}
            key = {"idempotency-key": "once"}
            answer = patient.ask("POST", "/v1/workflows/three/runs", json=body, headers=key)
            assert answer.status_code == 202, answer.text
            run_id = answer.json()["id"]
            chat = {"model": "up/gpt-6-terra", "messages": [{"role": "user", "content": "hi"}]}
            assert patient.ask("POST", "/v1/chat/completions", json=chat).status_code in (200, 404)
            run = patient.ask("GET", f"/v1/runs/{run_id}", params={"wait": 40}).json()
            assert run["status"] == "succeeded", (run, up.logs())
            wait_until(marker.exists, f"a process died at {point}", 20)
            check(up, patient, run_id, upstream, receiver)


def check(up: Gateway, patient: Patient, run_id: str, upstream: OpenAIUpstream, receiver: Receiver) -> None:
    """Each finished step was called once more than it was interrupted, every call has a row, the webhook has one id."""
    rows = patient.ask("GET", "/v1/requests", params={"run": run_id, "limit": 200}).json()["data"]
    steps = {step["id"]: step for step in patient.ask("GET", f"/v1/runs/{run_id}/steps?limit=200").json()["data"]}
    calls = upstream.control.count(model="gpt-6-luna") + upstream.control.count(model="gpt-6-sol")
    assert calls <= len(rows)  # an intent may have died before its call, never the other way round
    for step in steps.values():
        assert [attempt["status"] for attempt in step["attempts"]].count("succeeded") == 1
        lost = [attempt for attempt in step["attempts"] if attempt["status"] == "lost"]
        assert len(lost) <= 1
    assert not any(row["status"] == "started" for row in rows)
    wait_until(lambda: len(receiver.got) >= 1, "the webhook came", 70)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


@pytest.mark.chaos
@pytest.mark.parametrize(("database", "moment"), ON_BOTH, indirect=["database"])
@pytest.mark.parametrize("point", ["cancel", "pause", "resume", "retry", "redeliver", "remove_workflow"])
def test_what_people_ask_for_survives_death_at(
    point: str, moment: str, tmp_path: Path, database: dict[str, str]
) -> None:
    marker = tmp_path / "died"
    crash = {"_AIGATEWAY_CRASH_AT": f"{point}:{moment}:{marker}"}
    with OpenAIUpstream() as upstream, Receiver(200).listening() as receiver:
        with gateway(tmp_path / "home", config(upstream), **crash, **database) as up:
            patient = Patient(up)
            patient.start_again()
            patient.ask("PUT", "/v1/workflows/three", json=WORKFLOW)
            if point in ("cancel", "pause", "resume"):
                upstream.control.script(Fault("delay", delay_s=3), model="gpt-6-luna")
            if point == "retry":
                upstream.control.script(Fault("status", status=400), model="gpt-6-luna")
            body: dict[str, Any] = {"workflow": "three", "input": {}, "webhook_url": receiver.url}
            run_id = patient.ask("POST", "/v1/runs", json=body).json()["id"]
            upstream.control.wait(lambda control: control.count() >= 1)
            ask_for(point, patient, run_id)
            assert marker.exists(), f"nobody died at {point}"
            expected = "cancelled" if point == "cancel" else "succeeded"
            run = patient.ask("GET", f"/v1/runs/{run_id}", params={"wait": 40}).json()
            assert run["status"] == expected, (run, up.logs())


@pytest.mark.chaos
@pytest.mark.parametrize(("database", "moment"), ON_BOTH, indirect=["database"])
@pytest.mark.parametrize("point", sorted(OF_STEP_TYPES))
def test_signals_children_forks_and_kept_results_survive_death_at(
    point: str, moment: str, tmp_path: Path, database: dict[str, str]
) -> None:
    marker = tmp_path / "died"
    crash = {"_AIGATEWAY_CRASH_AT": f"{point}:{moment}:{marker}"}
    with OpenAIUpstream() as upstream, gateway(tmp_path / "home", config(upstream), **crash, **database) as up:
        patient = Patient(up)
        patient.start_again()
        for workflow in (INNER, OUTER):
            patient.ask("PUT", f"/v1/workflows/{workflow['name']}", json=workflow)
        run_id = patient.ask("POST", "/v1/runs", json={"workflow": "outer"}).json()["id"]
        assert patient.ask("POST", f"/v1/runs/{run_id}/signals/go", json=1).status_code in (202, 409)
        run = patient.ask("GET", f"/v1/runs/{run_id}", params={"wait": 40}).json()
        assert (run["status"], run["output"]) == ("succeeded", "done"), (run, up.logs())
        forked = patient.ask("POST", f"/v1/runs/{run_id}/fork", json={"from_step": "call"})
        assert forked.status_code == 201, forked.text
        again = patient.ask("GET", f"/v1/runs/{forked.json()['id']}", params={"wait": 40}).json()
        assert (again["status"], again["output"]) == ("succeeded", "done"), (again, up.logs())
        assert marker.exists(), f"nobody died at {point}"
        [ask] = [
            step
            for step in patient.ask("GET", f"/v1/runs/{run_id}/steps?limit=200").json()["data"]
            if step["id"] == "ask"
        ]
        in_flight = [attempt["status"] for attempt in ask["attempts"]].count("lost")  # a call that a death cut off
        assert (
            1 <= upstream.control.count() <= 1 + in_flight
        )  # neither a fork nor a death behind a kept result pays again


@pytest.mark.chaos
@pytest.mark.parametrize("moment", [*KILLED, *REFUSED])
@pytest.mark.parametrize("point", sorted(OF_SCHEDULES))
def test_each_firing_stays_one_run_through_death_at(point: str, moment: str, tmp_path: Path) -> None:
    marker = tmp_path / "died"
    crash = {"_AIGATEWAY_CRASH_AT": f"{point}:{moment}:{marker}"}
    with OpenAIUpstream() as upstream, gateway(tmp_path / "home", config(upstream), **crash) as up:
        patient = Patient(up)
        patient.start_again()
        patient.ask("PUT", "/v1/workflows/inner", json=INNER)
        body = {"name": "yearly", "workflow": "inner", "cron": "@yearly"}
        assert patient.ask("POST", "/v1/schedules", json=body).status_code in (200, 201)
        now = int(time.time()) * 1_000_000
        with closing(sqlite3.connect(up.folder / "aigateway.db", timeout=30)) as database:
            database.execute("UPDATE schedules SET next_us = ? WHERE name = 'yearly'", (now,))
            database.commit()
        wait_until(lambda: patient.ask("GET", "/v1/schedules/yearly").json()["fired"] == 1, "it has fired", 40)
        schedule = patient.ask("GET", "/v1/schedules/yearly").json()
        run = patient.ask("GET", f"/v1/runs/{schedule['last_run_id']}", params={"wait": 40}).json()
        assert (run["status"], run["schedule"]["due_at"]) == ("succeeded", schedule["last_at"]), (run, up.logs())
        assert patient.ask("POST", "/v1/schedules/yearly/pause").json()["next_at"] is None
        assert patient.ask("POST", "/v1/schedules/yearly/resume").json()["paused_at"] is None
        assert patient.ask("DELETE", "/v1/schedules/yearly").status_code in (200, 404)
        assert patient.ask("GET", "/v1/schedules").json()["data"][0]["name"] != "yearly"
        runs = patient.ask("GET", "/v1/runs").json()["data"]
        assert [each["id"] for each in runs] == [run["id"]]
        assert marker.exists(), f"nobody died at {point}"


@pytest.mark.chaos
@pytest.mark.parametrize("moment", [*KILLED, *REFUSED])
@pytest.mark.parametrize("point", sorted(OF_RETENTION))
def test_retention_is_finished_by_the_next_after_death_at(point: str, moment: str, tmp_path: Path) -> None:
    marker = tmp_path / "died"
    crash = {"_AIGATEWAY_CRASH_AT": f"{point}:{moment}:{marker}"}
    of_workers = point == "take_turn"
    with gateway(tmp_path / "home", {"log": {"level": "warning"}}, **(crash if of_workers else {})) as up:
        patient = Patient(up)
        patient.start_again()
        texts = [letter * 10_000 for letter in "abc"]
        definition = {"name": "say", "steps": [{"id": "a", "type": "set", "value": "${input.text}"}]}
        ids = [
            patient.ask("POST", "/v1/runs", json={"workflow": definition, "input": {"text": text}}).json()["id"]
            for text in texts
        ]
        for run_id in ids:
            assert patient.ask("GET", f"/v1/runs/{run_id}", params={"wait": 40}).json()["status"] == "succeeded"
        if of_workers:  # at its first look
            wait_until(marker.exists, "a worker died, or was refused", 20)
            wait_until(lambda: up.ready_workers() == 2, "all are there", 20)
        with closing(sqlite3.connect(up.folder / "aigateway.db", timeout=30)) as database:
            database.execute("UPDATE runs SET finished_us = finished_us - 90000000 WHERE id <> ?", (ids[0],))
            database.commit()
            if not of_workers:
                up.environment |= crash
                ended = up.run("db", "prune", "--older-than", "60s")
                assert ended.returncode == (-9 if moment in KILLED else 1) and "Traceback" not in ended.stderr, (
                    ended.stderr
                )
                assert marker.exists()
                if "_for_" in moment:
                    wait_until(lambda: time.time() > marker.stat().st_mtime + 2, "the database is back", 5)
            assert up.run("db", "prune", "--older-than", "60s").returncode == 0
            left = {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in LEFT}
        assert left == LEFT
        assert patient.ask("GET", f"/v1/runs/{ids[0]}").json()["output"] == texts[0]


@pytest.mark.chaos
@pytest.mark.parametrize("moment", FAULTS)
def test_a_run_that_a_dying_sweeper_had_started_ends_once(moment: str, tmp_path: Path) -> None:
    marker = tmp_path / "died"
    crash = {"_AIGATEWAY_CRASH_AT": f"fill:{moment}:{marker}"}
    with OpenAIUpstream() as upstream, gateway(tmp_path / "home", config(upstream), **crash) as up:
        patient = Patient(up)
        patient.start_again()
        patient.ask("PUT", "/v1/workflows/alone", json=ALONE)
        soon = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
        asked = [patient.ask("POST", "/v1/runs", json={"workflow": "alone", "start_at": soon}) for _ in range(3)]
        for answer in asked:
            run = patient.ask("GET", f"/v1/runs/{answer.json()['id']}", params={"wait": 40}).json()
            assert run["status"] == "succeeded", (run, up.logs())
        assert marker.exists(), "nobody died"
        assert upstream.control.count() == 3


@pytest.mark.chaos
@pytest.mark.parametrize("moment", [*KILLED, *REFUSED])
@pytest.mark.parametrize("point", sorted(OF_CHAT))
def test_an_idempotency_key_survives_death_at(point: str, moment: str, tmp_path: Path) -> None:
    marker = tmp_path / "died"
    crash = {"_AIGATEWAY_CRASH_AT": f"{point}:{moment}:{marker}"}
    with OpenAIUpstream() as upstream, gateway(tmp_path / "home", config(upstream), **crash) as up:
        patient = Patient(up)
        patient.start_again()
        refused = 3 if point == "release_answer" else 0  # an answer that is not kept
        upstream.control.script(*[Fault("status", status=500)] * refused)
        body: dict[str, Any] = {"model": "up/gpt-6-luna", "messages": [{"role": "user", "content": "hi"}]}
        cache = {"x-aigateway-cache": "1h"} if point == "remember_answer" else {}
        asked: dict[str, Any] = {"json": body, "headers": {"idempotency-key": "once", **cache}}
        answer = patient.ask("POST", "/v1/chat/completions", **asked)
        if answer.status_code == 502:  # told before the key is given up
            wait_until(marker.exists, f"a process died at {point}", 20)
            answer = patient.ask("POST", "/v1/chat/completions", **asked)
        assert answer.status_code == 200, answer.text
        assert marker.exists(), f"nobody died at {point}"
        again = patient.ask("POST", "/v1/chat/completions", **asked)
        assert again.headers["x-aigateway-replayed"] == "true" and again.content == answer.content
        unseen = (
            point in ("keep_answer", "remember_answer") and moment == "before"
        )  # its answer was neither kept nor told
        assert upstream.control.count() == 1 + refused + unseen


def ask_for(point: str, patient: Patient, run_id: str) -> None:
    """Ask until it is so: the answer may have been lost after the deed."""
    path = f"/v1/runs/{run_id}"
    if point in ("cancel", "pause"):
        assert patient.ask("POST", f"{path}/{point}").status_code == 202
    if point in ("pause", "resume"):
        if point == "resume":
            assert patient.ask("POST", f"{path}/pause").status_code == 202
        assert patient.ask("POST", f"{path}/resume").status_code in (202, 409)
    if point == "retry":
        assert patient.ask("GET", path, params={"wait": 30}).json()["status"] == "failed"
        assert patient.ask("POST", f"{path}/retry").status_code in (202, 409)
    if point == "remove_workflow":
        assert patient.ask("DELETE", "/v1/workflows/three").status_code in (204, 404)
    if point == "redeliver":
        patient.ask("GET", path, params={"wait": 30})
        delivery = patient.ask("GET", f"{path}/webhooks").json()["data"][0]["id"]
        assert patient.ask("POST", f"/v1/webhooks/{delivery}/redeliver").status_code == 202
