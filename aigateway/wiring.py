"""The composition root: builds the parts of a process from settings. Nothing runs here; `serving` and `working` run what it built."""

import base64
import secrets
from pathlib import Path

import structlog

import engine.errors
from aigateway.config_keys import Settings
from aigateway.provider_settings import model_aliases, provider_configs
from aigateway.settings import tools_environment
from engine.budgets import take_up_budgets
from engine.clock import now_us
from engine.definition import Definition
from engine.errors import UserError
from engine.store.database import Database
from engine.store.settings import get_or_make
from engine.workflows import read_folder, take_up
from mcp_bridge.bridge import McpBridge
from providers.failover import Failover
from providers.http import HttpClient
from providers.pricing import PriceBook
from providers.provider import Provider
from providers.registry import build_providers
from providers.routing import Router

log = structlog.get_logger(__name__)

SHIPPED_WORKFLOWS = Path(engine.errors.__file__).parent.parent / "workflows"


class Outgoing:
    """What calls LLMs and tools: providers, routing, failover, prices and the MCP bridge. Connects nothing by being built."""

    def __init__(self, settings: Settings) -> None:
        self._http = HttpClient()
        self.providers: dict[str, Provider] = {}
        self.prices = PriceBook()
        self.failover = Failover(self.prices)
        self.bridge = McpBridge(settings.mcp_servers, environment=tools_environment())
        self.router = self._route(settings)

    def take_up(self, settings: Settings) -> None:
        """Go by other settings from now on. Whoever has resolved a model goes on with the provider that it found.

        All providers of a process share one pool of connections, so none has to be closed: idle ones end by themselves. A provider that
        is another now rests no longer for what it was.
        """
        before = self.providers
        self.router = self._route(settings)
        self.failover.health.forget(name for name, known in before.items() if self.providers.get(name) is not known)
        self.bridge.reconfigure(settings.mcp_servers)

    async def close(self) -> None:
        """End all connections; bookings of cancelled callers are waited for."""
        await self.failover.drain()
        await self.bridge.close()
        await self._http.close()

    def _route(self, settings: Settings) -> Router:
        self.providers = build_providers(provider_configs(settings), self._http, known=self.providers)
        return Router(self.providers, model_aliases(settings))


def webhook_secret(settings: Settings, database: Database) -> str:
    """The configured secret, else the one made at first start."""
    told = settings.webhooks.secret
    if told is not None:
        return told.get_secret_value()
    return database.write_now(lambda tx: get_or_make(tx, "webhook_secret", _new_secret))


def take_up_workflows(settings: Settings, database: Database) -> dict[str, UserError]:
    """Store new and changed definitions of the workflows folder and the shipped examples; returns the files' errors."""
    definitions, errors = read_folder(settings.workflows_dir)
    own = [(definition, "file") for definition in definitions.values()]
    shipped: list[tuple[Definition, str]] = []
    if SHIPPED_WORKFLOWS.resolve() != settings.workflows_dir.resolve():
        shipped = [(definition, "shipped") for definition in read_folder(SHIPPED_WORKFLOWS)[0].values()]
    for definition, origin in [*own, *shipped]:
        database.write_now(lambda tx, new=definition, where=origin: take_up(tx, new, where, now_us()))
    return dict(errors)


def set_budgets(settings: Settings, database: Database) -> None:
    """Make the stored budgets follow the configuration. API processes do this; workers go by what is stored."""
    specs = [budget.spec() for budget in settings.budgets]
    for name in database.write_now(lambda tx: take_up_budgets(tx, specs, now_us())):
        log.warning("budget of the configuration is overridden by one set over HTTP", action="budgets", budget=name)


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
