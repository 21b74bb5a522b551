"""Runs one worker process, the child that `serve` and `worker` start: builds its parts and hands them to the worker room."""

import argparse
import asyncio
import sys
from pathlib import Path

from aigateway.logs import configure_logging
from aigateway.settings import Settings, process_crash_point, process_settings
from aigateway.wiring import build_outgoing, webhook_secret
from engine.errors import AIGatewayError, UserError
from engine.store.database import Database
from worker.broker import local_broker, redis_broker
from worker.executors.agent import agent_executors
from worker.executors.flow import flow_executors
from worker.executors.http import HttpExecutor
from worker.executors.llm import LlmExecutor
from worker.executors.mcp_tool import McpToolExecutor
from worker.process import WorkerParts, run_worker
from worker.retention import Keep


def main() -> None:
    """`python -P -m aigateway.worker_start`: not a command of the program, whose command line costs 0.2 s and 15 MB."""
    parser = argparse.ArgumentParser(description="One worker process of `aigateway serve` or `aigateway worker`.")
    parser.add_argument("--config", help="the configuration file")
    parser.add_argument("--concurrency", type=int, required=True, help="in-flight steps")
    parser.add_argument("--metrics-port", type=int, help="serve /metrics on this port")
    parser.add_argument("--bells", help="folder of the embedded queue's sockets")
    told = parser.parse_args()
    settings = process_settings(told.config)
    configure_logging(settings.log.level, json=None if settings.log.format == "auto" else settings.log.format == "json")
    try:
        code = asyncio.run(_work(settings, told))
    except AIGatewayError as error:
        code = f"aigateway worker: {error.message}"
    sys.exit(code)


async def _work(settings: Settings, told: argparse.Namespace) -> int:
    bells: str | None = told.bells
    crash_at = process_crash_point()
    database = Database(settings.database_url, readers=0, crash_at=crash_at)
    secret = webhook_secret(settings, database)
    database.close()
    outgoing = build_outgoing(settings)
    llm = LlmExecutor(outgoing.router, outgoing.failover, outgoing.prices)
    http = HttpExecutor(allow_private_networks=settings.webhooks.allow_private_networks)

    async def close() -> None:
        await http.close()
        await outgoing.close()

    parts = WorkerParts(
        database_url=settings.database_url,
        crash_at=crash_at,
        make_broker=lambda: local_broker(Path(bells), listen=True) if bells else redis_broker(_redis_url(settings)),
        executors={
            "llm": llm,
            **agent_executors(llm, outgoing.bridge),
            "mcp_tool": McpToolExecutor(outgoing.bridge),
            "http": http,
            **flow_executors(),
        },
        concurrency=told.concurrency,
        grace_s=settings.worker.grace.total_seconds(),
        webhook_secret=secret,
        alert_url=settings.webhooks.alert_url,
        allow_private_networks=settings.webhooks.allow_private_networks,
        reject_unknown_prices=settings.unknown_prices == "reject",
        keep=Keep(settings.retention.runs_days, settings.retention.requests_days),
        metrics_host=settings.server.host,
        metrics_port=told.metrics_port,
        close=close,
    )
    return await run_worker(parts)


def _redis_url(settings: Settings) -> str:
    if settings.redis_url is None:
        raise UserError("invalid_config", "a worker needs redis_url (AIGATEWAY_REDIS_URL)")
    return settings.redis_url
