"""Random programs through real processes that are killed at random: each comes to what the language says, or was cancelled.

What the programs are and what strikes them follows from the seed, which is printed.
"""

import os
import random
from pathlib import Path
from typing import Any

import pytest
from random_programs import Maker, Steps, expected
from services import PostgresServer, RedisServer
from storm import Storm, asked, installation, wait_for_all

ENDED = {"succeeded", "failed", "skipped", "cancelled"}
AT_ONCE = 100


class Program:
    """A random program; some wait for a signal first, some are cancelled while they run, some call another run."""

    def __init__(self, number: int, chance: random.Random) -> None:
        steps: Steps = Maker(chance.choice, nap="20ms").steps(0)
        self.outcome = expected(steps)
        self.name = f"program-{number}"
        self.signalled = chance.random() < 0.2
        self.cancelled = chance.random() < 0.05
        if self.signalled:
            steps = [{"id": "go", "type": "wait", "signal": "go"}, *steps]
        self.body: dict[str, Any] = {"workflow": {"name": self.name, "steps": steps}}
        self.id = ""


def submit(storm: Storm, programs: list[Program]) -> None:
    up = storm.up
    for program in programs:
        headers = {"idempotency-key": program.name}
        program.id = asked(up, "POST", "/v1/runs", json=program.body, headers=headers)["id"]
        if program.signalled:
            asked(up, "POST", f"/v1/runs/{program.id}/signals/go", json={})
        if program.cancelled:
            asked(up, "POST", f"/v1/runs/{program.id}/cancel")


def check(storm: Storm, program: Program) -> None:
    run = asked(storm.up, "GET", f"/v1/runs/{program.id}")
    if not (program.cancelled and run["status"] == "cancelled"):  # it may have ended before it was cancelled
        assert (run["status"], run["output"]) == program.outcome, (program.body, run)
    events = asked(storm.up, "GET", f"/v1/runs/{program.id}/events")["data"]
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    for step in asked(storm.up, "GET", f"/v1/runs/{program.id}/steps?limit=200")["data"]:
        assert step["status"] in ENDED, step
        statuses = [attempt["status"] for attempt in step["attempts"]]
        assert statuses.count("succeeded") <= 1 and "running" not in statuses, step


def run_programs(storm: Storm, count: int) -> None:
    programs = [Program(number, storm.chance) for number in range(count)]
    storm.start()
    asked(storm.up, "GET", "/health")
    with storm.raging():
        for start in range(0, count, AT_ONCE):
            batch = programs[start : start + AT_ONCE]
            submit(storm, batch)
            wait_for_all(storm.up, [program.id for program in batch])
    storm.settle()
    for program in programs:
        check(storm, program)


def seed() -> int:
    number = int(os.environ.get("STORM_SEED", random.randrange(10**6)))
    print(f"STORM_SEED={number}")
    return number


@pytest.mark.parametrize("count", [25, pytest.param(2000, marks=pytest.mark.chaos)])
def test_random_programs_under_kills_on_sqlite(tmp_path: Path, own_redis: RedisServer, count: int) -> None:
    with installation(tmp_path, {"type": "simulated"}, own_redis, f"sqlite:///{tmp_path}/programs.db") as up:
        run_programs(Storm(up, own_redis, random.Random(seed())), count)


@pytest.mark.chaos
def test_random_programs_under_kills_on_postgresql(
    tmp_path: Path, own_redis: RedisServer, own_postgres: PostgresServer
) -> None:
    with installation(tmp_path, {"type": "simulated"}, own_redis, own_postgres.url()) as up:
        run_programs(Storm(up, own_redis, random.Random(seed()), postgres=own_postgres), 2000)
