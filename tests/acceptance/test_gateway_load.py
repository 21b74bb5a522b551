"""One gateway process under load: many streams at once, readers that do not read, and what it holds when all of it is over."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import psutil
import pytest
from gateway import Gateway, gateway
from services import wait_until
from upstreams.fast import FastUpstream

MB = 2**20
STREAMS = 500
ROUTE = "/v1/chat/completions"
SAY = {"model": "up/fast", "messages": [{"role": "user", "content": "hello"}]}


class Loaded:
    """The gateway, its upstream, and what its API process holds."""

    def __init__(self, installed: Gateway, upstream: FastUpstream) -> None:
        self.gateway = installed
        self.upstream = upstream
        self.process = psutil.Process(installed.processes[0].pid)

    @property
    def memory(self) -> int:
        """Its own share of memory, in bytes."""
        return int(self.process.memory_full_info().pss)

    @property
    def tasks(self) -> int:
        """Tasks on its event loop, while nothing but this question is asked."""
        lines = self.gateway.http.get("/metrics").text.splitlines()
        return int(float(next(line.split()[1] for line in lines if line.startswith("aigateway_tasks "))))

    def calls(self, **filters: str) -> int:
        rows = self.gateway.http.get("/v1/requests", params={"limit": 200, **filters}).json()["data"]
        return len(rows)

    def booked(self) -> int:
        spend = self.gateway.http.get("/v1/spend", params={"group_by": "provider"}).json()["data"]
        return sum(row["calls"] for row in spend)

    def wait_until_quiet(self) -> None:
        """Nothing is under way any more, upstream or in the ledger."""
        wait_until(lambda: self.upstream.open == 0 and self.calls(status="started") == 0, "all is over", 30)

    def ask(self, **body: Any) -> socket.socket:
        """A request sent by hand; nothing of its answer is read."""
        raw = json.dumps(SAY | body).encode()
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        connection.connect(("127.0.0.1", self.gateway.port))
        head = f"POST {ROUTE} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(raw)}\r\nconnection: close\r\n\r\n"
        connection.sendall(head.encode() + raw)
        return connection


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    with FastUpstream() as upstream:
        provider = {"type": "openai", "base_url": upstream.base_url, "prices": {"*": {"input": 1, "output": 2}}}
        config = {
            "log": {"level": "warning"},
            "server": {"metrics": "open"},
            "providers": {"up": provider},
            "budgets": [{"name": "all", "limit_usd": 1000, "period": "day"}],
        }
        with gateway(tmp_path_factory.mktemp("home"), config) as installed:
            # A shell often allows 1,024 open files, macOS 256; 500 streams need two each.
            installed.start("serve", "--port", str(installed.port), "--workers", "0", open_files=256)
            installed.wait_until_up(0)
            yield Loaded(installed, upstream)


def test_five_hundred_streams_at_once_all_end_right(up: Loaded) -> None:
    before = up.booked()
    ended = asyncio.run(all_streams(up))
    assert ended == STREAMS
    up.wait_until_quiet()
    assert up.booked() - before == STREAMS
    assert up.calls(status="failed") == 0


async def all_streams(up: Loaded) -> int:
    """How many streams were whole, all of them open at the same time."""
    body = SAY | {"stream": True, "max_tokens": 20, "metadata": {"pace_s": "0.3"}}
    all_open = asyncio.Event()

    async def one(session: aiohttp.ClientSession) -> bool:
        async with session.post(up.gateway.url + ROUTE, json=body) as answer:
            assert answer.status == 200
            text = await answer.content.readany()
            if up.upstream.open == STREAMS:
                all_open.set()
            text += await answer.read()
        assert text.count(b'"content":"wwww "') == 20, text[-1000:]
        return text.endswith(b"data: [DONE]\n\n") and text.count(b'"finish_reason":"stop"') == 1

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(120)
    ) as session:
        whole = await asyncio.gather(*(one(session) for _ in range(STREAMS)))
    assert all_open.is_set(), "they were never open all at once"
    return sum(whole)


def test_a_reader_that_does_not_read_holds_its_upstream_up_and_costs_no_memory(up: Loaded) -> None:
    chunks, size = 1024, 64 * 1024
    quiet = up.memory
    sent = up.upstream.sent_bytes
    with up.ask(stream=True, max_tokens=chunks, metadata={"size": str(size)}) as connection:
        wait_until(lambda: up.upstream.sent_bytes > sent + MB, "the stream is under way", 30)
        wait_until(lambda: not grows(lambda: up.upstream.sent_bytes), "the upstream has to wait", 30)
        assert up.upstream.sent_bytes - sent < chunks * size / 2
        assert up.memory - quiet < 16 * MB
        received, last = 0, b""
        while piece := connection.recv(MB):
            received += len(piece)
            last = (last + piece)[-200:]
        assert received > chunks * size
        assert b"data: [DONE]" in last
    up.wait_until_quiet()
    assert up.memory - quiet < 16 * MB


def grows(figure: Any) -> bool:
    """Whether it changes within half a second."""
    before = figure()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        if figure() != before:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("reads", [True, False], ids=["reading", "stuck"])
def test_a_client_that_leaves_frees_its_upstream_within_a_second(up: Loaded, reads: bool) -> None:
    """Also one that had stopped reading, so that the gateway is waiting to write to it."""
    left, sent = up.upstream.left, up.upstream.sent_bytes
    with up.ask(
        stream=True, max_tokens=4096, metadata={"size": str(64 * 1024) if not reads else "5", "pace_s": "0.01"}
    ) as connection:
        if reads:
            assert connection.recv(4096)
        wait_until(lambda: up.upstream.open == 1, "the stream is open", 10)
        if not reads:
            wait_until(lambda: up.upstream.sent_bytes > sent + MB, "the stream is under way", 30)
            wait_until(lambda: not grows(lambda: up.upstream.sent_bytes), "the upstream has to wait", 30)
    wait_until(lambda: up.upstream.left == left + 1, "the upstream call is ended", 1.0)
    up.wait_until_quiet()
    (row,) = up.gateway.http.get("/v1/requests", params={"limit": 1}).json()["data"]
    assert (row["success"], row["error_class"], row["cost_source"]) == (False, "cancelled", "estimated")


@pytest.mark.parametrize(
    ("requests", "aborted"), [(2_000, 200), pytest.param(20_000, 2_000, marks=pytest.mark.chaos)], ids=["short", "long"]
)
def test_what_has_been_served_leaves_nothing_behind(up: Loaded, requests: int, aborted: int) -> None:
    asyncio.run(traffic(up, 64, 16))  # connections, caches and pools are there
    up.wait_until_quiet()
    files, tasks = up.process.num_fds(), up.tasks
    first = min(requests // 4, 2_000)
    asyncio.run(traffic(up, first, aborted * first // requests))
    up.wait_until_quiet()
    memory = up.memory
    asyncio.run(traffic(up, requests - first, aborted - aborted * first // requests))
    up.wait_until_quiet()
    assert up.memory <= memory * 1.10
    wait_until(lambda: up.process.num_fds() <= files, "all files are closed", 30)
    assert up.tasks <= tasks


async def traffic(up: Loaded, requests: int, aborted: int) -> None:
    """Plain calls, 32 at a time, and streams that are left after their first words."""
    url = up.gateway.url + ROUTE
    work = iter(sorted(range(requests + aborted), key=lambda number: number * 7919 % 1000))

    async def one_after_another(session: aiohttp.ClientSession) -> None:
        for number in work:
            if number < requests:
                async with session.post(url, json=SAY) as answer:
                    assert answer.status == 200
                    await answer.read()
            else:
                body = SAY | {"stream": True, "max_tokens": 1000, "metadata": {"pace_s": "0.02"}}
                async with session.post(url, json=body) as answer:
                    await answer.content.readany()
                    answer.close()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(one_after_another(session) for _ in range(32)))
