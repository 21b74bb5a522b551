"""200 parallel requests against a budget for 50, over two API processes of which one is killed in the middle, on both databases."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import pytest
from gateway import Gateway, gateway
from services import free_port, wait_until
from upstreams.control import Fault, Price
from upstreams.openai import OpenAIUpstream

from engine.budgets import budget_view
from engine.clock import now_us
from engine.store.budgets import all_budgets
from engine.store.database import Database

REQUESTS, ROOM = 200, 50
BURST, APART_S = 30, 0.15  # all at once, the first commit of one process could take all there is
WORTH_USD = 0.01  # ten tokens of output; the input is free
DAY_US = 86_400_000_000
CALL = {
    "model": "up/gpt-6-luna",
    "messages": [{"role": "user", "content": "[words 10]"}],
    "max_completion_tokens": 10,
}


@contextmanager
def two_processes(folder: Path, upstream: OpenAIUpstream, **environment: str) -> Iterator[tuple[Gateway, int]]:
    """Two API processes over the same database, and no worker: the port of the second."""
    price = {"*": {"input": 0, "output": 1000}}
    provider = {"type": "openai", "base_url": upstream.base_url, "api_key": "test-key", "prices": price}
    budget = {"name": "all", "limit_usd": ROOM * WORTH_USD, "period": "total"}
    config = {"log": {"level": "warning"}, "providers": {"up": provider}, "budgets": [budget]}
    with gateway(folder, config, **environment) as up:
        second = free_port()
        for port in (up.port, second):
            up.start("api", "--port", str(port))
        up.wait_until_up(workers=0)
        wait_until(lambda: answers(f"http://127.0.0.1:{second}", up), "the second process is up", 30)
        yield up, second


def answers(url: str, up: Gateway) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return up.http.get(f"{url}/ready").status_code == 200
    return False


async def storm(up: Gateway, second: int, upstream: OpenAIUpstream) -> list[int]:
    """The statuses of all requests, 0 where the process died under them."""
    urls = [f"http://127.0.0.1:{port}/v1/chat/completions" for port in (up.port, second)]

    async def one(session: aiohttp.ClientSession, number: int) -> int:
        await asyncio.sleep(number // BURST * APART_S)
        try:
            async with session.post(urls[number % 2], json=CALL) as answer:
                return answer.status
        except aiohttp.ClientError:
            return 0

    async def kill_in_the_middle() -> None:
        await asyncio.to_thread(upstream.control.wait, lambda control: control.count() >= ROOM // 2, 30)
        os.kill(up.processes[1].pid, signal.SIGKILL)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        killing = asyncio.create_task(kill_in_the_middle())
        statuses = await asyncio.gather(*(one(session, number) for number in range(REQUESTS)))
        await killing
    return statuses


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_at_most_what_fits_gets_through(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, redis_url: str
) -> None:
    url = f"sqlite:///{tmp_path / 'gateway.db'}" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    output_only = Price(Decimal(0), Decimal(0), Decimal(0), Decimal(1000))
    with (
        OpenAIUpstream(prices={"*": output_only}) as upstream,
        two_processes(tmp_path / "home", upstream, AIGATEWAY_DATABASE_URL=url, AIGATEWAY_REDIS_URL=redis_url) as (
            up,
            second,
        ),
    ):
        upstream.control.always(Fault("delay", delay_s=1.0))
        statuses = asyncio.run(storm(up, second, upstream))
        up.processes[1].wait(10)
        assert set(statuses) <= {0, 200, 402}
        wait_until(lambda: not rows(up, status="started"), "the living one finds the dead one's calls", 10)
        upstream.control.always(None)
        while up.http.post("/v1/chat/completions", json=CALL).status_code == 200:
            continue
        assert len(rows(up)) == ROOM, "the budget was used as far as it goes, and no further"
        assert upstream.control.count() <= ROOM
        assert upstream.control.bill_picousd <= ROOM * 10**10
        unseen = rows(up, status="unknown")
        assert unseen, "nothing was in flight when the process died"
        (budget,) = up.http.get("/v1/budgets").json()["data"]
        assert budget["reserved_usd"] == pytest.approx(len(unseen) * WORTH_USD), "what nobody saw the end of"
        assert budget["spent_usd"] == pytest.approx((ROOM - len(unseen)) * WORTH_USD)
        later = view_later(url, 31)
        assert (later["reserved_usd"], later["spent_usd"]) == (0, budget["spent_usd"]), "no reservation is left behind"


def rows(up: Gateway, **filters: str) -> list[dict[str, Any]]:
    return up.http.get("/v1/requests", params={"limit": 200, **filters}).json()["data"]


def view_later(url: str, days: int) -> dict[str, Any]:
    """The budget as it will be then."""
    database = Database(url)
    try:
        at = now_us() + days * DAY_US
        return asyncio.run(database.read(lambda tx: budget_view(tx, all_budgets(tx)[0], at)))
    finally:
        database.close()
