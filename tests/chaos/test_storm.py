"""The storm: many three-step runs while everything they need is killed, stopped, emptied and started again at random.

Afterwards every accepted run has ended right, each step has one result, no finished step was called again, every repeated call is a
visible attempt, the ledger holds at least every call that the provider counted, and each webhook came under one id.
The seed is printed; the same seed strikes in the same order.
"""

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway
from receiver import Receiver
from services import PostgresServer, RedisServer
from storm import Storm, asked, installation, wait_for_all
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


def run_storm(storm: Storm, upstream: OpenAIUpstream, receiver: Receiver, runs: int) -> None:
    storm.start()
    up = storm.up
    steps = [step | ({"retry": RETRY} if step["type"] == "llm" else {}) for step in WORKFLOW["steps"]]
    asked(up, "PUT", "/v1/workflows/storm", json=WORKFLOW | {"steps": steps})
    with storm.raging():
        ids: list[str] = []
        for number in range(runs):
            body = {"input": {"number": number}, "webhook_url": receiver.url}
            headers = {"idempotency-key": f"storm-{number}"}
            ids.append(asked(up, "POST", "/v1/workflows/storm/runs", json=body, headers=headers)["id"])
        wait_for_all(up, ids)
    storm.settle()
    check(up, ids, upstream, receiver)


def check(up: Gateway, ids: list[str], upstream: OpenAIUpstream, receiver: Receiver) -> None:
    rows_of_all = 0
    for number, run_id in enumerate(ids):
        run = asked(up, "GET", f"/v1/runs/{run_id}")
        assert (run["status"], run["output"]) == ("succeeded", number), run
        rows_of_all += check_steps(asked(up, "GET", f"/v1/runs/{run_id}/steps?limit=200")["data"], upstream, number)
    assert rows_of_all >= upstream.control.count()
    deadline = time.monotonic() + 120
    while (missing := len(ids) - len({headers["webhook-id"] for headers, _ in receiver.got})) > 0:
        assert time.monotonic() < deadline, f"{missing} webhooks are missing"
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


def provider_of(upstream: OpenAIUpstream) -> dict[str, Any]:
    prices = {"*": {"input": 1, "output": 2}}
    return {"type": "openai", "base_url": upstream.base_url, "api_key": upstream.key, "prices": prices}


@pytest.mark.parametrize("runs", [40, pytest.param(5000, marks=pytest.mark.chaos)])
def test_storm_on_sqlite(tmp_path: Path, own_redis: RedisServer, runs: int) -> None:
    seed = int(os.environ.get("STORM_SEED", random.randrange(10**6)))
    print(f"STORM_SEED={seed}")
    with OpenAIUpstream() as upstream, Receiver(200).listening() as receiver:
        with installation(tmp_path, provider_of(upstream), own_redis, f"sqlite:///{tmp_path}/storm.db") as up:
            run_storm(Storm(up, own_redis, random.Random(seed)), upstream, receiver, runs)


@pytest.mark.chaos
@pytest.mark.parametrize("runs", [200, 5000])
def test_storm_on_postgresql(tmp_path: Path, own_redis: RedisServer, own_postgres: PostgresServer, runs: int) -> None:
    seed = int(os.environ.get("STORM_SEED", random.randrange(10**6)))
    print(f"STORM_SEED={seed}")
    with OpenAIUpstream() as upstream, Receiver(200).listening() as receiver:
        with installation(tmp_path, provider_of(upstream), own_redis, own_postgres.url()) as up:
            storm = Storm(up, own_redis, random.Random(seed), postgres=own_postgres)
            run_storm(storm, upstream, receiver, runs)
