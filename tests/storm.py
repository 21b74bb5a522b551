"""An installation under fire: what may strike it, and clients that come back when their server died.

The seed decides which strikes come, and in which order.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from gateway import Gateway, gateway
from services import PostgresServer, RedisServer

LEASE_S = 8


@dataclass
class Storm:
    """One installation under fire. `strikes` are what may happen to it."""

    up: Gateway
    redis: RedisServer
    chance: random.Random
    postgres: PostgresServer | None = None
    stopping: threading.Event = field(default_factory=threading.Event)
    struck: Counter[str] = field(default_factory=Counter[str])

    def start(self) -> None:
        self.start_api()
        self.start_workers()
        self.up.wait_until_up(1)

    def start_api(self) -> None:
        self.api = self.up.start("api", "--port", str(self.up.port))

    def start_workers(self) -> None:
        self.workers = self.up.start("worker", "--processes", "2", "--concurrency", "32")

    def rage(self) -> None:
        """Strike every second or so until told to stop; then mend what is broken."""
        while not self.stopping.wait(self.chance.uniform(0.4, 1.5)):
            strike = self.chance.choice(self.strikes())
            self.struck[strike.__name__] += 1
            strike()

    @contextmanager
    def raging(self) -> Generator[None]:
        """Strikes from another thread for as long as this lasts."""
        thread = threading.Thread(target=self.rage)
        thread.start()
        try:
            yield
        finally:
            self.stopping.set()
            thread.join()

    def settle(self) -> None:
        """Once more from this thread: servers end with the thread that started them."""
        self.restart_redis()
        if self.postgres:
            self.restart_postgres()

    def strikes(self) -> list[Callable[[], None]]:
        often = [self.kill_worker] * 4 + [self.kill_api, self.flush_redis, self.restart_redis, self.pause_worker]
        often += [self.kill_template, self.kill_worker_command]
        return often + ([self.restart_postgres] if self.postgres else [])

    def kill_worker(self) -> None:
        """Never the process of a suspect by itself: that is the one death for which a step fails, as promised."""
        if pids := self.up.worker_pids():
            signal_safely(self.chance.choice(pids), signal.SIGKILL)

    def kill_template(self) -> None:
        for pid in self.up.pids_named("aigw-template"):
            signal_safely(pid, signal.SIGKILL)

    def kill_worker_command(self) -> None:
        """With its workers and the processes of suspects: no step may fail for that."""
        self.workers.kill()
        self.workers.wait()
        self.start_workers()

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


def wait_for_all(up: Gateway, ids: Collection[str]) -> None:
    """Nothing may be stuck for longer than three leases without anything else getting on."""
    left, moved = set(ids), time.monotonic()
    while left:
        ended = {
            run_id
            for run_id in sorted(left)[:50]
            if asked(up, "GET", f"/v1/runs/{run_id}")["status"] in ("succeeded", "failed", "cancelled")
        }
        left -= ended
        moved = time.monotonic() if ended else moved
        assert time.monotonic() - moved < 3 * LEASE_S + 30, (len(left), state_of(up, min(left)), up.logs())
        time.sleep(0.2)


def state_of(up: Gateway, run_id: str) -> dict[str, Any]:
    """What a run that does not end looks like."""
    steps = asked(up, "GET", f"/v1/runs/{run_id}/steps?limit=200")["data"]
    events = asked(up, "GET", f"/v1/runs/{run_id}/events")["data"]
    open_steps = [step for step in steps if step["status"] not in ("succeeded", "failed", "skipped", "cancelled")]
    return {"run": asked(up, "GET", f"/v1/runs/{run_id}"), "open": open_steps, "events": events[-12:]}


def installation(tmp_path: Path, provider: dict[str, Any], redis: RedisServer, url: str) -> Any:
    config = {
        "providers": {"up": provider},
        "webhooks": {"allow_private_networks": True},
        "log": {"level": "error"},
    }
    environment = {"AIGATEWAY_REDIS_URL": redis.url, "AIGATEWAY_DATABASE_URL": url}
    return gateway(tmp_path / "home", config, **environment)
