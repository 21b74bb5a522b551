"""Runs the API: `aigateway serve` (with an embedded queue and workers in the same process tree) and `aigateway api` (with Redis)."""

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from aigateway import __version__
from aigateway.banner import print_banner, print_first_key
from aigateway.bells_folder import bells_folder
from aigateway.config_keys import Settings
from aigateway.garbage import collect_seldom
from aigateway.http_protocol import HttpProtocol
from aigateway.open_files import allow_open_files
from aigateway.reloading import HangUp, Reloader, as_json
from aigateway.settings import process_crash_point, process_environment
from aigateway.tracing import check_tracing, sent_traces
from aigateway.wiring import Outgoing, set_budgets, take_up_workflows
from aigateway.working import make_nursery, make_supervisor, stop_s
from api.app import create_app
from api.key_ring import KeyRing
from api.origin import is_loopback
from api.run_watch import RunWatch
from api.services import Services
from engine.catalogue import Catalogue
from engine.clock import new_id, now_us
from engine.errors import RetryableError, UserError
from engine.provider_health import HealthBoard
from engine.store.api_keys import any_key
from engine.store.database import Database
from engine.store.revision import bring_up_to_date
from engine.sweeper import Swept, bury
from worker.broker import BrokerDoorbell, declare_bells, local_broker, redis_broker
from worker.housekeeping import Heartbeat, register
from worker.liveness import LifeLock, host_name, is_dead, runtime_folder
from worker.neighbours import Neighbours
from worker.nursery import Nursery
from worker.run_ends import hear_ends
from worker.supervisor import Supervisor
from worker.undertaker import LEFT_TO_WORKERS_S, Undertaker

log = structlog.get_logger(__name__)

_REQUESTS_GRACE_S = 10
_BACKLOG = 2048


def run_serve(settings: Settings, read: Callable[[], Settings], *, workers: int, config_path: str | None) -> None:
    """API, embedded queue and workers in one process tree, until SIGTERM or SIGINT. `read` gives the settings at a reload."""
    nursery = make_nursery(config_path) if workers else None
    bring_up_to_date(settings.database_url)
    with bells_folder() as bells:
        asyncio.run(_serve(settings, read, nursery, workers=workers, bells=bells))


def run_api(settings: Settings, read: Callable[[], Settings]) -> None:
    """The API alone, with Redis, until SIGTERM or SIGINT. `read` gives the settings at a reload."""
    bring_up_to_date(settings.database_url)
    asyncio.run(_serve(settings, read, None, workers=0, bells=None))


async def _serve(
    settings: Settings, read: Callable[[], Settings], nursery: Nursery | None, *, workers: int, bells: Path | None
) -> None:
    allow_open_files()
    listener = _listen(settings.server.host, settings.server.port)
    host, port = listener.getsockname()[:2]
    outgoing = Outgoing(settings)
    environ = process_environment()
    check_tracing(environ)
    async with (
        sent_traces(environ) as tracer,
        _gateway(settings, read, outgoing, bells) as (services, reloader),
    ):
        services.tracer = tracer
        outgoing.failover.health.share(HealthBoard(services.database))
        file_errors = await asyncio.to_thread(take_up_workflows, settings, services.database)
        await asyncio.to_thread(set_budgets, settings, services.database)
        server = _Server(
            uvicorn.Config(
                create_app(services),
                log_config=None,
                access_log=False,
                lifespan="off",
                http=HttpProtocol,
                timeout_graceful_shutdown=_REQUESTS_GRACE_S,
            ),
            services.closing,
        )
        url = f"http://{_shown(host)}:{port}"
        banner = asyncio.create_task(print_banner(settings, outgoing, url, file_errors))
        if services.auth == "required" and not await services.database.read(any_key):
            print_first_key(url)
        watching = asyncio.create_task(reloader.watch(services.database))
        burying = asyncio.create_task(_undertaker(services).run())
        async with _workers(settings, nursery, workers, bells, services.run_watch) as supervisor:

            def hang_up() -> None:
                reloader.start()
                if supervisor is not None:
                    supervisor.signal(signal.SIGHUP)

            HangUp(reload=hang_up, stop=server.stop).listen()
            collect_seldom()
            await server.serve(sockets=[listener])
            banner.cancel()
            watching.cancel()
            burying.cancel()


@asynccontextmanager
async def _workers(
    settings: Settings, nursery: Nursery | None, workers: int, bells: Path | None, watch: RunWatch
) -> AsyncGenerator[Supervisor | None, None]:
    """Worker processes beside the API, from entering to leaving; their supervisor, where there are any."""
    if nursery is None or bells is None:
        yield None
        return
    supervisor = make_supervisor(settings, nursery, ["--bells", str(bells)], workers)
    keeping = asyncio.create_task(supervisor.run())
    try:
        with hear_ends(bells, watch.ended):
            yield supervisor
    finally:
        await supervisor.stop(stop_s(settings))
        await keeping
        await nursery.close()


