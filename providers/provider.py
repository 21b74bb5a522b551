"""The contract between routing and one upstream dialect, and the configuration that a provider is built from.

The inner language is OpenAI's chat body as a plain dict. A provider turns it into its dialect and back; it never books,
retries or fails over (`providers.failover` does), and it raises nothing but `ProviderError`.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, Protocol, cast

from engine.ledger import CostSource, Usage
from engine.states import ErrorClass

Json = dict[str, Any]
ProviderType = Literal["openai", "anthropic", "ollama", "simulated"]

DEFAULT_BASE_URLS: Mapping[str, str] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "ollama": "http://127.0.0.1:11434",
    "simulated": "",
}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The four timers of a call: to connect, to the first content of a stream, between chunks, and for all of it."""

    connect_s: float = 5.0
    first_content_s: float = 120.0
    idle_s: float = 60.0
    total_s: float = 600.0


@dataclass(frozen=True, slots=True)
class ModelAbilities:
    """What a model can take, as the configuration tells it; None: not told."""

    context_length: int | None = None
    tools: bool | None = None
    images: bool | None = None


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """USD per million tokens. A bucket without a price of its own costs what `input` costs, one for an hour twice that."""

    input: Decimal | None = None
    output: Decimal | None = None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None


@dataclass(frozen=True, slots=True)
class SimulatedToolCall:
    """A call that a simulated model makes. Arguments as text are sent as they are, so that broken ones can be played."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class SimulatedTurn:
    """One answer of a scripted conversation."""

    reply: str | None = None
    tool_calls: tuple[SimulatedToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """What a simulated model does. `reply` None: it answers with the last user text. `chunks` 0: one a word.

    `tool_calls` are made where the request offers such tools, until their results come. `script` says it answer by answer: its first
    entry answers a conversation that holds no answer yet, its second one that holds one, and so on; the last entry stays.
    Each entry of `fail` is used up by one call, in order, once per process: a status, or `timeout`, `reset`, `cut`.
    """

    reply: str | None = None
    delay_s: float = 0.0
    chunks: int = 0
    fail: tuple[int | str, ...] = ()
    input: Decimal | None = None
    output: Decimal | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    tool_calls: tuple[SimulatedToolCall, ...] = ()
    script: tuple[SimulatedTurn, ...] = ()


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """One entry under `providers:`. `base_url` empty: the dialect's own."""

    name: str
    type: ProviderType
    base_url: str = ""
    api_key: str | None = field(default=None, repr=False)
    default_model: str | None = None
    models: tuple[str, ...] = ()
    prices: Mapping[str, ModelPrice] = field(default_factory=dict[str, ModelPrice])
    timeouts: Timeouts = Timeouts()
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    simulated_models: Mapping[str, SimulatedModel] = field(default_factory=dict[str, SimulatedModel])
    abilities: Mapping[str, ModelAbilities] = field(default_factory=dict[str, ModelAbilities])

    @property
    def url(self) -> str:
        """The base URL without a slash at its end."""
        return (self.base_url or DEFAULT_BASE_URLS[self.type]).rstrip("/")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer in OpenAI's shape. `usage` None: the upstream told none. `dropped`: parameters it could not take.

    `native`: the body is in the upstream's own dialect (`providers.wording`), and `size` counts the bytes of its content.
    """

    body: Json
    usage: Usage | None
    upstream_model: str
    reported_cost_picousd: int | None = None
    dropped: tuple[str, ...] = ()
    native: bool = False
    size: int = 0


@dataclass(slots=True)
class Chunk:
    """One `chat.completion.chunk`. `has_content` is true for text, refusal, reasoning and tool deltas alone.

    `prompt_usage` is what some upstreams tell at the start: right about the input, not yet about the output.

    A chunk with `usage_only` has no choices: it is what `stream_options.include_usage` asks for, and may be left out.
    `dropped` is on the first chunk, `usage` and `reported_cost_picousd` on the chunk that tells them (the last one counts).
    `native`: the body is an event of the upstream's own dialect, and `size` counts the bytes of its content.
    `followed`: the next chunk is here already, so that both may be passed on together.
    """

    body: Json
    has_content: bool = False
    finish_reason: str | None = None
    usage: Usage | None = None
    prompt_usage: Usage | None = None
    usage_only: bool = False
    reported_cost_picousd: int | None = None
    dropped: tuple[str, ...] = ()
    native: bool = False
    size: int = 0
    followed: bool = False


@dataclass(slots=True)
class AttemptInfo:
    """One upstream call of a request: what `aigateway.attempts` shows. `id` is its row in `requests`."""

    id: str
    provider: str
    model: str
    success: bool
    latency_us: int
    cost_picousd: int | None
    cost_source: CostSource
    ttft_us: int | None = None
    status_code: int | None = None
    error_class: ErrorClass | None = None
    error: str | None = None


class Provider(Protocol):
    """One upstream. Every method raises ProviderError and nothing else; cancelling closes the upstream connection."""

    @property
    def config(self) -> ProviderConfig:
        """What it was built from; `config.name` is the name that users write."""
        ...

    async def chat(self, model: str, body: Json) -> Answer:
        """One call, one whole answer. `body` is not changed."""
        ...

    def stream(self, model: str, body: Json) -> AsyncGenerator[Chunk, None]:
        """One call, chunk by chunk; ends only after a finish_reason, everything else raises. Close it to cancel."""
        ...

    async def embeddings(self, model: str, body: Json) -> Answer:
        """OpenAI's embeddings contract."""
        ...

    async def list_models(self) -> list[str]:
        """The model names that the upstream offers now."""
        ...


def client_wants_usage(body: Json) -> bool:
    """Whether the caller of a stream asked for the usage chunk (`stream_options.include_usage`)."""
    options = body.get("stream_options")
    return isinstance(options, dict) and cast(Json, options).get("include_usage") is True
