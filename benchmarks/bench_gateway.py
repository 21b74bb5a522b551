"""A chat call through the gateway, with ledger, key and budget on, beside a bare FastAPI + aiohttp forwarder that does nothing else.

The leanest forwarder passes bytes on unread; it runs on asyncio's event loop, which the gateway has too, and once more on uvloop. A
third one is as people write and install it: JSON read and written, uvicorn's plain HTTP parser. Same upstream, same client, in turns, many short rounds: CPU a request and a
streamed chunk of the process that serves them, and what it adds to the time until the first byte. Each is the best round's; a
ratio is the median of the rounds' own, whose two sides had the same machine. `--rounds N --quick` make it longer or shorter.
Prints one JSON line.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from gateway import Gateway
from services import free_port, wait_until

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"
CONNECTIONS = 64
PACE_S = 0.01  # between two chunks of a stream
SHORT, LONG = 10, 110  # chunks of a stream; what lies between them is the cost of chunks alone
MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant. Answer in one short sentence."},
    {"role": "user", "content": "What is the capital of France, and how many people live there, about?"},
]


@dataclass
class Served:
    """One way to the upstream. `process` None: the upstream itself."""

    url: str
    headers: dict[str, str] = field(default_factory=dict[str, str])
    process: psutil.Process | None = None

    def cpu_s(self) -> float:
        """Of all threads, to the nanosecond where the system tells it so: a tick of 10 ms is twenty calls."""
        if self.process is None:
            return 0.0
        try:
            threads = Path(f"/proc/{self.process.pid}/task").iterdir()
            return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
        except OSError:
            return sum(self.process.cpu_times()[:2])


@dataclass
class Load:
    """What one round told: CPU of the serving process a request, and milliseconds to the first byte."""

    cpu_ms: float
    first_byte_ms: float


async def ask(session: aiohttp.ClientSession, served: Served, body: Any) -> float:
    started = time.perf_counter()
    async with session.post(f"{served.url}/chat/completions", json=body, headers=served.headers) as answer:
        first = time.perf_counter()
        if body.get("stream"):
            text = await answer.content.readany()
            first = time.perf_counter()
            text += await answer.read()
        else:
            text = await answer.read()
        assert answer.status == 200, text
        assert b"finish_reason" in text, text
    return (first - started) * 1000


async def load(served: Served, *, requests: int, connections: int, chunks: int = 0) -> Load:
    body: dict[str, Any] = {"model": "up/bench", "messages": MESSAGES, "max_tokens": chunks or 100}
    if chunks:
        body |= {"stream": True, "metadata": {"pace_s": str(PACE_S)}}
    left = iter(range(requests))
    times: list[float] = []

    async def one_after_another() -> None:
        for _ in left:
            times.append(await ask(session, served, body))

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(ask(session, served, body) for _ in range(connections)))
        before = served.cpu_s()
        await asyncio.gather(*(one_after_another() for _ in range(connections)))
        used = served.cpu_s() - before
    return Load(used * 1000 / requests, statistics.median(times))


KINDS: dict[str, dict[str, int]] = {
    "plain_64": {"requests": 500, "connections": CONNECTIONS},
    "plain_1": {"requests": 120, "connections": 1},
    "short_64": {"requests": 128, "connections": CONNECTIONS, "chunks": SHORT},
    "long_64": {"requests": 64, "connections": CONNECTIONS, "chunks": LONG},
    "stream_1": {"requests": 10, "connections": 1, "chunks": SHORT},
}
Round = dict[str, dict[str, float]]


def one_round(ways: dict[str, Served]) -> Round:
    """What each way cost, and by how much its first byte was later than the upstream's own."""
    loads = {
        name: {kind: asyncio.run(load(served, **given)) for kind, given in KINDS.items()}
        for name, served in ways.items()
    }
    return {name: told(loads[name], loads["upstream"]) for name in ways if name != "upstream"}


def told(loads: dict[str, Load], upstream: dict[str, Load]) -> dict[str, float]:
    found = {f"cpu_ms_a_request_{kind}": loads[kind].cpu_ms for kind in ("plain_64", "plain_1", "short_64", "stream_1")}
    found["cpu_ms_a_chunk"] = (loads["long_64"].cpu_ms - loads["short_64"].cpu_ms) / (LONG - SHORT)
    for kind in ("plain_1", "stream_1"):
        found[f"first_byte_added_ms_{kind}"] = loads[kind].first_byte_ms - upstream[kind].first_byte_ms
    return found


def best(rounds: list[Round], way: str) -> dict[str, float]:
    """What disturbs on a shared machine only ever adds."""
    return {name: round(min(one[way][name] for one in rounds), 4) for name in rounds[0][way]}


def ratios(rounds: list[Round], floor: str) -> dict[str, float]:
    names = [name for name in rounds[0][floor] if "cpu" in name]
    return {
        name: round(statistics.median(one["gateway"][name] / one[floor][name] for one in rounds), 2) for name in names
    }


@contextmanager
def child(*command: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, *command], text=True, **more)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def product(upstream: str) -> Iterator[Served]:
    """The gateway as it is meant to be run: a key is needed, every call is booked, a budget counts it."""
    provider = {"type": "openai", "base_url": upstream, "api_key": "k", "prices": {"*": {"input": 1, "output": 2}}}
    config = {
        "log": {"level": "warning"},
        "server": {"auth": "required"},
        "providers": {"up": provider},
        "budgets": [{"name": "all", "limit_usd": 1000, "period": "day"}],
    }
    with tempfile.TemporaryDirectory() as folder:
        up = Gateway(Path(folder), config)
        up.environment["AIGATEWAY_SERVER__PORT"] = str(
            up.port
        )  # the key is made here, whoever listens on the usual port
        try:
            up.serve(workers=0)
            key = json.loads(up.run("keys", "create", "bench", "--json").stdout)["key"]
            yield Served(f"{up.url}/v1", {"authorization": f"Bearer {key}"}, psutil.Process(up.processes[0].pid))
        finally:
            up.stop()


@contextmanager
def floor(upstream: str, loop: str, kind: str = "bytes") -> Iterator[Served]:
    port = free_port()
    with child(str(HERE / "gateway_floor.py"), str(port), upstream, loop, kind) as process:
        wait_until(lambda: answers(port), "the floor is up", 20)
        yield Served(f"http://127.0.0.1:{port}/v1", process=psutil.Process(process.pid))


def answers(port: int) -> bool:
    return any(one.laddr.port == port for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=12)
    options.add_argument("--quick", action="store_true", help="three rounds")
    given = options.parse_args()
    with child("-m", "upstreams.fast", stdout=subprocess.PIPE, cwd=TESTS) as process:
        assert process.stdout is not None
        upstream = f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        with (
            product(upstream) as ours,
            floor(upstream, "asyncio") as bare,
            floor(upstream, "uvloop") as fast,
            floor(upstream, "asyncio", "json") as written,
        ):
            floors = {"floor": bare, "floor_uvloop": fast, "floor_plain": written}
            ways = {"gateway": ours, **floors, "upstream": Served(upstream)}
            rounds = [one_round(ways) for _ in range(3 if given.quick else given.rounds)]
    found = {way: best(rounds, way) for way in ("gateway", *floors)}
    print(json.dumps({**found, "ratio": {name: ratios(rounds, name) for name in floors}}))


if __name__ == "__main__":
    main()
