"""What the providers charge is what the ledger says, to the pico-dollar, over random calls of every kind and every bad end.

The seed is printed and may be set by BILL_SEED; which call gets which fault also depends on the order in which they arrive.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from over_upstreams import MODELS, Stand, stand
from services import wait_until
from upstreams.control import Fault

AT_ONCE = 24
LEFT = {"openai": "openai/gpt-4.1-mini", "anthropic": "anthropic/claude-haiku-5-5"}  # whose clients leave in mid-stream
TOOL = {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}
ROUTES = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}
EMBED = "/v1/embeddings"
FAULTS = (
    Fault("status", status=429, headers={"Retry-After": "0"}),
    Fault("status", status=500),
    Fault("status", status=503),
    Fault("status", status=400),
    Fault("reset"),
    Fault("cut", after=0),
    Fault("cut", after=3),
    Fault("malformed"),
    Fault("error_in_stream", after=1),
    Fault("error_in_200"),
    Fault("no_finish"),
    Fault("no_done"),
    Fault("no_usage"),
    Fault("not_json"),
    Fault("empty"),
)


@dataclass(frozen=True)
class Ask:
    """One client request. `leaves`: its client goes away in the middle of the stream."""

    marker: str
    path: str
    body: dict[str, Any]
    leaves: bool = False


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("home"), log={"level": "warning"}) as standing:
        yield standing


@pytest.mark.parametrize("calls", [300, pytest.param(2_000, marks=pytest.mark.chaos)])
def test_the_bill_is_the_ledger(up: Stand, calls: int) -> None:
    seed = int(os.environ.get("BILL_SEED", random.randrange(10**6)))
    print(f"BILL_SEED={seed}")
    chance = random.Random(seed)
    for control in up.upstreams.values():
        control.reset()
        control.script(*(chance.choice(FAULTS) if chance.random() < 0.15 else None for _ in range(2 * calls)))
    for dialect, model in LEFT.items():
        up.upstreams[dialect].always(Fault("slow", delay_s=0.1), model=model.partition("/")[2])
        up.upstreams[dialect].script(*[Fault("slow", delay_s=0.1)] * calls, model=model.partition("/")[2])
    before = {row["id"] for row in all_rows(up)}
    asked = asyncio.run(ask_all(up, [an_ask(chance, number) for number in range(calls)]))
    wait_until(lambda: not open_rows(up), "every call is settled", 30)
    check(up, [row for row in all_rows(up) if row["id"] not in before], asked)


def check(up: Stand, rows: list[dict[str, Any]], asked: dict[str, str]) -> None:
    """Row by row where a request's rows are known, and in all."""
    upstream = [
        call | {"provider": name} for name, control in up.upstreams.items() for call in control.state()["calls"]
    ]
    assert len(rows) == len(upstream), "every upstream call has its row, and every row its call"
    told = Counter(booked(call) for call in upstream if call["usage_told"])
    priced = Counter(written(row) for row in rows if row["cost_source"] == "priced")
    assert priced == told
    for name, control in up.upstreams.items():
        own = [row for row in rows if row["provider"] == name]
        bill = sum(picousd(row) for row in own if row["cost_source"] == "priced")
        assert bill == control.state()["bill_told_picousd"] > 0
    for marker, request in asked.items():
        own = [row for row in rows if row["request_id"] == request]
        calls = [call for call in upstream if call["marker"] == marker]
        assert len(own) == len(calls), (own, calls)
        assert Counter(r["provider"] for r in own) == Counter(call["provider"] for call in calls)
        assert sum(picousd(row) for row in own if row["cost_source"] == "priced") == sum(
            call["picousd"] for call in calls if call["usage_told"]
        )
    assert {"priced", "estimated", "free"} <= {row["cost_source"] for row in rows}
    assert all(row["cost_usd"] == 0 for row in rows if row["cost_source"] == "free")


def booked(call: dict[str, Any]) -> tuple[Any, ...]:
    """A call as its upstream's books have it."""
    tokens = call["tokens"]
    writes = tokens["cache_write"] + tokens.get("cache_write_1h", 0)
    prompt = tokens["input"] + tokens["cache_read"] + writes
    return (call["provider"], call["model"], prompt, tokens["output"], tokens["cache_read"], writes, call["picousd"])


def written(row: dict[str, Any]) -> tuple[Any, ...]:
    """A call as the ledger has it."""
    tokens = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens")
    return (row["provider"], row["model"], *(row[name] for name in tokens), picousd(row))


def picousd(row: dict[str, Any]) -> int:
    return round(row["cost_usd"] * 10**12)


def open_rows(up: Stand) -> list[Any]:
    return up.gateway.http.get("/v1/requests", params={"status": "started"}).json()["data"]


def all_rows(up: Stand) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        asked = {"limit": 200} | ({"cursor": cursor} if cursor else {})
        page = up.gateway.http.get("/v1/requests", params=asked).json()
        rows += page["data"]
        cursor = page["next_cursor"]
        if not cursor:
            return rows


def an_ask(chance: random.Random, number: int) -> Ask:
    """A random request; its words say what its upstream does."""
    marker = f"m{number}"
    words = [f"[marker {marker}]", "one two three four five", f"[words {chance.randint(1, 30)}]"]
    words += chance.sample(["[cached 3]", "[cache_write 2]", "[cache_write_1h 2]", "[think 4]"], chance.randint(0, 3))
    kind = chance.choice(["chat", "chat", "chat", "messages", "responses", "embed"])
    if kind == "embed":
        return Ask(
            marker, EMBED, {"model": "openai/text-embedding-3-small", "input": "six words that become one vector"}
        )
    leaves = chance.random() < 0.1
    model = chance.choice(list(LEFT.values()) if leaves else [*MODELS.values(), "either"])
    stream = leaves or chance.random() < 0.5
    text = " ".join(words if not leaves else [words[0], "[words 40]"])
    tool = not leaves and chance.random() < 0.2
    return Ask(marker, ROUTES[kind], a_body(chance, kind, text, tool=tool) | {"model": model, "stream": stream}, leaves)


def a_body(chance: random.Random, kind: str, text: str, *, tool: bool) -> dict[str, Any]:
    if tool:
        text += " use tool look."
    if kind == "responses":
        return {"input": text} | ({"tools": [{"type": "function", **TOOL}]} if tool else {})
    messages = [{"role": "user", "content": text}]
    if kind == "messages":
        offered = {"name": TOOL["name"], "description": TOOL["description"], "input_schema": TOOL["parameters"]}
        return {"messages": messages, "max_tokens": 200} | ({"tools": [offered]} if tool else {})
    more: dict[str, Any] = {"tools": [{"type": "function", "function": TOOL}]} if tool else {}
    if chance.random() < 0.2:
        more["max_completion_tokens"] = chance.randint(1, 20)
    return {"messages": messages, **more}


async def ask_all(up: Stand, asks: list[Ask]) -> dict[str, str]:
    """Some at a time; the id that each request had here, by its marker."""
    ids: dict[str, str] = {}
    left = iter(asks)

    async def one_after_another(session: aiohttp.ClientSession) -> None:
        for ask in left:
            async with session.post(up.gateway.url + ask.path, json=ask.body) as answer:
                if ask.path != EMBED:  # which has no place for a marker
                    ids[ask.marker] = answer.headers["x-request-id"]
                if ask.leaves and answer.status == 200:
                    await answer.content.readany()
                    answer.close()
                else:
                    await answer.read()

    timeout = aiohttp.ClientTimeout(60)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        await asyncio.gather(*(one_after_another(session) for _ in range(AT_ONCE)))
    return ids
