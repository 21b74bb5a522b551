"""Runs one worker process, the child that `serve` and `worker` start: builds its parts and hands them to the worker room."""

import asyncio
import sys
import threading
from pathlib import Path

from aigateway.settings import Settings
from aigateway.wiring import build_outgoing, webhook_secret
from aigateway.working import DRAIN_S
from engine.errors import UserError
from engine.store.database import Database
from worker.broker import local_broker, redis_broker
from worker.executors.flow import IfExecutor, SetExecutor
from worker.executors.llm import LlmExecutor
from worker.executors.mcp_tool import McpToolExecutor
from worker.process import WorkerParts, run_worker
from worker.supervisor import end_with_parent


def run_worker_process(settings: Settings, *, metrics_port: int | None, bells: str | None) -> None:
    """One worker process; `bells` is the folder of the embedded queue's sockets. Exits 1 where its lease was lost."""
    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()
    sys.exit(asyncio.run(_work(settings, metrics_port, bells)))


async def _work(settings: Settings, metrics_port: int | None, bells: str | None) -> int:

    database = Database(settings.database_url, readers=0)
    secret = webhook_secret(settings, database)
    database.close()
    outgoing = build_outgoing(settings)
    parts = WorkerParts(
        database_url=settings.database_url,
        make_broker=lambda: local_broker(Path(bells), listen=True) if bells else redis_broker(_redis_url(settings)),
        executors={
            "llm": LlmExecutor(outgoing.router, outgoing.failover, outgoing.prices),
            "mcp_tool": McpToolExecutor(outgoing.bridge),
            "set": SetExecutor(),
            "if": IfExecutor(),
        },
        concurrency=settings.worker.concurrency,
        grace_s=DRAIN_S,
        webhook_secret=secret,
        allow_private_networks=settings.webhooks.allow_private_networks,
        metrics_port=metrics_port,
        close=outgoing.close,
    )
    return await run_worker(parts)


def _redis_url(settings: Settings) -> str:
    if settings.redis_url is None:
        raise UserError("invalid_config", "a worker needs redis_url (AIGATEWAY_REDIS_URL)")
    return settings.redis_url
