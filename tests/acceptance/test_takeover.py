"""A step of a killed worker is running elsewhere within a second, with a single worker and on a busy machine too."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, gateway
from services import wait_until

CONFIG: dict[str, Any] = {"providers": {"sim": {"type": "simulated", "models": {"slow": {"delay": "600s"}}}}}
WORKFLOW = {"name": "slow", "steps": [{"id": "only", "type": "llm", "model": "sim/slow", "prompt": "wait"}]}
KILLS = 4
PROMISED_S = 1.0


@contextlib.contextmanager
def hogs(number: int) -> Iterator[None]:
    """Processes that take all the CPU they can get."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for hog in running:
            hog.kill()
            hog.wait()


def starts(up: Gateway, run_id: str) -> list[float]:
    """When each attempt of the run's step began, in seconds since 1970, as the database has it."""
    with contextlib.closing(sqlite3.connect(f"file:{up.folder}/aigateway.db?mode=ro", uri=True)) as database:
        rows = database.execute(
            "SELECT a.started_us FROM attempts a JOIN steps s ON s.id = a.step_id WHERE s.run_id = ? ORDER BY a.number",
            (run_id,),
        ).fetchall()
    return [row[0] / 1_000_000 for row in rows]


def takeover_s(up: Gateway) -> float:
    """SIGKILL to the only worker in the middle of a step: how long until the step runs again."""
    wait_until(lambda: len(up.worker_pids()) == 1, "one worker", 10)
    run_id = up.submit(WORKFLOW, {})
    wait_until(lambda: len(starts(up, run_id)) == 1, "the step runs", 10)
    (worker,) = up.worker_pids()
    killed = time.time()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: len(starts(up, run_id)) == 2, "the step runs again", 10)
    assert up.http.post(f"/v1/runs/{run_id}/cancel").status_code == 202
    return starts(up, run_id)[1] - killed


@pytest.mark.parametrize("busy", [0, 2])
def test_the_step_of_the_only_worker_runs_again_within_a_second(tmp_path: Path, busy: int) -> None:
    with gateway(tmp_path / "home", CONFIG) as up:
        up.serve(workers=1)
        with hogs(busy):
            took = [takeover_s(up) for _ in range(KILLS)]
    print("takeovers:", *(f"{each:.3f}" for each in took))
    assert max(took) < PROMISED_S, took
