"""Which keys the configuration has, what each means, and what it is when nobody sets it.

Secrets are `SecretStr`, and URLs that may hold a password stay out of `repr`. Where the values come from is `aigateway.settings`' part.
"""

import base64
import binascii
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from aigateway.config_values import (
    DatabaseUrl,
    Delay,
    Duration,
    Failure,
    HttpUrl,
    OptionalSecret,
    OptionalText,
    Price,
    RedisUrl,
    Share,
    Usd,
    Weight,
    Whole,
    names_to_mapping,
)
from engine.budget_spec import Action, BudgetSpec, Scope, check_budget, to_threshold
from engine.errors import UserError
from engine.money import to_picousd
from engine.periods import Period
from mcp_bridge.servers import McpServerConfig


class Section(BaseModel):
    """A mapping of the file: unknown keys are mistakes, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=False)


class ServerSettings(Section):
    """Where the API listens and who may call it."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[Whole, Field(ge=0, le=65535)] = 8080  # 0: any free port
    auth: Literal["auto", "required", "off"] = "auto"
    metrics: Literal["keys", "open"] = "keys"


class WorkerSettings(Section):
    """How much work one worker takes on: processes, and in-flight steps in each of them."""

    processes: Annotated[Whole, Field(ge=1, le=256)] = 1
    concurrency: Annotated[Whole, Field(ge=1, le=10_000)] = 64
    grace: Duration = timedelta(seconds=30)  # how long steps in flight may go on after SIGTERM
    metrics_host: str | None = None  # where --metrics-port listens; null: server.host


class PriceSettings(Section):
    """USD per million tokens. The price table of `providers` says what a missing cache price means."""

    input: Price
    output: Price
    cached_input: Price | None = None
    cache_write: Price | None = None
    cache_write_1h: Price | None = None


class TimeoutSettings(Section):
    """The four timers of an upstream call; None: the provider room's default."""

    connect: Duration | None = None
    first_content: Duration | None = None
    idle: Duration | None = None
    total: Duration | None = None


class SimulatedToolCallSettings(Section):
    """A call that a simulated model makes. Arguments as text are sent as they are."""

    name: str
    arguments: dict[str, Any] | str = {}


class SimulatedTurnSettings(Section):
    """One answer of a scripted conversation; `reply` left out: the last user text."""

    reply: str | None = None
    tool_calls: list[SimulatedToolCallSettings] = []


class ProviderModelSettings(Section):
    """What a model can take, for every type of provider: `context_length` in tokens, `tools`, `images`; what is not said is the
    upstream's to judge. And how a simulated model behaves (`providers.provider.SimulatedModel` says what each means).
    """

    context_length: Annotated[Whole, Field(ge=1)] | None = None
    tools: bool | None = None
    images: bool | None = None

    reply: str | None = None
    delay: Delay = timedelta()
    chunks: Annotated[Whole, Field(ge=0)] = 0
    fail: list[Failure] = []
    input: Price | None = None
    output: Price | None = None
    tokens_in: Annotated[Whole, Field(ge=0)] | None = None
    tokens_out: Annotated[Whole, Field(ge=0)] | None = None
    tool_calls: list[SimulatedToolCallSettings] = []
    script: list[SimulatedTurnSettings] = []  # the first answer of a conversation, the second, …; the last one stays


_ABILITIES = frozenset({"context_length", "tools", "images"})


class ProviderSettings(Section):
    """One upstream. `models` may be written as a list of names; type simulated maps names to behaviour."""

    type: Literal["openai", "anthropic", "ollama", "simulated"]
    base_url: HttpUrl = None
    api_key: OptionalSecret = None
    default_model: OptionalText = None
    models: Annotated[dict[str, ProviderModelSettings], BeforeValidator(names_to_mapping)] = {}
    prices: dict[str, PriceSettings] = {}
    timeouts: TimeoutSettings = TimeoutSettings()
    headers: dict[str, SecretStr] = {}

    @model_validator(mode="after")
    def _behaviour_is_simulated(self) -> Self:
        if self.type != "simulated" and any(model.model_fields_set - _ABILITIES for model in self.models.values()):
            known = ", ".join(sorted(_ABILITIES))
            raise ValueError(f"models of this type take {known} alone; behaviour belongs to type simulated")
        return self


