"""500 runs of 5 steps that do nothing, on SQLite, and one run's hand-off, beside the bare cost of the same transactions.

The floor: two transactions a step (an INSERT and an UPDATE each) by one thread of plain sqlite3, WAL, synchronous=NORMAL.
"""

import asyncio
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from gateway import Gateway

RUNS, STEPS = 500, 5
WORKFLOW = {
    "name": "nothing",
    "steps": [{"id": f"step{n}", "type": "set", "value": "${run.id}"} for n in range(STEPS)],
}


async def submit(url: str, number: int) -> None:
    gate = asyncio.Semaphore(32)
    async with aiohttp.ClientSession() as session:

        async def one() -> None:
            async with gate, session.post(f"{url}/v1/workflows/nothing/runs", json={}) as answer:
                assert answer.status == 202

        await asyncio.gather(*(one() for _ in range(number)))


def unfinished(up: Gateway) -> bool:
    return any(up.http.get("/v1/runs", params={"status": s, "limit": 1}).json()["data"] for s in ("queued", "running"))


def cpu_s(tree: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in tree)


def hand_off_ms(up: Gateway) -> float:
    times = []
    for _ in range(20):
        started = time.perf_counter()
        assert up.http.post("/v1/workflow/nothing", json={}).status_code == 200
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


def measure(workers: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        up = Gateway(Path(folder), {"log": {"level": "warning"}})
        try:
            up.serve(workers=workers)
            assert up.http.put("/v1/workflows/nothing", json=WORKFLOW).status_code == 201
            latency = hand_off_ms(up)
            tree = [psutil.Process(pid) for pid in (up.processes[0].pid, *up.worker_pids())]
            before, started = cpu_s(tree), time.monotonic()
            asyncio.run(submit(up.url, RUNS))
            while unfinished(up):
                time.sleep(0.02)
            elapsed = time.monotonic() - started
            return {
                "steps_per_s": round(RUNS * STEPS / elapsed),
                "cpu_s_per_1000_steps": round((cpu_s(tree) - before) * 1000 / (RUNS * STEPS), 2),
                "five_step_run_ms": round(latency, 1),
            }
        finally:
            up.stop()


def floor() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(f"{folder}/floor.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b INTEGER)")
        started, used = time.monotonic(), time.process_time()
        for number in range(RUNS * STEPS * 2):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO t (a, b) VALUES (?, ?)", ("x" * 100, number))
            connection.execute("UPDATE t SET b = b + 1 WHERE id = ?", (number,))
            connection.execute("COMMIT")
        elapsed = time.monotonic() - started
        return {
            "steps_per_s": round(RUNS * STEPS / elapsed),
            "cpu_s_per_1000_steps": round((time.process_time() - used) * 1000 / (RUNS * STEPS), 3),
        }


if __name__ == "__main__":
    print(json.dumps({"one worker": measure(1), "two workers": measure(2), "floor": floor()}))
