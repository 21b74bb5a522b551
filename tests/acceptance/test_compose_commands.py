"""The commands and settings of docker-compose.yml, started as plain processes on a real Redis and a real PostgreSQL."""

import json
import os
import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from services import free_port, wait_until

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
PROGRAM = Path(sys.executable).parent / "aigateway"
STOP_DEADLINE_S = 45
WORKFLOW = """
name: composed
steps:
  - {id: first, type: llm, model: simulated/echo, prompt: "Hello ${input.name}", output: greeting}
  - {id: second, type: llm, model: simulated/echo, prompt: "${greeting}!"}
output: ${steps.second.output}
"""


class Stack:
    """`api` and `worker` as the compose file starts them, with other addresses."""

    def __init__(self, database_url: str, redis_url: str, folder: Path) -> None:
        self.port = free_port()
        self.metrics_port = free_port()
        self._folder = folder
        self._elsewhere = {
            "AIGATEWAY_DATABASE_URL": database_url,
            "AIGATEWAY_REDIS_URL": redis_url,
            "AIGATEWAY_SERVER__HOST": "127.0.0.1",
            "AIGATEWAY_SERVER__PORT": str(self.port),
            "OLLAMA_HOST": f"http://127.0.0.1:{free_port()}",  # nothing listens there
        }
        self._processes: list[psutil.Popen] = []

    def start(self, service: str) -> None:
        """Starts the service's own command in a folder of its own."""
        folder = self._folder / service
        folder.mkdir()
        command = [str(self.metrics_port) if part == "9100" else part for part in SERVICES[service]["command"]]
        with (folder / "log").open("w") as log:
            process = psutil.Popen([str(PROGRAM), *command], cwd=folder, env=self._environment(service), stderr=log)
        self._processes.append(process)

    def _environment(self, service: str) -> dict[str, str]:
        declared = {key: value for key, value in SERVICES[service]["environment"].items() if value is not None}
        as_declared = {"AIGATEWAY_SERVER__AUTH", "AIGATEWAY_WORKER__METRICS_HOST"}
        assert set(declared) - set(self._elsewhere) <= as_declared, "a setting this test does not move"
        moved = {key: self._elsewhere.get(key, value) for key, value in declared.items()}
        return {"PATH": os.environ["PATH"], "HOME": str(self._folder), **moved}

    def get(self, path: str) -> dict[str, Any]:
        """A JSON answer. Raises: HTTPError."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return json.load(answer)

    def send(self, method: str, path: str, body: str, content_type: str) -> dict[str, Any]:
        """The same, with a body."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body.encode(), method=method)
        request.add_header("Content-Type", content_type)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def is_ready(self) -> bool:
        """Whether /ready is 200 and both worker processes live."""
        assert all(process.poll() is None for process in self._processes), self.logs()
        try:
            return int(self.get("/ready")["workers"]) >= 2
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def logs(self) -> str:
        """What the services wrote."""
        return "\n".join(path.read_text()[-3000:] for path in self._folder.glob("*/log"))

    def stop(self) -> list[psutil.Process]:
        """SIGTERM, as compose does it. What is still there after the grace is killed and returned."""
        family = list(self._processes)
        for process in self._processes:
            if process.is_running():
                family += process.children(recursive=True)
                process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(family, timeout=STOP_DEADLINE_S)
        for process in left:
            process.kill()
        return left


@pytest.fixture
def stack(empty_postgres_url: str, redis_url: str, tmp_path: Path) -> Iterator[Stack]:
    """Both services started together, on a database that neither has seen."""
    started = Stack(empty_postgres_url, redis_url, tmp_path)
    try:
        started.start("api")
        started.start("worker")
        yield started
    finally:
        started.stop()


def test_a_run_finishes_on_what_compose_starts(stack: Stack) -> None:
    wait_until(stack.is_ready, "the services were not ready", deadline_s=60)
    stack.send("PUT", "/v1/workflows/composed", WORKFLOW, "application/yaml")
    accepted = stack.send("POST", "/v1/workflows/composed/runs", '{"input": {"name": "you"}}', "application/json")
    run = stack.get(f"/v1/runs/{accepted['id']}?wait=60")
    assert (run["status"], run["output"]) == ("succeeded", "Hello you!"), stack.logs()
    # Not the address that a worker listens on by itself: Prometheus asks from another container.
    with urllib.request.urlopen(f"http://127.0.0.2:{stack.metrics_port}/metrics", timeout=10) as answer:
        assert b"# TYPE" in answer.read()
    assert stack.stop() == [], "outlived SIGTERM"


def test_health_checks_ask_what_the_services_answer() -> None:
    asked = {
        name: re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", str(SERVICES[name]["healthcheck"])) for name in SERVICES
    }
    assert asked["api"] == [("8080", "/ready")]
    assert asked["worker"] == [(SERVICES["worker"]["command"][-1], "/metrics")]