class _Server(uvicorn.Server):
    """uvicorn that ends with exit code 0: its own handlers raise the signal again."""

    def __init__(self, config: uvicorn.Config, closing: asyncio.Event) -> None:
        super().__init__(config)
        self._closing = closing

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """SIGTERM and SIGINT stop accepting and let requests finish."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        yield

    def stop(self) -> None:
        """Accept nothing more, let requests finish."""
        self.should_exit = True
        self._closing.set()


@asynccontextmanager
async def _gateway(
    settings: Settings, read: Callable[[], Settings], outgoing: Outgoing, bells: Path | None
) -> AsyncGenerator[tuple[Services, Reloader], None]:
    """The parts of an API process and what keeps them to its configuration, entered among the living so that its open calls are found if it dies."""
    crash_at = process_crash_point()
    database = Database(settings.database_url, crash_at=crash_at)
    leases = Database(settings.database_url, readers=0, crash_at=crash_at)
    process_id = new_id()
    locks = runtime_folder()
    lock = LifeLock(locks, process_id)
    await asyncio.to_thread(register, leases, process_id, "api")
    heartbeat = Heartbeat(leases, process_id, lambda: _register_again(leases, process_id))
    broker = local_broker(bells, listen=False) if bells else redis_broker(settings.redis_url or "")
    doorbell = BrokerDoorbell(broker, declare_bells(broker, lambda _: None))
    catalogue = Catalogue()

    async def take_up(new: Settings) -> Mapping[str, UserError]:
        errors = await asyncio.to_thread(take_up_workflows, new, database)
        await asyncio.to_thread(set_budgets, new, database)
        outgoing.take_up(new)
        for name, value in _live(new, outgoing).items():
            setattr(services, name, value)
        return errors

    reloader = Reloader(settings, read, take_up)

    async def reload_config() -> dict[str, Any]:
        return as_json(await reloader.reload_everywhere(database))

    try:
        services = Services(
            version=__version__,
            process_id=process_id,
            database=database,
            keys=KeyRing(database),
            catalogue=catalogue,
            doorbell=doorbell,
            failover=outgoing.failover,
            prices=outgoing.prices,
            bridge=outgoing.bridge,
            auth="required" if _needs_keys(settings) else "off",
            metrics_open=settings.server.metrics == "open",
            on_loopback=is_loopback(settings.server.host),
            lives=lambda row: bool(row["host"] != host_name() or not is_dead(locks, row["id"])),
            **_waiting(database),
            reload_config=reload_config,
            **_live(settings, outgoing),
        )
        yield services, reloader
    finally:
        await outgoing.close()
        heartbeat.stop()
        doorbell.close()
        await _sign_off(database, catalogue, process_id)
        database.close()
        leases.close()
        broker.close()
        lock.release()


def _undertaker(services: Services) -> Undertaker:
    """For as long as this process answers: where no worker is, nobody else finds the dead."""

    def ring(found: Swept) -> None:
        for each in found.rings:
            services.doorbell.ring(each.step_id, each.priority)

    neighbours = Neighbours(services.database, services.process_id, runtime_folder())
    return Undertaker(services.database, services.catalogue, neighbours, ring, after_s=LEFT_TO_WORKERS_S)


def _waiting(database: Database) -> dict[str, Any]:
    """What those who wait for runs share."""
    closing = asyncio.Event()
    return {"closing": closing, "run_watch": RunWatch(database, closing)}


def _live(settings: Settings, outgoing: Outgoing) -> dict[str, Any]:
    """The fields of `Services` that a reload sets anew."""
    return {
        "router": outgoing.router,
        "workflows_dir": settings.workflows_dir,
        "allow_private_networks": settings.webhooks.allow_private_networks,
        "reject_unknown_prices": settings.unknown_prices == "reject",
        "on_client_disconnect": settings.on_client_disconnect,
        "pass_tools": settings.mcp.pass_tools,
    }


async def _sign_off(database: Database, catalogue: Catalogue, process_id: str) -> None:
    """Leave the living. Without a database whoever finds the lease run out does it."""
    try:
        await database.write(lambda tx: bury(tx, catalogue, process_id, now_us(), only_if_lapsed=False))
    except RetryableError as error:
        log.warning("not signed off", action="stop", error=error.message)


def _register_again(leases: Database, process_id: str) -> bool:
    """An API process that was taken for dead (the machine slept, the database was away) goes on: its open calls were marked, new ones
    are its own. Where the database is still away the next beat tries again.
    """
    try:
        register(leases, process_id, "api")
    except RetryableError:
        return True  # the heartbeat has said so
    log.warning("lease lost, registered again", action="renew", worker=process_id)
    return True


def _needs_keys(settings: Settings) -> bool:
    if settings.server.auth == "auto":
        return not is_loopback(settings.server.host)
    return settings.server.auth == "required"


def _listen(host: str, port: int) -> socket.socket:
    """The listening socket. Raises: UserError that says what to do."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # The protocol is named because asyncio switches Nagle's algorithm off only for sockets that say they are TCP:
        # otherwise an answer whose head and body are written apart waits 40 ms for the client's delayed ACK.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        return listener
    except OSError as error:
        taken = port and not isinstance(error, socket.gaierror) and error.errno != errno.EADDRNOTAVAIL
        hint = "is another program using it? try --port 0" if taken else "is the host right? 127.0.0.1 is this machine"
        raise UserError("cannot_listen", f"cannot listen on {host}:{port} ({error.strerror}); {hint}") from error


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
