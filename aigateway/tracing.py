"""Whether and where this process sends traces, by the standard variables; what sends them is loaded only then."""

import asyncio
import importlib.util
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from aigateway import __version__

if TYPE_CHECKING:
    from aigateway.otel import OtelTracer

log = structlog.get_logger(__name__)

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
INSTALL = "pip install 'aigateway[otel]'"
_TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SPOKEN = "http/protobuf"
_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def collector(environ: Mapping[str, str]) -> str | None:
    """The address that traces go to, as it was told; None: there is none, or the standard switches say that nothing is sent."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    return environ.get(_TRACES_ENDPOINT) or environ.get(ENDPOINT) or None


def other_protocol(environ: Mapping[str, str]) -> str | None:
    """A protocol that is asked for and not spoken here."""
    told = next((environ[name] for name in _PROTOCOLS if environ.get(name)), SPOKEN)
    return None if told == SPOKEN else told


def load_library() -> bool:
    """Import what sends traces; False where it is not installed. Starts no thread, so that a process which forks may do it."""
    if not is_installed():
        return False
    import aigateway.otel  # noqa: F401, PLC0415  # pyright: ignore[reportUnusedImport] - a tenth of a second and 8 MB

    return True


def check_tracing(environ: Mapping[str, str]) -> None:
    """Say what keeps traces from being sent as they are asked for. One process of a command does so."""
    address = collector(environ)
    if address is None:
        return
    if not is_installed():
        log.warning(f"traces are not sent: {ENDPOINT} is set and its packages are missing; {INSTALL}", action="trace")
    elif (told := other_protocol(environ)) is not None:
        log.warning(f"traces are sent as {SPOKEN}; {told} is not spoken here", action="trace", to=address)


def make_tracer(environ: Mapping[str, str]) -> "OtelTracer | None":
    """What sends this process's traces; None where none are asked for, or the packages are missing. To be called behind the last fork."""
    if collector(environ) is None or not load_library():
        return None
    from aigateway.otel import OtelTracer  # noqa: PLC0415 - see load_library

    try:
        return OtelTracer(__version__)
    except (ValueError, OSError) as error:  # a variable that means nothing, a certificate that is not there
        log.warning(f"traces are not sent: one of the OTEL_ variables cannot be used: {error}", action="trace")
        return None


@asynccontextmanager
async def sent_traces(environ: Mapping[str, str]) -> AsyncGenerator["OtelTracer | None"]:
    """What sends this process's traces, as `make_tracer` has it; at the end what was not sent yet has a moment."""
    tracer = make_tracer(environ)
    try:
        yield tracer
    finally:
        if tracer is not None:
            await asyncio.to_thread(tracer.close)


def is_installed() -> bool:
    """Looked up, not loaded: a supervisor sends nothing itself."""
    try:
        return all(importlib.util.find_spec(name) for name in _PACKAGES)
    except ModuleNotFoundError:  # a parent of one of them
        return False
