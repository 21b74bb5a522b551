"""What the bridge's integration tests share: bridges over real processes, and looking for processes left behind."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import psutil

from mcp_bridge.bridge import McpBridge
from mcp_bridge.errors import ToolError
from mcp_bridge.servers import McpServerConfig

HOSTILE = str(Path(__file__).with_name("mcp_hostile_server.py"))
ROOT = Path(__file__).parents[2]


def hostile(name: str = "hostile", mode: str = "ok", *extra: str, **settings: Any) -> McpServerConfig:
    return McpServerConfig(
        name=name, command=sys.executable, args=("-S", "-E", "-P", HOSTILE, mode, *extra), **settings
    )


def module(name: str, *args: str, **settings: Any) -> McpServerConfig:
    return McpServerConfig(name=name, command=sys.executable, args=("-P", "-m", *args), **settings)


@contextlib.asynccontextmanager
async def bridge(*configs: McpServerConfig, **settings: Any) -> AsyncIterator[McpBridge]:
    """Fails where the bridge leaves a process or a task behind."""
    before = set(psutil.Process().children(recursive=True))
    async with McpBridge({c.name: c for c in configs}, environment=dict(os.environ), **settings) as opened:
        yield opened
    assert gone(p for p in psutil.Process().children(recursive=True) if p not in before)
    assert [t for t in asyncio.all_tasks() if "mcp_bridge" in repr(t)] == []


def run(work: Coroutine[Any, Any, Any], timeout_s: float = 60.0) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(timeout_s):
            return await work

    return asyncio.run(bounded())


async def refused(work: Coroutine[Any, Any, Any]) -> ToolError:
    """The error that a call must end with."""
    try:
        answer = await work
    except ToolError as error:
        return error
    raise AssertionError(f"expected a ToolError, got {answer!r}")


def gone(processes: Iterable[psutil.Process], within_s: float = 5.0) -> bool:
    waiting = list(processes)
    return until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in waiting), within_s)


async def ended(processes: Iterable[psutil.Process]) -> bool:
    """`gone`, while the event loop goes on."""
    return await asyncio.to_thread(gone, list(processes))


async def reaped(process: psutil.Process) -> bool:
    """Wholly over: a zombie's last threads may still hold its pipes."""
    return await asyncio.to_thread(until, lambda: not process.is_running())


def until(condition: Callable[[], bool], within_s: float = 5.0) -> bool:
    """Polls a condition of the outside world until it holds; False at the deadline."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            if condition():
                return True
        time.sleep(0.01)
    return False


@contextlib.asynccontextmanager
async def loop_watched(longest_s: float) -> AsyncIterator[None]:
    """Fails where the event loop was busy for longer at a stretch."""
    loop = asyncio.get_running_loop()
    gaps: list[float] = []

    async def tick() -> None:
        last = loop.time()
        while True:
            await asyncio.sleep(0.005)
            now = loop.time()
            gaps.append(now - last)
            last = now

    ticker = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticker.cancel()
        await asyncio.wait({ticker})
    assert max(gaps) < longest_s, f"the event loop stood still for {max(gaps):.2f} s"
