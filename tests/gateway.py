"""The product as its users have it: real `aigateway` processes in an empty folder, talked to over HTTP and nothing else."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
from services import ServiceError, free_port, wait_until

START_DEADLINE_S = 30.0


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without anything that configures a gateway."""
    names = ("AIGATEWAY_", "OPENAI_", "ANTHROPIC_", "OLLAMA_", "GEMINI_", "OPENROUTER_", "OTEL_")
    # A port that nothing listens on: no test may find an Ollama that happens to run here.
    return {k: v for k, v in os.environ.items() if not k.startswith(names)} | {"OLLAMA_HOST": "127.0.0.1:9"} | more


class Gateway:
    """One installation: a folder with its configuration and the processes started in it."""

    def __init__(self, folder: Path, config: Mapping[str, Any] | None = None, **environment: str) -> None:
        self.folder = folder
        self.environment = clean_environment(**environment)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx2.Client(base_url=self.url, timeout=60, trust_env=False)
        self.processes: list[subprocess.Popen[bytes]] = []
        if config is not None:
            (folder / "aigateway.yaml").write_text(json.dumps(config))

    def start(self, *arguments: str, open_files: int | None = None) -> subprocess.Popen[bytes]:
        """Start `aigateway ARGUMENTS` in the folder, with its output in a file; `open_files`: how many it may have, unless it asks."""
        log = (self.folder / f"{arguments[0]}-{len(self.processes)}.log").open("wb")
        command = [sys.executable, "-P", "-m", "aigateway", *arguments]
        process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT)
        if open_files is not None:
            _, most = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (open_files, most))
        log.close()
        self.processes.append(process)
        return process

    def run(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        command = [sys.executable, "-P", "-m", "aigateway", *arguments]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def serve(self, *, workers: int = 1) -> None:
        """`aigateway serve`, up and with its workers."""
        self.start("serve", "--port", str(self.port), "--workers", str(workers))
        self.wait_until_up(workers)

    def wait_until_up(self, workers: int) -> None:
        """Return when /ready says so."""
        try:
            wait_until(lambda: self.ready_workers() >= workers, "the gateway is up", START_DEADLINE_S)
        except ServiceError as error:
            raise ServiceError(f"{error}\n{self.logs()}") from error

    def ready_workers(self) -> int:
        """Living worker processes, -1 where nothing answers."""
        with contextlib.suppress(httpx2.HTTPError):
            answer = self.http.get("/ready")
            if answer.status_code == 200:
                return int(answer.json()["workers"])
        return -1

    def logs(self) -> str:
        """What all processes printed."""
        return "\n".join(path.read_text(errors="replace")[-4000:] for path in sorted(self.folder.glob("*.log")))

    def submit(self, workflow: str | dict[str, Any], run_input: Any, **body: Any) -> str:
        """Start a run; its id."""
        answer = self.http.post("/v1/runs", json={"workflow": workflow, "input": run_input, **body})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def finished(self, run_id: str, *, wait_s: int = 30) -> dict[str, Any]:
        """The run once it has ended."""
        run = self.http.get(f"/v1/runs/{run_id}", params={"wait": wait_s}).json()
        assert run["status"] in ("succeeded", "failed", "cancelled"), (run, self.logs())
        return run

    def steps(self, run_id: str) -> dict[str, dict[str, Any]]:
        """The run's steps by id."""
        page: dict[str, Any] = {"next_cursor": None}
        steps: dict[str, dict[str, Any]] = {}
        while not steps or page["next_cursor"] is not None:
            asked = {"limit": 200} | ({} if page["next_cursor"] is None else {"cursor": page["next_cursor"]})
            page = self.http.get(f"/v1/runs/{run_id}/steps", params=asked).json()
            steps |= {step["id"]: step for step in page["data"]}
            if not page["data"]:
                break
        return steps

    def worker_pids(self) -> list[int]:
        """The living worker processes of this installation."""
        return self.pids_named("aigw-worker")

    def pids_named(self, name: str) -> list[int]:
        """Found by their folder: a worker whose template died is nobody's descendant any more."""
        pids: list[int] = []
        for process in psutil.process_iter(["name"]):
            with contextlib.suppress(psutil.Error):
                if process.info["name"] == name and process.cwd() == str(self.folder.resolve()):
                    pids.append(process.pid)
        return pids

    def stop(self) -> None:
        """SIGTERM to all, and see that nothing is left of them."""
        family = [child for process in self.processes for child in _family(process.pid)]
        family += [psutil.Process(pid) for pid in self.worker_pids() if pid not in {one.pid for one in family}]
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self.http.close()
        _, left = psutil.wait_procs(family, timeout=10)
        for orphan in left:
            orphan.kill()
        assert not left, f"processes were left behind: {left}"


def _family(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


@contextmanager
def gateway(folder: Path, config: Mapping[str, Any] | None = None, **environment: str) -> Iterator[Gateway]:
    """A gateway that is stopped at the end, whatever happens."""
    folder.mkdir(parents=True, exist_ok=True)
    installed = Gateway(folder, config, **environment)
    try:
        yield installed
    finally:
        installed.stop()
