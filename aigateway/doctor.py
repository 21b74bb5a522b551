"""Looks whether everything that a gateway needs is there, and says in one line how to mend what is not. Changes nothing.

Works while a server runs and while none does. Each check is bounded in time, and none keeps another one from running.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from aigateway.config_keys import Settings
from aigateway.settings import process_environment
from aigateway.tracing import ENDPOINT, INSTALL, SPOKEN, collector, load_library, other_protocol
from aigateway.wiring import Outgoing
from engine.errors import AIGatewayError, NotFound, RetryableError, UserError
from engine.store.checkup import DatabaseState, look_at
from engine.store.revision import NEWEST
from engine.workflows import read_folder
from providers.checkup import Checkup, ProviderHealth, check_provider, is_assumed
from worker.broker import BellQueue, redis_broker
from worker.liveness import host_name, is_dead, runtime_folder

Status = Literal["ok", "warning", "failed"]

_LIMIT_S = 30.0
_TRACES_LIMIT_S = 3.0
_LITTLE_SPACE = 1_000_000_000
_NO_SPACE = 100_000_000
_CLOCK_US = 10_000_000
_MEND = {
    ProviderHealth.MISSING_KEY: "set providers.{name}.api_key, or the environment variable that it reads",
    ProviderHealth.BAD_KEY: "check providers.{name}.api_key: the provider refuses it",
    ProviderHealth.UNREACHABLE: "start it or check providers.{name}.base_url, the network and a proxy",
    ProviderHealth.WRONG_ADDRESS: "check providers.{name}.base_url and type: what answers there is another API or path",
    ProviderHealth.FAILING: "try again later: the provider itself fails",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. A warning keeps nothing from working; `mend` says what to do about anything that is not ok."""

    check: str
    status: Status
    message: str
    mend: str | None = None


def configuration_findings(error: UserError) -> list[Finding]:
    """Every mistake of a configuration that cannot be used; nothing else can be checked then."""
    messages = [mistake.message for mistake in error.details] or [error.message]
    return [Finding("config", "failed", message, "mend that line, then run this again") for message in messages]


async def examine(settings: Settings, source: str | None) -> list[Finding]:
    """Everything but the configuration itself, which has been read from `source`."""
    outgoing = Outgoing(settings)
    try:
        groups = await asyncio.gather(
            _bounded("database", lambda: _database(settings)),
            _bounded("queue", lambda: _queue(settings)),
            _bounded("providers", lambda: _providers(settings, outgoing)),
            _bounded("mcp servers", lambda: _mcp_servers(outgoing)),
            _bounded("workflows", lambda: _workflows(settings, outgoing)),
            _bounded("traces", _traces),
        )
    finally:
        await outgoing.close()
    config = Finding("config", "ok", source or "no file: everything is at its default")
    return [config, *(finding for group in groups for finding in group), _webhook_secret(settings)]


