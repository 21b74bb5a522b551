"""A step that kills whatever process runs it fails with that reason and takes nobody along.

The poison is real: a service that, when it is called, kills the process that called it, while fifty innocent steps are on board there.
"""

import contextlib
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from gateway import Gateway, gateway
from services import wait_until

INNOCENTS = 50
CONFIG: dict[str, Any] = {"webhooks": {"allow_private_networks": True}, "log": {"level": "warning"}}


class Service(ThreadingHTTPServer):
    """`/poison` kills its caller while `deadly`; `/wait` answers once `go` is set."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.go = threading.Event()
        self.deadly = True
        self.killed: list[int] = []
        self.waiting = Counter[str]()  # by name, how often it was asked for
        self.names: dict[int, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def kill(self, caller: tuple[str, int]) -> None:
        """SIGKILL to the process at the other end of the connection."""
        for connection in psutil.net_connections("tcp4"):
            if connection.laddr == caller and connection.pid:
                self.killed.append(connection.pid)
                self.names[connection.pid] = psutil.Process(connection.pid).name()
                os.kill(connection.pid, signal.SIGKILL)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        service = self.server
        assert isinstance(service, Service)
        if self.path == "/poison" and service.deadly:
            service.kill(self.client_address)
            return
        if self.path.startswith("/wait"):
            service.waiting[self.path] += 1
            service.go.wait(60)
        with contextlib.suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        return

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, socket.timeout):
            super().handle()


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.go.set()
            server.shutdown()
            thread.join()


def calling(url: str) -> dict[str, Any]:
    step = {"id": "only", "type": "http", "method": "GET", "url": url, "timeout": "60s", "retry": {"max_attempts": 1}}
    return {"name": "calling", "steps": [step]}


def submit_innocents(up: Gateway, service: Service) -> list[str]:
    """All on board and waiting."""
    runs = [up.submit(calling(f"{service.url}/wait/{number}"), {}) for number in range(INNOCENTS)]
    wait_until(lambda: len(service.waiting) == INNOCENTS, "all are on board", 30)
    return runs


def check_poison(up: Gateway, run_id: str, service: Service) -> None:
    run = up.finished(run_id)
    assert run["status"] == "failed", run
    assert run["error"]["class"] == "worker_lost"
    assert run["error"]["message"].startswith("3 worker processes died while they ran this step, the last one while")
    assert "alone" in run["error"]["message"]
    attempts = up.steps(run_id)["only"]["attempts"]
    assert [attempt["status"] for attempt in attempts] == ["lost"] * 3
    assert [attempt["error"]["class"] for attempt in attempts] == ["worker_lost"] * 3
    assert len(set(service.killed)) == len(service.killed) == 3
    assert [service.names[pid] for pid in service.killed] == ["aigw-worker", "aigw-worker", "aigw-alone"]


def check_innocents(up: Gateway, runs: list[str]) -> None:
    for run_id in runs:
        run = up.finished(run_id, wait_s=60)
        assert run["status"] == "succeeded", run
        assert [each["status"] for each in up.steps(run_id)["only"]["attempts"]][-1] == "succeeded"


def test_a_poison_step_fails_alone_and_fifty_innocents_on_board_succeed(tmp_path: Path, service: Service) -> None:
    with gateway(tmp_path / "home", CONFIG) as up:
        up.serve(workers=1)
        innocents = submit_innocents(up, service)
        poison = up.submit(calling(f"{service.url}/poison"), {})
        wait_until(lambda: len(service.killed) >= 2, "two have died", 20)  # the third may have died meanwhile
        service.go.set()  # or those that run alone now would wait for ever, and the poison behind them
        check_poison(up, poison, service)
        check_innocents(up, innocents)
        witnessed = [len(up.steps(run_id)["only"]["attempts"]) for run_id in innocents]
        assert max(witnessed) >= 3  # they were on board of both, and ran alone

        # A person who asks for it again gets a fresh count.
        service.deadly = False
        assert up.http.post(f"/v1/runs/{poison}/retry").status_code == 202
        assert up.finished(poison)["status"] == "succeeded"
        assert len(up.worker_pids()) == 1 and len(service.killed) == 3


def test_poison_among_several_workers_and_commands_on_redis_and_postgresql(
    tmp_path: Path, service: Service, redis_url: str, postgres_url: str
) -> None:
    environment = {"AIGATEWAY_REDIS_URL": redis_url, "AIGATEWAY_DATABASE_URL": postgres_url}
    with gateway(tmp_path / "home", CONFIG, **environment) as up:
        up.start("api", "--port", str(up.port))
        up.start("worker", "--processes", "2")
        up.start("worker", "--processes", "1")
        up.wait_until_up(3)
        innocents = submit_innocents(up, service)
        poison = up.submit(calling(f"{service.url}/poison"), {})
        wait_until(lambda: len(service.killed) >= 2, "two have died", 20)  # the third may have died meanwhile
        service.go.set()  # or those that run alone now would wait for ever, and the poison behind them
        check_poison(up, poison, service)
        check_innocents(up, innocents)


def test_a_step_alone_whose_whole_command_is_killed_does_not_fail(tmp_path: Path, service: Service) -> None:
    with gateway(tmp_path / "home", CONFIG) as up:
        up.serve(workers=1)
        run_id = up.submit(calling(f"{service.url}/wait/0"), {})
        for number in (1, 2):
            wait_until(lambda number=number: service.waiting["/wait/0"] == number, "it is on board", 20)
            os.kill(up.worker_pids()[0], signal.SIGKILL)
        wait_until(lambda: len(up.pids_named("aigw-alone")) == 1, "it runs alone", 20)
        wait_until(lambda: service.waiting["/wait/0"] == 3, "it runs alone", 20)
        up.processes[0].kill()
        up.processes[0].wait()
        wait_until(lambda: up.pids_named("aigw-alone") == up.worker_pids() == [], "all ended", 10)
        up.serve(workers=1)
        wait_until(lambda: service.waiting["/wait/0"] == 4, "it runs alone again", 20)
        (alone,) = up.pids_named("aigw-alone")
        os.kill(alone, signal.SIGTERM)  # drained, it waits for its step
        service.go.set()
        assert up.finished(run_id)["status"] == "succeeded"
        assert [each["status"] for each in up.steps(run_id)["only"]["attempts"]] == [
            "lost",
            "lost",
            "lost",
            "succeeded",
        ]
