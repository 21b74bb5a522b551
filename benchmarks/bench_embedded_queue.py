"""The embedded queue: bells over Unix datagrams (LocalBroker) against fakeredis over loopback TCP, same Dramatiq worker.

For each: the median time from ring to answer when idle, bells answered a second in a burst, and CPU of the answering process.
"""

import json
import logging
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from dramatiq import Broker, Worker
from services import free_port

from engine.errors import RetryableError
from worker.broker import declare_bells, local_broker, redis_broker

BURST = 2000
SINGLE = 50


def make(kind: str, where: str, *, listen: bool) -> Broker:
    return local_broker(Path(where), listen=listen) if kind == "local" else redis_broker(where)


def answerer(kind: str, where: str, pipe: Connection) -> None:
    broker = make(kind, where, listen=True)
    declare_bells(broker, lambda step_id: pipe.send((step_id, time.monotonic())))
    worker = Worker(broker, worker_threads=4, worker_timeout=50)
    worker.start()
    pipe.send("ready")
    pipe.recv()
    pipe.send(time.process_time())
    worker.stop()


def measure(kind: str, where: str) -> dict[str, float | str]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=answerer, args=(kind, where, theirs))
    process.start()
    try:
        return figures(kind, where, ours)
    except RetryableError as error:
        return {"failed": error.message}
    finally:
        process.kill()
        process.join()


def figures(kind: str, where: str, ours: Connection) -> dict[str, float | str]:
    ours.recv()
    broker = make(kind, where, listen=False)
    ring = declare_bells(broker, lambda _: None)["normal"]
    latencies: list[float] = []
    for number in range(SINGLE):
        time.sleep(0.02)
        rung = time.monotonic()
        ring.send(str(number))
        latencies.append(ours.recv()[1] - rung)
    started = time.monotonic()
    sender = threading.Thread(target=lambda: [ring.send("x") for _ in range(BURST)])
    sender.start()
    got = 0
    while got < BURST and ours.poll(2):
        ours.recv()
        got += 1
    elapsed = time.monotonic() - started
    sender.join()
    ours.send("stop")
    cpu_s = ours.recv()
    return {
        "median_ms": round(statistics.median(latencies) * 1000, 2),
        "bells_per_s": round(got / elapsed),
        "lost": BURST - got,
        "cpu_ms_per_bell": round(cpu_s * 1000 / (BURST + SINGLE), 3),
    }


def fakeredis_server(port: int) -> None:
    from fakeredis import TcpFakeServer  # noqa: PLC0415 - in its own process

    TcpFakeServer(("127.0.0.1", port)).serve_forever()


def main() -> None:
    logging.disable(logging.CRITICAL)  # Dramatiq tells at length what a flaky server does to it
    with tempfile.TemporaryDirectory(prefix="bells-") as folder:
        local = measure("local", folder)
    port = free_port()
    server = multiprocessing.get_context("spawn").Process(target=fakeredis_server, args=(port,), daemon=True)
    server.start()
    time.sleep(3)
    fake = measure("redis", f"redis://127.0.0.1:{port}/0")
    server.kill()
    print(json.dumps({"local": local, "fakeredis": fake}))


if __name__ == "__main__":
    main()
