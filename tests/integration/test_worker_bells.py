"""Bells: between processes over sockets and over Redis, and what becomes of them when nobody listens or Redis is away."""

import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dramatiq import Broker, Worker
from services import RedisServer, wait_until

from engine.errors import RetryableError
from worker.broker import BrokerDoorbell, declare_bells, local_broker, redis_broker

ROOT = Path(__file__).parents[2]
LISTEN = """
import os, sys
from pathlib import Path
from dramatiq import Worker
from worker.broker import declare_bells, local_broker, redis_broker
kind, where = sys.argv[1:]
broker = local_broker(Path(where), listen=True) if kind == "local" else redis_broker(where)
declare_bells(broker, lambda step_id: os.write(1, f"{step_id}\\n".encode()))
worker = Worker(broker, worker_threads=2, worker_timeout=50)
worker.start()
print("listening", flush=True)
sys.stdin.read()
worker.stop(2000)
broker.close()
"""


class Listener:
    """A process that prints the bells it gets."""

    def __init__(self, kind: str, where: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", LISTEN, kind, where],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "listening\n"

    def kill(self) -> list[str]:
        """What it had heard before it was killed."""
        self._process.kill()
        return self._rest()

    def end(self) -> list[str]:
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._rest()

    def _rest(self) -> list[str]:
        with self._process:
            assert self._process.stdout is not None
            return self._process.stdout.read().split()

    def hear(self, number: int) -> list[str]:
        assert self._process.stdout is not None
        return [self._process.stdout.readline().strip() for _ in range(number)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, as a socket's path has to be."""
    path = Path(tempfile.mkdtemp(prefix="bells-"))
    yield path
    shutil.rmtree(path)


def doorbell_of(broker: Broker) -> BrokerDoorbell:
    return BrokerDoorbell(broker, declare_bells(broker, lambda step_id: None))


def test_local_bells_reach_each_of_two_processes_in_turn(folder: Path) -> None:
    listeners = [Listener("local", str(folder)) for _ in range(2)]
    broker = local_broker(folder, listen=False)
    doorbell = doorbell_of(broker)
    doorbell.check()
    for number in range(20):
        doorbell.ring(f"step-{number}", ("low", "normal", "high")[number % 3])
    heard = [listener.hear(10) for listener in listeners]
    assert sorted(heard[0] + heard[1]) == sorted(f"step-{number}" for number in range(20))
    doorbell.close()
    broker.close()
    assert [listener.end() for listener in listeners] == [[], []]
    assert list(folder.iterdir()) == []


def test_a_killed_process_gets_no_more_bells_and_the_other_all(folder: Path) -> None:
    dead, living = Listener("local", str(folder)), Listener("local", str(folder))
    dead.kill()
    assert len(list(folder.glob("*.bell"))) == 2
    broker = local_broker(folder, listen=False)
    doorbell = doorbell_of(broker)
    for number in range(10):
        doorbell.ring(f"step-{number}", "normal")
    assert sorted(living.hear(10)) == sorted(f"step-{number}" for number in range(10))
    assert len(list(folder.glob("*.bell"))) == 1
    doorbell.close()
    broker.close()
    living.end()


def test_a_bell_that_nobody_hears_is_lost_and_hurts_nobody(folder: Path) -> None:
    broker = local_broker(folder, listen=False)
    doorbell = doorbell_of(broker)
    doorbell.ring("nobody", "high")
    doorbell.close()
    broker.close()


def test_a_process_that_does_not_read_delays_a_bell_only_so_long(folder: Path) -> None:
    """Its socket's buffer fills; further bells go to the next, or are lost."""
    deaf = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.bind(str(folder / "1.bell"))
    listener = Listener("local", str(folder))
    broker = local_broker(folder, listen=False)
    doorbell = doorbell_of(broker)
    for number in range(60):
        doorbell.ring(f"step-{number}", "normal")
    doorbell.ring("last", "normal")
    doorbell.ring("last", "normal")
    heard: list[str] = []
    while "last" not in heard:
        heard += listener.hear(1)
    assert len(heard) > 31
    doorbell.close()
    broker.close()
    deaf.close()
    listener.end()


def test_redis_bells_reach_another_process_whatever_their_priority(redis_url: str) -> None:
    listener = Listener("redis", redis_url)
    broker = redis_broker(redis_url)
    doorbell = doorbell_of(broker)
    doorbell.check()
    for number in range(9):
        doorbell.ring(f"step-{number}", ("low", "normal", "high")[number % 3])
    assert sorted(listener.hear(9)) == [f"step-{number}" for number in range(9)]
    doorbell.close()
    listener.end()
    broker.close()


@pytest.mark.parametrize("kind", ["local", "redis"])
def test_bells_are_answered_by_priority_whatever_was_rung_before(kind: str, folder: Path, redis_url: str) -> None:
    """A process that is full while a flood is rung: but for what its threads hold already, order is kept. From Redis it has fetched only
    some of each class: of such short steps single less urgent ones may come through while it fetches on.
    """
    broker = local_broker(folder, listen=True) if kind == "local" else redis_broker(redis_url)
    gate, answered = threading.Event(), list[str]()

    def answer(step_id: str) -> None:
        gate.wait(20)
        answered.append(step_id)
        time.sleep(
            0.005
        )  # as long as a very short step keeps its slot: bells are fetched faster than they are answered

    doorbell = BrokerDoorbell(broker, declare_bells(broker, answer))
    worker = Worker(broker, worker_threads=4, worker_timeout=20)
    worker.start()
    for priority, number in (("low", 100), ("normal", 300), ("high", 5)):
        for _ in range(number):
            doorbell.ring(priority, priority)
    doorbell.close()  # all are rung
    try:
        wait_until(lambda: worker.work_queue.qsize() >= (401 if kind == "local" else 17), "the bells are there", 10)
        gate.set()
        wait_until(lambda: len(answered) == 405, "all are answered", 20)
    finally:
        gate.set()
        worker.stop(2000)
        broker.close()
    assert "high" not in answered[5 + 4 :]
    assert answered[:150].count("low") <= (4 if kind == "local" else 20)


def test_without_redis_ringing_neither_blocks_nor_raises_and_it_works_again_afterwards(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = redis_broker(own_redis.url)
    doorbell = doorbell_of(broker)
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()
    listening = redis_broker(own_redis.url)
    declare_bells(listening, heard.put)
    worker = Worker(listening, worker_threads=1, worker_timeout=50)
    worker.start()
    try:
        own_redis.kill()
        with pytest.raises(RetryableError, match="redis cannot be reached"):
            doorbell.check()
        began = time.monotonic()
        for number in range(12_000):  # more than it keeps
            doorbell.ring(f"lost-{number}", "normal")
        assert time.monotonic() - began < 5
        own_redis.start()
        doorbell.check()
        wait_until(lambda: not heard.empty(), "no bell was heard after Redis came back", 20)
        assert [record for record in caplog.records if record.name.startswith("dramatiq") and record.levelno > 20] == []
        told = capsys.readouterr().out
        assert (told.count("redis is away"), told.count("redis is back")) == (1, 1)  # three queues, one line
    finally:  # its threads would go on beside the tests that follow
        doorbell.close()
        worker.stop(2000)
        broker.close()
        listening.close()


def test_closing_a_doorbell_without_redis_takes_no_longer_than_its_time(own_redis: RedisServer) -> None:
    broker = redis_broker(own_redis.url)
    doorbell = doorbell_of(broker)
    own_redis.kill()
    for number in range(11_000):
        doorbell.ring(f"lost-{number}", "normal")
    began = time.monotonic()
    doorbell.close()
    assert time.monotonic() - began < 5
    broker.close()
