"""`aigateway demo`: a real server in a temporary folder runs the shipped research workflow, and one of its workers is killed.

The server, the queue, the workers, the database and the MCP server are the real ones, in processes of their own; only the
models are simulated. Reads no configuration and no key of the user, needs no network, and leaves nothing behind.
"""

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aigateway.client import Client, path
from aigateway.config_environment import STANDARD_PROVIDERS
from aigateway.demo_proof import Evidence, Kill
from aigateway.demo_script import (
    DATABASE_FILE,
    KILLED_STEP,
    MCP_SERVER,
    TOPIC,
    WORKERS,
    WORKFLOW,
    Pace,
    write_configuration,
)
from aigateway.demo_view import Narrator
from aigateway.embedded import embedded_server
from aigateway.settings import ServerAddress, process_environment
from aigateway.timeline import money
from engine.clock import now_us
from engine.errors import AIGatewayError, FatalError, RetryableError
from engine.states import RUN_ENDED

Json = dict[str, Any]
_LIMIT_S = 60.0
_LOOK_AGAIN_S = 0.05
_LAST_WORDS = 1000
_FOREIGN = ("AIGATEWAY_", "OTEL_")


def play(pace: Pace, narrator: Narrator) -> Evidence:
    """The whole story, from the first process to the last; the evidence is for `demo_proof`.

    Raises: FatalError(demo_failed) where it could not be told to its end.
    """
    narrator.head(
        f"aigateway demo: {WORKFLOW} runs, and a worker is killed on the way",
        "SIMULATED models: scripted replies, delays and prices. All other parts are real.",
    )
    with tempfile.TemporaryDirectory(prefix="agw-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with _failing_with_last_words(folder / "log"), _server(folder, pace) as client:
            return _Play(client, folder, pace, narrator).run()


@contextmanager
def _server(folder: Path, pace: Pace) -> Generator[Client]:
    config = write_configuration(folder, pace)
    environment = {name: value for name, value in process_environment().items() if not _is_foreign(name)}
    environment["TMPDIR"] = str(folder)  # sockets and locks of killed processes go with it
    arguments = ["--config", str(config), "--workers", str(WORKERS)]
    with (
        embedded_server(arguments, environment=environment, folder=folder, log=folder / "log") as url,
        Client(ServerAddress(url=url, api_key=None, given=True)) as client,
    ):
        yield client


def _is_foreign(variable: str) -> bool:
    """Whether it would bring the user's own settings and keys onto the stage."""
    return variable.startswith(_FOREIGN) or variable in {known.variable for known in STANDARD_PROVIDERS.values()}


@contextmanager
def _failing_with_last_words(log: Path) -> Generator[None]:
    try:
        yield
    except AIGatewayError as error:
        words = log.read_text(errors="replace")[-_LAST_WORDS:].strip() if log.exists() else ""
        told = f"; its server said: {words}" if words else ""
        raise FatalError("demo_failed", f"the demo broke off: {error.message}{told}") from error


class _Play:
    """One run, watched from its submission to its end."""

    def __init__(self, client: Client, folder: Path, pace: Pace, narrator: Narrator) -> None:
        self._client = client
        self._database_url = f"sqlite:///{folder / DATABASE_FILE}"
        self._pace = pace
        self._narrator = narrator
        self._told: set[str] = set()
        self._pids: dict[str, int] = {}

    def run(self) -> Evidence:
        """Raises: FatalError, RetryableError."""
        self._narrator.say(f"server up in a temporary folder: API, queue, SQLite, {WORKERS} workers")
        run_id = self._client.post(path("workflows", WORKFLOW, "runs"), {"input": {"topic": TOPIC}})["id"]
        self._narrator.say(f"run accepted: “{TOPIC}”")
        try:
            with self._narrator.on_stage():
                kill = self._kill(run_id)
                run, steps = self._watch(run_id, lambda run, _: run["status"] in RUN_ENDED)
        except KeyboardInterrupt:
            with contextlib.suppress(AIGatewayError):
                self._client.post(path("runs", run_id, "cancel"))  # or its workers would finish the step first
            raise
        self._narrator.say(f"the run {run['status']}")
        calls = self._client.get(path("requests"), {"run": run_id, "limit": 200})["data"]
        return Evidence(run, steps, calls, kill, self._pids)

    def _kill(self, run_id: str) -> Kill:
        """SIGKILL to the worker that waits for the report's model, once there is another one to take it over."""
        self._watch(
            run_id, lambda run, _: run["status"] in RUN_ENDED or self._client.get("/ready")["workers"] >= WORKERS
        )
        self._pids |= _worker_pids(self._database_url)
        run, steps = self._watch(run_id, lambda run, steps: run["status"] in RUN_ENDED or _call_in_flight(steps))
        if run["status"] in RUN_ENDED:
            why = f": {run['error']['step']}: {run['error']['message']}" if run["error"] else ""
            raise FatalError("run_ended", f"the run {run['status']} before a worker could be killed{why}")
        attempt = _step(steps, KILLED_STEP)["attempts"][-1]
        worker = attempt["worker"]
        pid = self._pid(worker)
        self._narrator.say(f"{KILLED_STEP}: worker {pid} has sent the call and waits for the answer")
        until = time.monotonic() + self._pace.kill_after_s
        self._watch(run_id, lambda _run, _steps: time.monotonic() >= until)
        os.kill(pid, signal.SIGKILL)
        at = datetime.now(UTC)
        self._narrator.say(f"SIGKILL to worker {pid}, in the middle of the {KILLED_STEP}", loud=True)
        return Kill(KILLED_STEP, attempt["number"], worker, pid, at)

    def _watch(self, run_id: str, reached: Callable[[Json, list[Json]], bool]) -> tuple[Json, list[Json]]:
        """Run and steps as soon as `reached`. Raises: RetryableError(too_slow)."""
        deadline = time.monotonic() + _LIMIT_S
        while time.monotonic() < deadline:
            run = self._client.get(path("runs", run_id))
            steps: list[Json] = self._client.get_all(path("runs", run_id, "steps"))["data"]
            self._tell(steps)
            self._narrator.show(run, steps)
            if reached(run, steps):
                return run, steps
            time.sleep(_LOOK_AGAIN_S)
        raise RetryableError("too_slow", f"the run did not get on for {_LIMIT_S:.0f} s")

    def _tell(self, steps: list[Json]) -> None:
        """What has changed since the last look, each thing once."""
        for step in steps:
            lines = {f"{step['id']} ended": _ending(step)} if step["status"] == "succeeded" else {}
            for attempt in step["attempts"][1:]:
                lines[f"{step['id']} {attempt['number']}"] = self._takeover(step, attempt)
            for key, line in reversed(lines.items()):
                if key not in self._told:
                    self._told.add(key)
                    self._narrator.say(line)

    def _takeover(self, step: Json, attempt: Json) -> str:
        pid = self._pid(attempt["worker"])
        return f"{step['id']}: worker {pid} takes it over and sends the call again: attempt {attempt['number']}"

    def _pid(self, worker: str) -> int:
        """Raises: FatalError(no_such_worker)."""
        if worker not in self._pids:  # started in the place of a killed one
            self._pids |= _worker_pids(self._database_url)
        if worker not in self._pids:
            raise FatalError("no_such_worker", f"nobody knows the process of worker {worker}")
        return self._pids[worker]


def _call_in_flight(steps: list[Json]) -> bool:
    """Whether the report's first call is on its way: its intent is durable, its outcome is not there."""
    attempts = _step(steps, KILLED_STEP)["attempts"]
    return bool(attempts) and [call["status"] for call in attempts[-1]["calls"]] == ["started"]


def _step(steps: list[Json], name: str) -> Json:
    return next(step for step in steps if step["id"] == name)


def _ending(step: Json) -> str:
    if step["type"] == "mcp_tool":
        return f"{step['id']}: {len(step['output'])} documents found by MCP server `{MCP_SERVER}` (local files)"
    return f"{step['id']}: answered by {step['model']}, {step['tokens']:,} tokens, {money(step['cost_usd'])}"


def _worker_pids(database_url: str) -> dict[str, int]:
    """Process ids of the living, by worker id."""
    from engine.store.database import Database  # noqa: PLC0415 - 0.6 s, paid for while the server is at work
    from engine.store.workers import live_workers  # noqa: PLC0415 - the same

    database = Database(database_url, readers=1)
    try:
        rows = asyncio.run(database.read(lambda tx: live_workers(tx, now_us())))
    finally:
        database.close()
    return {row["id"]: row["pid"] for row in rows}
