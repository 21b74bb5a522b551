"""`/`, `/health`, `/ready`: what this is, whether it lives, whether it can work."""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from api.services import Services
from engine.clock import iso, now_us
from engine.errors import RetryableError
from engine.store.database import Tx
from engine.store.workers import count_workers, live_workers

_LIMIT_S = 3.0


def routes(services: Services) -> APIRouter:
    """The three routes; they need no key."""
    router = APIRouter(tags=["health"])

    @router.get("/", summary="What this is and where to go on")
    async def info() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        links = {"docs": "/docs", "openapi": "/openapi.json", "dashboard": "/dashboard", "metrics": "/metrics"}
        return {"name": "aigateway", "version": services.version, "links": links}

    @router.get("/health", summary="The process lives")
    async def health() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        return {"status": "healthy", "timestamp": iso(now_us()), "version": services.version}

    @router.get("/ready", summary="Database and queue can be reached from this process")
    async def ready() -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        database, queue = await asyncio.gather(_reason(_database(services)), _reason(_queue(services)))
        workers = None if database else await services.database.read(lambda tx: _alive(tx, services))
        problems = {name: why for name, why in (("database", database), ("queue", queue)) if why}
        body: dict[str, Any] = {"status": "unavailable" if problems else "ready", "workers": workers}
        if problems:
            message = "; ".join(f"{name}: {why}" for name, why in problems.items())
            body["error"] = {"message": message, "type": "server_error", "code": "not_ready", "param": None}
        return JSONResponse(body, status_code=503 if problems else 200)

    return router


def _alive(tx: Tx, services: Services) -> int:
    """Workers whose lease holds and that this host does not know to be dead."""
    return sum(row["kind"] == "worker" and services.lives(row) for row in live_workers(tx, now_us()))


async def _database(services: Services) -> None:
    await services.database.read(lambda tx: count_workers(tx, now_us()))


async def _queue(services: Services) -> None:
    await asyncio.to_thread(services.doorbell.check)


async def _reason(check: Any) -> str | None:
    """None where the check passes, else why not."""
    try:
        async with asyncio.timeout(_LIMIT_S):
            await check
    except RetryableError as error:
        return error.message
    except TimeoutError:
        return f"no answer within {_LIMIT_S:g} s"
    return None
