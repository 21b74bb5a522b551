"""What a call to an upstream is worth: token buckets, the intent before it and the settlement after it.

The rows live in `requests` (engine/store/requests.py). Intent first, then outcome: an intent is durable before the upstream
request is sent, and an attempt whose end nobody saw stays visible as `unknown`, never as free.
"""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from engine.errors import UserError
from engine.states import ErrorClass
from engine.tracing import Span


class CostSource(StrEnum):
    """Where a cost comes from."""

    REPORTED = "reported"  # the upstream named the price itself
    PRICED = "priced"  # reported usage times a known price
    ESTIMATED = "estimated"  # usage counted here, because the upstream did not tell
    FREE = "free"
    CACHED = "cached"  # an earlier answer was used again; the row says what that saved
    UNKNOWN = "unknown"  # no price is known, or nobody saw the end


class CallKind(StrEnum):
    """What was called."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    TOOL = "tool"
    HTTP = "http"
    COUNT_TOKENS = "count_tokens"  # an upstream counted a prompt, free of charge


LIMITED = (CallKind.CHAT, CallKind.EMBEDDINGS, CallKind.COUNT_TOKENS)
"""What a key's limits count: calls of models."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens in disjoint buckets; `reasoning` is information, already contained in `output`.

    `cache_write_1h` are cache writes that are kept for an hour, at a price of their own, and not part of `cache_write`.
    """

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    cache_write_1h: int = 0

    @property
    def cache_writes(self) -> int:
        """All cache writes, however long they are kept."""
        return self.cache_write + self.cache_write_1h

    @property
    def prompt_tokens(self) -> int:
        """All input tokens, cached ones included (OpenAI's meaning)."""
        return self.input + self.cache_read + self.cache_writes

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.prompt_tokens + self.output


@dataclass(slots=True)
class CallScope:
    """On whose behalf a call is made. `request_id` groups the attempts of one client request or one step attempt."""

    request_id: str
    workflow_name: str | None = None
    run_id: str | None = None
    step_id: str | None = None  # the step's key within its run, such as `report`
    attempt: int | None = None
    key_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    span: Span | None = field(
        default=None, compare=False, repr=False
    )  # what the call is made below, where it is traced


@dataclass(slots=True)
class Intent:
    """An upstream call about to be made. `reserve_picousd` is its worst case, None where no price is known.

    `reserve_tokens` is the most tokens it can use, input and output, 0 where nothing is counted in tokens.
    """

    id: str
    scope: CallScope
    kind: CallKind
    provider: str
    model: str
    requested_model: str
    streamed: bool
    at_us: int
    reserve_picousd: int | None
    reserve_tokens: int = 0


@dataclass(slots=True)
class Settlement:
    """How a call ended. `cost_picousd` is None exactly when `cost_source` is UNKNOWN."""

    id: str
    success: bool
    usage: Usage | None
    cost_picousd: int | None
    cost_source: CostSource
    finished_us: int
    latency_us: int
    ttft_us: int | None = None
    status_code: int | None = None
    error_class: ErrorClass | None = None
    error: str | None = None


def settle_free(intent: Intent, finished_us: int, error_class: ErrorClass | None, error: str | None) -> Settlement:
    """How a call ended that nobody charges for, a tool's or a plain request's."""
    return Settlement(
        id=intent.id,
        success=error_class is None,
        usage=None,
        cost_picousd=0,
        cost_source=CostSource.FREE,
        finished_us=finished_us,
        latency_us=finished_us - intent.at_us,
        error_class=error_class,
        error=error,
    )


UNKNOWN_PRICE = "unknown_price"
"""The code of a call that is refused for want of a price."""


def refuse_unknown_price(intent: Intent) -> None:
    """What `unknown_prices: reject` means: no call whose worst case nobody knows. Raises: UserError."""
    if intent.reserve_picousd is None:
        raise UserError(
            UNKNOWN_PRICE,
            f"no price is known for {intent.provider}/{intent.model} and unknown_prices is `reject`; "
            f"set providers.{intent.provider}.prices",
            param="model",
        )


class Book(Protocol):
    """Where upstream calls are booked. What is awaited may be shielded: it goes on though its caller is cancelled."""

    def open(self, intent: Intent) -> Awaitable[None]:
        """Durable when it returns. Raises: BudgetExceeded where the worst case does not fit."""
        ...

    def settle(self, settlement: Settlement) -> Awaitable[None]:
        """Keeps the outcome: durable when it returns, or together with the step's own result."""
        ...