async def _bounded(check: str, work: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    try:
        async with asyncio.timeout(_LIMIT_S):
            return await work()
    except TimeoutError:
        return [Finding(check, "failed", f"no end within {_LIMIT_S:g} s", "see what keeps it from answering")]


async def _database(settings: Settings) -> list[Finding]:
    try:
        state = await asyncio.to_thread(look_at, settings.database_url)
    except (RetryableError, UserError) as error:
        return [
            Finding(
                "database", "failed", error.message, "check database_url, and that the database runs and lets you in"
            )
        ]
    findings = [_schema(state), *_space(state), *_clock(state), _workers(state, settings)]
    if not state.writable:
        mend = "give this user the right to write there, or set database_url to another place"
        findings.insert(0, Finding("database", "failed", f"{state.where} cannot be written", mend))
    return findings


def _schema(state: DatabaseState) -> Finding:
    if not state.exists:
        return Finding("database", "ok", f"{state.where} is not there yet; the first `aigateway serve` makes it")
    if state.revision is None:
        return Finding("database", "ok", f"{state.where} is empty; the first start makes the schema")
    if state.revision == NEWEST:
        return Finding("database", "ok", f"{state.where}, schema {state.revision}")
    if state.revision < NEWEST:
        message = f"{state.where} has schema {state.revision}, this release has {NEWEST}"
        return Finding("database", "warning", message, "run `aigateway db upgrade`; the next start does it by itself")
    message = f"{state.where} has schema {state.revision}, which is newer than this release's {NEWEST}"
    return Finding("database", "failed", message, "use the release of aigateway that made it, or a newer one")


def _space(state: DatabaseState) -> list[Finding]:
    if state.free_bytes is None:
        return []
    message = f"{state.free_bytes / 1e9:,.1f} GB are free for {state.where}"
    if state.free_bytes >= _LITTLE_SPACE:
        return [Finding("disk space", "ok", message)]
    status: Status = "failed" if state.free_bytes < _NO_SPACE else "warning"
    return [Finding("disk space", status, message, "make room, or set database_url to another disk")]


def _clock(state: DatabaseState) -> list[Finding]:
    if state.ahead_us > _CLOCK_US or (state.free_bytes is None and state.ahead_us < -_CLOCK_US):
        message = f"this machine's clock and the database differ by {abs(state.ahead_us) / 1e6:,.0f} s"
        return [Finding("clock", "failed", message, "set the clock (NTP): leases, budgets and schedules go by it")]
    return [Finding("clock", "ok", "agrees with the database")]


def _workers(state: DatabaseState, settings: Settings) -> Finding:
    here = host_name()
    living = [kind for kind, host, name in state.processes if host != here or not is_dead(runtime_folder(), name)]
    workers = living.count("worker")
    if workers:
        return Finding(
            "workers", "ok", f"{living.count('api')} API and {workers} worker process{'es' * (workers > 1)} live"
        )
    if "api" in living:
        start = "aigateway worker" if settings.redis_url else "aigateway serve` without `--workers 0"
        return Finding("workers", "failed", "an API process lives but no worker: runs stand still", f"start `{start}`")
    return Finding("workers", "warning", "nothing is running", "start `aigateway serve`, or `api` and `worker`")


async def _queue(settings: Settings) -> list[Finding]:
    if settings.redis_url is None:
        return [Finding("queue", "ok", "embedded (redis_url is not set)")]
    broker = redis_broker(settings.redis_url)
    try:
        await asyncio.to_thread(cast(BellQueue, broker).check)
    except RetryableError as error:
        return [Finding("queue", "failed", error.message, "start Redis, or check redis_url and its password")]
    finally:
        broker.close()
    return [Finding("queue", "ok", "Redis answers")]


async def _providers(settings: Settings, outgoing: Outgoing) -> list[Finding]:
    providers = list(outgoing.providers.values())
    checkups = await asyncio.gather(*map(check_provider, providers))
    assumed = {provider.config.name for provider in providers if is_assumed(provider)}
    findings = [_provider(checkup, assumed=checkup.provider in assumed) for checkup in checkups]
    return findings + _models(settings, {checkup.provider: checkup for checkup in checkups})


def _provider(checkup: Checkup, *, assumed: bool) -> Finding:
    check = f"provider {checkup.provider}"
    if checkup.health is ProviderHealth.OK:
        return Finding(check, "ok", checkup.message)
    if assumed:
        return Finding(check, "warning", "no Ollama answers", "start it for free local models, or set OLLAMA_HOST")
    message = f"{checkup.health.value.replace('_', ' ')}: {checkup.message}"
    return Finding(check, "failed", message, _MEND[checkup.health].format(name=checkup.provider))


def _models(settings: Settings, checkups: dict[str, Checkup]) -> list[Finding]:
    """Models that the configuration names and their providers do not list."""
    named = [
        (f"providers.{name}.default_model", name, provider.default_model)
        for name, provider in settings.providers.items()
        if provider.default_model
    ]
    for alias, model in settings.models.items():
        for target in model.targets:
            provider, slash, name = target.model.partition("/")
            if slash and provider in checkups:
                named.append((f"models.{alias}", provider, name))
    return [
        Finding("models", *_unlisted(settings, provider, model, key))
        for key, provider, model in named
        if (listed := checkups[provider].models) is not None
        and model not in listed
        and model not in settings.providers[provider].models
    ]


def _unlisted(settings: Settings, provider: str, model: str, key: str) -> tuple[Status, str, str]:
    """Ollama and the simulated provider list all they have; others serve models that they do not list."""
    kind = settings.providers[provider].type
    if kind == "ollama":
        return "failed", f"{key}: {provider} has no {model}", f"run `ollama pull {model}`, or name another model"
    status: Status = "failed" if kind == "simulated" else "warning"
    return status, f"{key}: {provider} does not list {model}", "check the model's name"


async def _mcp_servers(outgoing: Outgoing) -> list[Finding]:
    await outgoing.bridge.tools(refresh=True)
    findings: list[Finding] = []
    for state in await outgoing.bridge.servers():
        check = f"mcp server {state.name}"
        if state.error is None:
            findings.append(Finding(check, "ok", f"{state.tools} tools ({state.transport})"))
        else:
            where = "command, args and env" if state.transport == "stdio" else "url and headers"
            findings.append(Finding(check, "failed", state.error, f"check {where} of mcp_servers.{state.name}"))
    return findings


async def _workflows(settings: Settings, outgoing: Outgoing) -> list[Finding]:
    folder = settings.workflows_dir
    if not await asyncio.to_thread(folder.is_dir):
        return [Finding("workflows", "ok", f"{folder} is not there; the shipped examples are")]
    definitions, errors = await asyncio.to_thread(read_folder, folder)
    findings = [
        Finding("workflows", "failed", error.message, f"see `aigateway workflows validate {folder / name}`")
        for name, error in errors.items()
    ]
    servers = {state.name for state in await outgoing.bridge.servers()}
    for name, definition in definitions.items():
        for step in definition.walk():
            missing = await _missing(outgoing, step.fields.get("model"), step.fields.get("server"), servers)
            if missing:
                mend = "add it to the configuration, or name another one in the step"
                findings.append(Finding("workflows", "warning", f"{name}: step {step.id}: {missing}", mend))
    return findings or [Finding("workflows", "ok", f"{len(definitions)} definitions in {folder}")]


async def _missing(outgoing: Outgoing, model: object, server: object, servers: Sequence[str] | set[str]) -> str | None:
    if isinstance(server, str) and "${" not in server and server not in servers:
        return f"there is no MCP server {server!r}"
    if not isinstance(model, str) or "${" in model:
        return None
    try:
        await outgoing.router.resolve(model)
    except NotFound as error:
        return error.message
    except AIGatewayError:
        return None  # the provider's own finding says so
    return None


async def _traces() -> list[Finding]:
    environ = process_environment()
    address = collector(environ)
    if address is None:
        return [Finding("traces", "ok", f"not sent ({ENDPOINT} is not set)")]
    if not await asyncio.to_thread(load_library):
        return [Finding("traces", "failed", f"{ENDPOINT} is set, its packages are missing", f"run `{INSTALL}`")]
    from aigateway.otel import try_to_send  # noqa: PLC0415 - loaded where traces are asked for

    why_not = await asyncio.to_thread(try_to_send, _TRACES_LIMIT_S)
    if why_not is not None:
        mend = f"start the collector, or check {ENDPOINT}: it has to speak OTLP over HTTP (port 4318 mostly)"
        return [Finding("traces", "failed", f"{address} does not take them: {why_not}", mend)]
    if (told := other_protocol(environ)) is not None:
        message = f"{address} takes them, as {SPOKEN}; {told} is not spoken here"
        return [Finding("traces", "warning", message, "unset OTEL_EXPORTER_OTLP_PROTOCOL")]
    return [Finding("traces", "ok", f"{address} takes them")]


def _webhook_secret(settings: Settings) -> Finding:
    told = settings.webhooks.secret is not None
    return Finding("webhook secret", "ok", "configured" if told else "made at the first start and kept in the database")
