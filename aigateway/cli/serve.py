"""`aigateway serve | api | worker`: reads options and settings, and hands over to `aigateway.serving` and `aigateway.working`."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from aigateway.cli.options import ConfigOption
from engine.errors import UserError

if TYPE_CHECKING:
    from aigateway.config_keys import Settings

# Imports inside functions: a server's modules cost more than a command's --help may take.
# ruff: noqa: PLC0415

_PANEL = "Run the gateway"
HostOption = Annotated[str | None, typer.Option(help="Address to listen on (server.host).")]
PortOption = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on (server.port); 0: any free.")]
ConcurrencyOption = Annotated[int | None, typer.Option(min=1, max=10_000, help="In-flight steps per process.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command(epilog="Example: aigateway serve --port 9000 --workers 2", rich_help_panel=_PANEL)(serve)
    app.command(epilog="Example: AIGATEWAY_REDIS_URL=redis://127.0.0.1:6379/0 aigateway api", rich_help_panel=_PANEL)(
        api
    )
    app.command(
        epilog="Example: AIGATEWAY_REDIS_URL=redis://127.0.0.1:6379/0 aigateway worker --processes 2 --concurrency 100",
        rich_help_panel=_PANEL,
    )(worker)


def serve(
    *,
    host: HostOption = None,
    port: PortOption = None,
    workers: Annotated[int | None, typer.Option(min=0, max=256, help="Worker processes; 0: the API only.")] = None,
    concurrency: ConcurrencyOption = None,
    config: ConfigOption = None,
    end_with_stdin: Annotated[bool, typer.Option("--end-with-stdin", hidden=True)] = False,
) -> None:
    """Everything on one machine: API, dashboard, queue, workers, SQLite. Needs no other service and no configuration."""
    if end_with_stdin:
        _end_with_stdin()
    read = _reader(config, lambda settings: _worker(_server(settings, host, port), None, concurrency))
    settings = _started(read())
    from aigateway.serving import run_serve

    run_serve(settings, read, workers=settings.worker.processes if workers is None else workers, config_path=config)


def api(*, host: HostOption = None, port: PortOption = None, config: ConfigOption = None) -> None:
    """The API alone, for production: Redis and (optionally) PostgreSQL by URL."""
    read = _reader(config, lambda settings: _server(settings, host, port))
    settings = _needs_redis(_started(read()), "api")
    from aigateway.serving import run_api

    run_api(settings, read)


def worker(
    *,
    processes: Annotated[int | None, typer.Option(min=1, max=256, help="Worker processes.")] = None,
    concurrency: ConcurrencyOption = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve /metrics of process N on this port + N.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Workers alone, for production: they take steps from Redis and share the API's database."""
    read = _reader(config, lambda settings: _worker(settings, processes, concurrency))
    settings = _needs_redis(_started(read()), "worker")
    from aigateway.working import run_worker

    run_worker(settings, metrics_port=metrics_port, config_path=config)


def _end_with_stdin() -> None:
    """For `aigateway.embedded`: standard input is a pipe that closes when the parent has ended, however it ended."""
    from worker.parent import end_with_parent

    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()


def _reader(config: str | None, override: "Callable[[Settings], Settings]") -> "Callable[[], Settings]":
    """What reads the configuration, now and at every reload; the command line's options stand over it each time."""
    from aigateway.settings import config_source, process_settings

    source = config_source(config)
    return lambda: override(process_settings(source))


def _started(settings: "Settings") -> "Settings":
    from aigateway.logs import configure_logging

    form = settings.log.format
    configure_logging(settings.log.level, json=None if form == "auto" else form == "json")
    return settings


def _server(settings: "Settings", host: str | None, port: int | None) -> "Settings":
    told = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    return settings.model_copy(update={"server": settings.server.model_copy(update=told)})


def _worker(settings: "Settings", processes: int | None, concurrency: int | None) -> "Settings":
    told = {key: value for key, value in (("processes", processes), ("concurrency", concurrency)) if value is not None}
    return settings.model_copy(update={"worker": settings.worker.model_copy(update=told)})


def _needs_redis(settings: "Settings", command: str) -> "Settings":
    if settings.redis_url is None:
        message = f"{command} needs redis_url (AIGATEWAY_REDIS_URL); `aigateway serve` runs everything without Redis"
        raise UserError("invalid_config", message, param="redis_url")
    return settings