class TargetSettings(Section):
    """A model that a configured name may stand for, written as `provider/model` or as a mapping; `weight` is for strategy weighted."""

    model: Annotated[str, Field(min_length=1)]
    weight: Weight | None = None

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: object) -> object:
        return {"model": value} if isinstance(value, str) else value


class ModelSettings(Section):
    """What a configured name stands for: candidates, and how one is chosen (`providers.strategies` says how each does).

    ordered: as written. weighted: by chance, with the share of its weight (1 where none is given). least_latency: the fastest
    lately. least_busy: the fewest calls under way from this process. cheapest: the lowest worst case of the request. The others
    follow where one fails.
    """

    strategy: Literal["ordered", "weighted", "least_latency", "least_busy", "cheapest"] = "ordered"
    targets: Annotated[list[TargetSettings], Field(min_length=1)]
    cache: Duration | None = None  # how long an answer may be used again for exactly the same request of the same key
    hold_back: Delay = timedelta(
        0
    )  # how long the beginning of a stream is kept, so that one that breaks may begin anew

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: object) -> object:
        return {"targets": [value]} if isinstance(value, str) else value


class BudgetSettings(Section):
    """A limit on what calls cost together within a day, a month (by the calendar of `zone`) or for all time.

    `scope` says which calls count: all, or those of the key (name or id), workflow, provider, model (as it is asked for,
    `provider/model`, or the provider's own name) or tag (`key:value`) that `match` names. `action: reject` refuses a call whose
    worst case does not fit (402, a run pauses); `action: alert` only tells. `alert_at`: shares of the limit at which an alert goes
    to the log and to webhooks.alert_url, each once a period. A call whose end nobody saw counts at its worst case until the
    period ends, for 30 days at most.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    limit_usd: Usd
    period: Literal["day", "month", "total"] = "month"
    zone: str = "UTC"
    scope: Literal["all", "key", "workflow", "provider", "model", "tag"] = "all"
    match: OptionalText = None
    action: Literal["reject", "alert"] = "reject"
    alert_at: list[Share] = []

    def spec(self) -> BudgetSpec:
        """What the engine takes. Raises: UserError where its parts do not go together."""
        spec = BudgetSpec(
            name=self.name,
            limit_picousd=to_picousd(self.limit_usd),
            period=Period(self.period),
            scope=Scope(self.scope),
            subject=self.match,
            zone=self.zone,
            action=Action(self.action),
            alert_at=tuple(to_threshold(share) for share in self.alert_at),
        )
        check_budget(spec)
        return spec

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        try:
            self.spec()
        except UserError as error:
            raise ValueError(error.message) from None
        return self


def _base64_secret(secret: SecretStr | None) -> SecretStr | None:
    """Standard Webhooks sign with the bytes that the secret's base64 stands for."""
    if secret is not None:
        try:
            base64.b64decode(secret.get_secret_value().removeprefix("whsec_"))
        except binascii.Error:
            raise ValueError("has to be base64, with or without whsec_ before it") from None
    return secret


class WebhookSettings(Section):
    """Where alerts go and how deliveries are signed; without a secret one is made at first start."""

    alert_url: HttpUrl = None
    secret: Annotated[OptionalSecret, AfterValidator(_base64_secret)] = None
    allow_private_networks: bool = False


class McpSettings(Section):
    """This gateway as an MCP server. `pass_tools`: clients see the tools of connected servers too, not workflows alone."""

    pass_tools: bool = False


class RetentionSettings(Section):
    """How long finished runs and ledger rows are kept."""

    runs_days: Annotated[Whole, Field(ge=1)] = 90
    requests_days: Annotated[Whole, Field(ge=1)] = 365


class LogSettings(Section):
    """What is logged and how; auto: readable on a terminal, JSON lines elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(Section):
    """Everything a process was told."""

    server: ServerSettings = ServerSettings()
    worker: WorkerSettings = WorkerSettings()
    database_url: DatabaseUrl = "sqlite:///aigateway.db"
    redis_url: RedisUrl = None
    providers: dict[str, ProviderSettings] = {}
    models: dict[str, ModelSettings] = {}
    budgets: list[BudgetSettings] = []
    unknown_prices: Literal["allow", "reject"] = "allow"
    on_client_disconnect: Literal["cancel", "drain"] = "cancel"
    mcp_servers: Annotated[dict[str, McpServerConfig], Field(repr=False)] = {}  # env and headers hold keys
    mcp: McpSettings = McpSettings()
    workflows_dir: Path = Path("workflows")
    webhooks: WebhookSettings = WebhookSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
