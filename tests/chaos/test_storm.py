"""The storm: many three-step runs while everything they need is killed, stopped, emptied and started again at random.

Afterwards every accepted run has ended right, each step has one result, no finished step was called again, every repeated call is a
visible attempt, the ledger holds at least every call that the provider counted, and each webhook came under one id.
The seed is printed; the same seed strikes in the same order.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gateway import Gateway, gateway
from receiver import Receiver
from services import PostgresServer, RedisServer
from upstreams.openai import OpenAIUpstream

WORKFLOW: dict[str, Any] = {
    "name": "storm",
    "inputs": {"number": {"type": "integer"}},
    "steps": [
        {"id": "one", "type": "llm", "model": "up/gpt-6-luna", "prompt": "[marker one-${input.number}] one"},
        {"id": "two", "type": "llm", "model": "up/gpt-6-luna", "prompt": "[marker two-${input.number}] two"},
        {"id": "three", "type": "set", "value": "${input.number}"},
    ],
}
RETRY = {"max_attempts": 8, "initial": "50ms", "max": "500ms"}
LEASE_S = 8


@dataclass
class Storm:
    """One installation under fire. `strikes` are what may happen to it."""

    up: Gateway
    redis: RedisServer
    chance: random.Random
    postgres: PostgresServer | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    struck: Counter[str] = field(default_factory=Counter)

    def start(self) -> None:
        self.start_api()
        self.up.start("worker", "--processes", "2", "--concurrency", "32")
        self.up.wait_until_up(1)

    def start_api(self) -> None:
        self.api = self.up.start("api", "--port", str(self.up.port))

    def rage(self) -> None:
        """Strike every second or so until told to stop; then mend what is broken."""
        while not self.stopping.wait(self.chance.uniform(0.4, 1.5)):
            strike = self.chance.choice(self.strikes())
            self.struck[strike.__name__] += 1
            strike()

    def settle(self) -> None:
        """Once more from this thread: servers end with the thread that started them."""
        self.restart_redis()
        if self.postgres:
            self.restart_postgres()

    def strikes(self) -> list[Callable[[], None]]:
        often = [self.kill_worker] * 4 + [self.kill_api, self.flush_redis, self.restart_redis, self.pause_worker]
        return often + ([self.restart_postgres] if self.postgres else [])

    def kill_worker(self) -> None:
        if pids := self.up.worker_pids():
            signal_safely(self.chance.choice(pids), signal.SIGKILL)

    def pause_worker(self) -> None:
        """Longer than its lease: when it wakes up, others have its steps."""
        if pids := self.up.worker_pids():
            pid = self.chance.choice(pids)
            signal_safely(pid, signal.SIGSTOP)
            self.stopping.wait(LEASE_S + 3)
            signal_safely(pid, signal.SIGCONT)

    def kill_api(self) -> None:
        self.api.kill()
        self.api.wait()
        self.start_api()

    def flush_redis(self) -> None:
        self.redis.flush()

    def restart_redis(self) -> None:
        self.redis.kill()
        self.redis.start()

    def restart_postgres(self) -> None:
        assert self.postgres
        self.postgres.kill()
        self.postgres.start()


def signal_safely(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def asked(up: Gateway, method: str, path: str, **request: Any) -> Any:
    """The JSON answer, however often the server has to come back first."""
    deadline = time.monotonic() + 90
    while True:
        try:
            answer = up.http.request(method, path, **request)
            if answer.status_code < 500:
                return answer.json()
        except (httpx2.HTTPError, ValueError):
            pass
        assert time.monotonic() < deadline, up.logs()
        time.sleep(0.1)


def run_storm(storm: Storm, upstream: OpenAIUpstream, receiver: Receiver, runs: int) -> None:
    storm.start()
    up = storm.up
    steps = [step | ({"retry": RETRY} if step["type"] == "llm" else {}) for step in WORKFLOW["steps"]]
    asked(up, "PUT", "/v1/workflows/storm", json=WORKFLOW | {"steps": steps})
    raging = threading.Thread(target=storm.rage)
    raging.start()
    try:
        ids: list[str] = []
        for number in range(runs):
            body = {"input": {"number": number}, "webhook_url": receiver.url}
            headers = {"idempotency-key": f"storm-{number}"}
            ids.append(asked(up, "POST", "/v1/workflows/storm/runs", json=body, headers=headers)["id"])
        wait_for_all(up, ids)
    finally:
        storm.stopping.set()
        raging.join()
    storm.settle()
    check(up, ids, upstream, receiver)


def wait_for_all(up: Gateway, ids: list[str]) -> None:
    """Nothing may be stuck for longer than three leases without anything else getting on."""
    left, moved = set(ids), time.monotonic()
    while left:
        ended = {
            run_id
            for run_id in sorted(left)[:50]
            if asked(up, "GET", f"/v1/runs/{run_id}")["status"] in ("succeeded", "failed")
        }
        left -= ended
        moved = time.monotonic() if ended else moved
        assert time.monotonic() - moved < 3 * LEASE_S + 30, (len(left), up.logs())
        time.sleep(0.2)


def check(up: Gateway, ids: list[str], upstream: OpenAIUpstream, receiver: Receiver) -> None:
    rows_of_all = 0
    for number, run_id in enumerate(ids):
        run = asked(up, "GET", f"/v1/runs/{run_id}")
        assert (run["status"], run["output"]) == ("succeeded", number), run
        rows_of_all += check_steps(asked(up, "GET", f"/v1/runs/{run_id}/steps")["data"], upstream, number)
    assert rows_of_all >= upstream.control.count()
    deadline = time.monotonic() + 120
    while len({headers["webhook-id"] for headers, _ in receiver.got}) < len(ids):
        assert time.monotonic() < deadline, "webhooks are missing"
        time.sleep(0.2)


def check_steps(steps: list[dict[str, Any]], upstream: OpenAIUpstream, number: int) -> int:
    """One result a step; each call of the provider belongs to an attempt, the last of which is the one that counted."""
    rows = 0
    for step in steps:
        statuses = [attempt["status"] for attempt in step["attempts"]]
        assert statuses.count("succeeded") == 1 and statuses[-1] == "succeeded", step
        calls = [call for attempt in step["attempts"] for call in attempt["calls"]]
        rows += len(calls)
        if step["type"] == "llm":
            made = upstream.control.count(marker=f"{step['id']}-{number}")
            assert 1 <= made <= len(calls) <= len(statuses), (made, step)
            assert not any(call["status"] == "started" for call in calls), step
    return rows


def installation(tmp_path: Path, upstream: OpenAIUpstream, redis: RedisServer, url: str) -> Any:
    provider = {
        "type": "openai",
        "base_url": upstream.base_url,
        "api_key": upstream.key,
        "prices": {"*": {"input": 1, "output": 2}},
    }
    config = {
        "providers": {"up": provider},
        "webhooks": {"allow_private_networks": True},
        "log": {"level": "error"},
    }
    environment = {"AIGATEWAY_REDIS_URL": redis.url, "AIGATEWAY_DATABASE_URL": url}
    return gateway(tmp_path / "home", config, **environment)


@pytest.mark.parametrize("runs", [40, pytest.param(5000, marks=pytest.mark.chaos)])
def test_storm_on_sqlite(tmp_path: Path, own_redis: RedisServer, runs: int) -> None:
    seed = int(os.environ.get("STORM_SEED", random.randrange(10**6)))
    print(f"STORM_SEED={seed}")
    with OpenAIUpstream() as upstream, Receiver(200).listening() as receiver:
        with installation(tmp_path, upstream, own_redis, f"sqlite:///{tmp_path}/storm.db") as up:
            run_storm(Storm(up, own_redis, random.Random(seed)), upstream, receiver, runs)


@pytest.mark.chaos
@pytest.mark.parametrize("runs", [200, 5000])
def test_storm_on_postgresql(tmp_path: Path, own_redis: RedisServer, own_postgres: PostgresServer, runs: int) -> None:
    seed = int(os.environ.get("STORM_SEED", random.randrange(10**6)))
    print(f"STORM_SEED={seed}")
    with OpenAIUpstream() as upstream, Receiver(200).listening() as receiver:
        with installation(tmp_path, upstream, own_redis, own_postgres.url()) as up:
            storm = Storm(up, own_redis, random.Random(seed), postgres=own_postgres)
            run_storm(storm, upstream, receiver, runs)
