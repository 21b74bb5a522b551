"""Follows a run on a server until it stops: as a live timeline on a terminal, as a line per change, or silently.

Only reads. Leaving it, with Ctrl-C as well, changes nothing about the run.
"""

import json
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

import typer
from rich.console import Console
from rich.live import Live

from aigateway.client import LONG_POLL_S, Client, path
from aigateway.timeline import money, printable, timeline
from engine.errors import RetryableError

Json = dict[str, Any]
View = Literal["live", "lines", "json", "silent"]
STOPPED = ("succeeded", "failed", "cancelled", "paused")
_PATIENCE_S = 60.0
_SHORTEST_ROUND_S = 0.25
_LIVE_POLL_S = 1


def follow(client: Client, run_id: str, view: View) -> Json:
    """The run once it succeeded, failed, was cancelled or paused. A server that restarts meanwhile is waited for, a minute.

    Raises: AIGatewayError of `aigateway.client`.
    """
    with _show(view) as show:
        for run in _rounds(client, run_id, LONG_POLL_S if view == "silent" else _LIVE_POLL_S):
            if view != "silent":
                show(run, _patiently(lambda: client.get_all(path("runs", run_id, "steps")))["data"])
            if run["status"] in STOPPED:
                return run
    raise AssertionError("rounds never end by themselves")


def _rounds(client: Client, run_id: str, wait_s: int) -> Iterator[Json]:
    wait = 0  # the first look is at once
    while True:
        began = time.monotonic()
        yield _patiently(lambda: client.get(path("runs", run_id), {"wait": wait}))  # noqa: B023  # called before it changes
        wait = wait_s
        time.sleep(max(0.0, _SHORTEST_ROUND_S - (time.monotonic() - began)))


def _patiently(ask: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return ask()
        except RetryableError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_SHORTEST_ROUND_S)


@contextmanager
def _show(view: View) -> Generator[Callable[[Json, list[Json]], None]]:
    if view != "live":
        yield _Lines(as_json=view == "json")
        return
    console = Console(stderr=True)
    with Live(console=console, auto_refresh=False) as live:
        yield lambda run, steps: live.update(
            timeline(run, steps, width=console.width, now=datetime.now(UTC)), refresh=True
        )


class _Lines:
    """Prints a line whenever a step's status or attempt changes."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._seen: dict[str, tuple[str, int]] = {}

    def __call__(self, run: Json, steps: list[Json]) -> None:
        for step in steps:
            state = (str(step["status"]), len(step.get("attempts") or []))
            if step["status"] != "pending" and self._seen.get(step["id"]) != state:
                self._seen[step["id"]] = state
                self._print(run, step, state)

    def _print(self, run: Json, step: Json, state: tuple[str, int]) -> None:
        if self._as_json:
            keys = ("id", "status", "model", "cost_usd", "tokens", "latency_ms")
            event = {"run": run["id"], "step": {key: step.get(key) for key in keys}, "attempt": state[1]}
            typer.echo(json.dumps(event, ensure_ascii=False))
            sys.stdout.flush()
            return
        attempt = f" (attempt {state[1]})" if state[1] > 1 else ""
        cost = f"  {money(step['cost_usd'])}" if step.get("cost_usd") else ""
        typer.echo(f"{printable(step['id'])}: {state[0]}{attempt}{cost}", err=True)
