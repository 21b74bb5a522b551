"""The engine under `aigateway serve`, on SQLite and on PostgreSQL, beside the bare cost of the same rows in the same run.

(a) 500 runs of 5 steps that do nothing, submitted over HTTP while the workers work; (b) one run of 5 steps, asked and answered over
HTTP; (c) 1,000 runs of one sleep of a second. CPU is told apart: the API process, the workers, the database's server. What a
submission costs by itself is measured before, with runs that start in a year. Prints one JSON line a database;
arguments choose: `sqlite`, `postgresql`, and `info` or `warning` as log level.
"""

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from engine_floor import bare, floor
from gateway import Gateway
from services import PostgresServer

from engine.store.migrate import upgrade

RUNS, STEPS = 500, 5
SLEEPERS, SLEEP_S = 1000, 1
NOTHING = {
    "name": "nothing",
    "steps": [{"id": f"step{n}", "type": "set", "value": "${run.id}"} for n in range(STEPS)],
}
SLEEP = {"name": "sleep", "steps": [{"id": "rest", "type": "sleep", "duration": f"{SLEEP_S}s"}]}


async def submit(url: str, workflow: str, number: int, body: dict[str, Any]) -> None:
    gate = asyncio.Semaphore(32)
    async with aiohttp.ClientSession() as session:

        async def one() -> None:
            async with gate, session.post(f"{url}/v1/workflows/{workflow}/runs", json=body) as answer:
                assert answer.status == 202, await answer.text()

        await asyncio.gather(*(one() for _ in range(number)))


def wait_for_all(url: str, workflow: str) -> None:
    """Asked of the database: a question over HTTP would be counted as the API's work."""
    execute, close = bare(url)
    query = "SELECT count(*) FROM runs WHERE workflow_name = ? AND finished_us IS NULL"
    while execute(query, (workflow,)).fetchone()[0]:
        time.sleep(0.02)
    close()


class Parts:
    """CPU seconds used so far, by part, and the workers' largest memory."""

    def __init__(self, up: Gateway) -> None:
        self._parts = {
            "api": [psutil.Process(up.processes[0].pid)],
            "workers": [psutil.Process(pid) for pid in up.worker_pids()],
        }
        server = [child for child in psutil.Process().children() if child.name() == "postgres"]
        self._server = server[0] if server else None
        self._before = self._used()

    def _used(self) -> dict[str, float]:
        used = {name: sum(map(_cpu_s, processes)) for name, processes in self._parts.items()}
        if self._server is not None:
            used["server"] = sum(self._server.cpu_times()[:4])  # with those of its processes that have ended
            used["server"] += sum(map(_cpu_s, self._server.children()))
        return used

    def cpu_s(self, per: float) -> dict[str, float]:
        """Since this was made, divided by `per`; `ours` is the sum without the database's server."""
        cpu = {name: (used - self._before[name]) / per for name, used in self._used().items()}
        cpu["ours"] = cpu["api"] + cpu["workers"]
        return {name: round(value, 3) for name, value in cpu.items()}

    def peak_mb(self) -> float:
        """The largest resident set that any worker process had."""
        lines = [Path(f"/proc/{worker.pid}/status").read_text() for worker in self._parts["workers"]]
        return round(max(int(text.partition("VmHWM:")[2].split()[0]) for text in lines) / 1024)


def _cpu_s(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        return sum(process.cpu_times()[:2])
    return 0.0


def submissions(up: Gateway) -> dict[str, Any]:
    parts, started = Parts(up), time.monotonic()
    asyncio.run(submit(up.url, "later", RUNS, {"start_at": "2099-01-01T00:00:00Z"}))
    elapsed = time.monotonic() - started
    return {"per_s": round(RUNS / elapsed), "api_cpu_ms_each": parts.cpu_s(RUNS / 1000)["api"]}


def steps(up: Gateway, url: str) -> dict[str, Any]:
    parts, started = Parts(up), time.monotonic()
    asyncio.run(submit(up.url, "nothing", RUNS, {}))
    wait_for_all(url, "nothing")
    elapsed = time.monotonic() - started
    return {
        "steps_per_s": round(RUNS * STEPS / elapsed),
        "cpu_s_per_1000_steps": parts.cpu_s(RUNS * STEPS / 1000),
        "worker_peak_mb": parts.peak_mb(),
    }


def hand_off_ms(up: Gateway) -> float:
    times: list[float] = []
    for _ in range(30):
        started = time.perf_counter()
        assert up.http.post("/v1/workflow/nothing", json={}).status_code == 200
        times.append((time.perf_counter() - started) * 1000)
    return round(statistics.median(times), 1)


def sleepers(up: Gateway, url: str) -> dict[str, Any]:
    """From the last submission's answer to the last end; the submissions themselves take as long as `submissions` says."""
    parts, begun = Parts(up), time.monotonic()
    asyncio.run(submit(up.url, "sleep", SLEEPERS, {}))
    submitted = time.monotonic()
    wait_for_all(url, "sleep")
    ended = time.monotonic()
    return {
        "all_s": round(ended - begun, 2),
        "behind_the_last_submission_s": round(ended - submitted, 2),
        "cpu_s": parts.cpu_s(1),
        "worker_peak_mb": parts.peak_mb(),
    }


@contextlib.contextmanager
def serving(url: str, workers: int, log_level: str) -> Iterator[Gateway]:
    with tempfile.TemporaryDirectory() as folder:
        up = Gateway(Path(folder), {"log": {"level": log_level}}, AIGATEWAY_DATABASE_URL=url)
        try:
            up.serve(workers=workers)
            for definition in (NOTHING, NOTHING | {"name": "later"}, SLEEP):
                assert up.http.put(f"/v1/workflows/{definition['name']}", json=definition).status_code == 201
            yield up
        finally:
            up.stop()


@contextlib.contextmanager
def databases(kind: str) -> Iterator[Iterator[str]]:
    """As many fresh databases as are asked for."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield (f"sqlite:///{folder}/{number}.db" for number in range(100))
        return
    server = PostgresServer()
    server.start()
    try:
        with contextlib.ExitStack() as stack:
            yield (stack.enter_context(server.database(f"bench{number}")) for number in range(100))
    finally:
        server.stop()


def measure(kind: str, log_level: str) -> dict[str, Any]:
    found: dict[str, Any] = {"database": kind, "log_level": log_level}
    with databases(kind) as fresh:
        for workers in (1, 2):
            url = next(fresh)
            with serving(url, workers, log_level) as up:
                found[f"{workers} workers"] = {
                    "submissions": submissions(up),
                    "five_step_run_ms": hand_off_ms(up),
                    "steps": steps(up, url),
                    "sleepers": sleepers(up, url),
                }
        for joined in (False, True):
            url = next(fresh)
            upgrade(url)
            name = "floor, one transaction a step" if joined else "floor, two transactions a step"
            found[name] = floor(url, RUNS, STEPS, joined=joined)
    return found


def main() -> None:
    kinds = [kind for kind in ("sqlite", "postgresql") if kind in sys.argv] or ["sqlite", "postgresql"]
    log_level = next((level for level in ("warning", "info") if level in sys.argv), "info")
    for kind in kinds:
        print(json.dumps(measure(kind, log_level)), flush=True)


if __name__ == "__main__":
    main()
