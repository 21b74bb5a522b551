"""Runs one worker process, the child that `serve` and `worker` start: builds its parts and hands them to the worker room."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import cast

from aigateway.config_keys import Settings
from aigateway.garbage import collect_seldom
from aigateway.logs import configure_logging
from aigateway.reloading import Reloader
from aigateway.settings import config_source, process_crash_point, process_environment, process_settings
from aigateway.tracing import collector, load_library, sent_traces
from aigateway.wiring import Outgoing, webhook_secret
from engine.errors import AIGatewayError, UserError
from engine.ports import StepExecutor
from engine.provider_health import HealthBoard
from engine.store.connections import connector
from engine.store.database import Database
from worker.alone import run_alone
from worker.broker import local_broker, redis_broker
from worker.executors.agent import agent_executors
from worker.executors.flow import flow_executors
from worker.executors.http import HttpExecutor
from worker.executors.llm import LlmExecutor
from worker.executors.mcp_tool import McpToolExecutor
from worker.isolation import asking
from worker.process import run_worker
from worker.retention import Keep
from worker.rules import Rules
from worker.step_process import WorkerParts
from worker.template import Run, name_process


def load(config_path: str | None) -> Run:
    """What runs a worker process of this configuration, with all loaded that it will need at once."""
    settings = process_settings(config_path)
    if settings.redis_url is not None:
        import worker.redis_broker  # noqa: F401, PLC0415  # pyright: ignore[reportUnusedImport] - only where there is one
    connector(settings.database_url)  # loads the driver and opens nothing
    if collector(process_environment()) is not None:
        load_library()
    return lambda arguments: _run(config_path, arguments)


def _run(config_path: str | None, arguments: Sequence[str]) -> int:
    """One worker process, from its arguments to its exit code. What was changed in the configuration meanwhile holds."""
    parser = argparse.ArgumentParser(description="One worker process of `aigateway serve` or `aigateway worker`.")
    parser.add_argument("--concurrency", type=int, required=True, help="in-flight steps")
    parser.add_argument("--metrics-port", type=int, help="serve /metrics on this port")
    parser.add_argument("--bells", help="folder of the embedded queue's sockets")
    parser.add_argument(
        "--asks", type=int, required=True, metavar="FD", help="where the supervisor is asked for something"
    )
    parser.add_argument("--alone", metavar="STEP", help="run this one step, found on board of dying workers, and end")
    parser.add_argument("--keeper", metavar="LOCK", help="with --alone: the lock that the supervisor holds")
    told = parser.parse_args(arguments)
    name_process("aigw-alone" if told.alone else "aigw-worker")
    try:
        source = config_source(config_path)
        settings = process_settings(source)
        form = settings.log.format
        configure_logging(settings.log.level, json=None if form == "auto" else form == "json")
        return asyncio.run(_work(settings, lambda: process_settings(source), told))
    except AIGatewayError as error:
        print(f"aigateway worker: {error.message}", file=sys.stderr)
        return 1


async def _work(settings: Settings, read: Callable[[], Settings], told: argparse.Namespace) -> int:
    bells, step_id = cast(str | None, told.bells), cast(str | None, told.alone)
    rules = _rules(settings)
    keep = Keep(settings.retention.runs_days, settings.retention.requests_days)
    outgoing = Outgoing(settings)
    http = HttpExecutor(rules)
    executors: dict[str, StepExecutor] = {**_calling(outgoing), "http": http, **flow_executors()}

    async def take_up(new: Settings) -> Mapping[str, UserError]:
        fresh = await asyncio.to_thread(_rules, new)
        for rule in fields(Rules):
            setattr(rules, rule.name, getattr(fresh, rule.name))
        keep.runs_days, keep.requests_days = new.retention.runs_days, new.retention.requests_days
        outgoing.take_up(new)
        executors.update(_calling(outgoing))
        return {}

    async def close() -> None:
        await http.close()
        await outgoing.close()

    reloader = Reloader(settings, read, take_up)
    reloader.listen()
    parts = WorkerParts(
        database_url=settings.database_url,
        crash_at=process_crash_point(),
        make_broker=lambda: (
            local_broker(Path(bells), listen=step_id is None) if bells else redis_broker(_redis_url(settings))
        ),
        isolate=asking(told.asks),
        executors=executors,
        concurrency=told.concurrency,
        grace_s=settings.worker.grace.total_seconds(),
        keep=keep,
        rules=rules,
        beside=reloader.watch,
        metrics_host=settings.worker.metrics_host or settings.server.host,
        metrics_port=told.metrics_port,
        share_health=lambda database: outgoing.failover.health.share(HealthBoard(database)),
        close=close,
    )
    collect_seldom()
    async with sent_traces(process_environment()) as tracer:
        parts = replace(parts, tracer=tracer)
        return await run_worker(parts) if step_id is None else await run_alone(parts, step_id, told.keeper)


def _calling(outgoing: Outgoing) -> dict[str, StepExecutor]:
    """The executors that call models and tools, made anew when models change: steps under way keep theirs."""
    llm = LlmExecutor(outgoing.router, outgoing.failover, outgoing.prices)
    return {"llm": llm, "mcp_tool": McpToolExecutor(outgoing.bridge), **agent_executors(llm, outgoing.bridge)}


def _rules(settings: Settings) -> Rules:
    database = Database(settings.database_url, readers=0, crash_at=process_crash_point())
    try:
        secret = webhook_secret(settings, database)
    finally:
        database.close()
    return Rules(
        webhook_secret=secret,
        alert_url=settings.webhooks.alert_url,
        allow_private_networks=settings.webhooks.allow_private_networks,
        reject_unknown_prices=settings.unknown_prices == "reject",
    )


def _redis_url(settings: Settings) -> str:
    if settings.redis_url is None:
        raise UserError("invalid_config", "a worker needs redis_url (AIGATEWAY_REDIS_URL)")
    return settings.redis_url
