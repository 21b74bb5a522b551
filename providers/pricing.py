"""What a call costs: the upstream's own figure, a configured price, free, or genai-prices' tables; else unknown, never 0.

Exact: rates are USD per million tokens as Decimal, and USD per million times 10^6 is pico-dollars a token, so the cost of
the disjoint buckets is a sum without rounding (one rounding at the end where a rate is finer than a pico-dollar).
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from engine.ledger import CostSource, Usage
from providers.provider import ModelPrice, ProviderConfig

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo

_PICO_PER_TOKEN = 10**6
_REMEMBERED = 512
_REMEMBERED_S = 60.0  # some prices depend on the time of day
DEFAULT_MAX_TOKENS = 4096  # assumed for a worst case where the caller sets no limit


@dataclass(frozen=True, slots=True)
class Rate:
    """USD per million tokens; `tiers` are (prompt tokens above which, rate), rising."""

    base: Decimal
    tiers: tuple[tuple[int, Decimal], ...] = ()

    @property
    def whole_picousd(self) -> int | None:
        """Pico-dollars a token, where that is a whole number for every prompt."""
        picousd = self.base * _PICO_PER_TOKEN
        return int(picousd) if not self.tiers and picousd == picousd.to_integral_value() else None

    def at(self, prompt_tokens: int) -> Decimal:
        """The rate for a prompt of that size: the whole prompt is priced at the tier it reaches."""
        rate = self.base
        for start, tier in self.tiers:
            if prompt_tokens > start:
                rate = tier
        return rate


@dataclass(frozen=True, slots=True)
class Rates:
    """The rates of a model, one for each bucket of `Usage`."""

    input: Rate
    cache_read: Rate
    cache_write: Rate
    cache_write_1h: Rate
    output: Rate
    whole_picousd: tuple[int, int, int, int, int] | None = field(init=False, compare=False, repr=False)
    """The same in pico-dollars a token, where all are whole numbers for every prompt: most are, and decimals cost more than all else."""

    def __post_init__(self) -> None:
        """Work out `whole_picousd`."""
        rates = (self.input, self.cache_read, self.cache_write, self.cache_write_1h, self.output)
        whole = tuple(found for rate in rates if (found := rate.whole_picousd) is not None)
        object.__setattr__(self, "whole_picousd", whole if len(whole) == len(rates) else None)

    def cost(self, usage: Usage) -> int:
        """The exact cost in pico-dollars, rounded once, never negative."""
        if self.whole_picousd is not None:
            plain, read, write, write_1h, output = self.whole_picousd
            return (
                usage.input * plain
                + usage.cache_read * read
                + usage.cache_write * write
                + usage.cache_write_1h * write_1h
                + usage.output * output
            )
        prompt = usage.prompt_tokens
        usd_millions = (
            usage.input * self.input.at(prompt)
            + usage.cache_read * self.cache_read.at(prompt)
            + usage.cache_write * self.cache_write.at(prompt)
            + usage.cache_write_1h * self.cache_write_1h.at(prompt)
            + usage.output * self.output.at(prompt)
        )
        return int((usd_millions * _PICO_PER_TOKEN).to_integral_value(rounding=ROUND_HALF_EVEN))

    def worst(self, prompt_tokens: int, output_tokens: int, *, for_an_hour: bool) -> int:
        """The most that so many tokens can cost: no cache helps, all of it may be written to one."""
        if self.whole_picousd is not None:
            plain, _, write, write_1h, output = self.whole_picousd
            return prompt_tokens * max(plain, write, write_1h if for_an_hour else 0) + output_tokens * output
        ways = [Usage(input=prompt_tokens), Usage(cache_write=prompt_tokens)]
        if for_an_hour:
            ways.append(Usage(cache_write_1h=prompt_tokens))
        return max(self.cost(replace(way, output=output_tokens)) for way in ways)


_FREE = Rates(*(Rate(Decimal(0)),) * 5)


class PriceBook:
    """Prices by provider and model. Lookups are remembered for a minute, in a bounded number."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[tuple[str, str, str], tuple[float, Rates | None]] = OrderedDict()

    def cost(
        self, provider: ProviderConfig, model: str, usage: Usage | None, *, reported_picousd: int | None = None
    ) -> tuple[int | None, CostSource]:
        """Cost in pico-dollars and where it comes from; (None, UNKNOWN) without a price or without usage."""
        if reported_picousd is not None:
            return reported_picousd, CostSource.REPORTED
        rates = self.rates(provider, model)
        if rates is None:
            return None, CostSource.UNKNOWN
        if rates is _FREE:
            return 0, CostSource.FREE
        if usage is None:
            return None, CostSource.UNKNOWN
        return rates.cost(usage), CostSource.PRICED

    def estimate(self, provider: ProviderConfig, model: str, usage: Usage) -> tuple[int | None, CostSource]:
        """The same for usage that was counted here rather than told: marked ESTIMATED unless free or unknown."""
        cost, source = self.cost(provider, model, usage)
        return cost, CostSource.ESTIMATED if source is CostSource.PRICED else source

    def worst_case(
        self,
        provider: ProviderConfig,
        model: str,
        prompt_tokens: int,
        max_tokens: int | None,
        *,
        for_an_hour: bool = False,
    ) -> int | None:
        """The most a call can cost in pico-dollars, None where no price is known. No cache helps in the worst case.

        `for_an_hour`: the request asks for cache writes that are kept for an hour.
        """
        rates = self.rates(provider, model)
        if rates is None:
            return None
        limit = DEFAULT_MAX_TOKENS if max_tokens is None else max_tokens
        return rates.worst(prompt_tokens, limit, for_an_hour=for_an_hour)

    def rates(self, provider: ProviderConfig, model: str) -> Rates | None:
        """The rates in force, or None where none are known."""
        override = provider.prices.get(model) or provider.prices.get("*")
        if override is not None:
            return _configured(override)
        if provider.type == "simulated":
            return _simulated(provider, model)
        if provider.type == "ollama":
            return _FREE
        return self._listed(provider, model)

    def _listed(self, provider: ProviderConfig, model: str) -> Rates | None:
        key = (provider.type, provider.url, model)
        now = self._clock()
        known = self._known.get(key)
        if known is not None and known[0] > now:
            self._known.move_to_end(key)
            return known[1]
        rates = _from_library(provider, model)
        self._known[key] = (now + _REMEMBERED_S, rates)
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return rates


def provider_of_model(model: str) -> str | None:
    """The genai-prices provider id that a bare model name belongs to (`claude-sonnet-4-5` → `anthropic`), or None."""
    from genai_prices import data_snapshot  # noqa: PLC0415 - loads 1.6 MB of prices: 0.5 s at the first use only

    try:
        return data_snapshot.get_snapshot().find_provider_model(model, None, None, None)[0].id
    except LookupError:
        return None


def load_tables() -> None:
    """Load the price tables now (0.5 s of CPU), for a thread after start-up rather than the first call."""
    provider_of_model("")


def library_id(provider: ProviderConfig) -> str | None:
    """The genai-prices provider id of a configured provider, by its base URL; None for a host it does not know."""
    from genai_prices import data_snapshot  # noqa: PLC0415 - see provider_of_model

    try:
        return data_snapshot.get_snapshot().find_provider(None, None, provider.url).id
    except LookupError:
        return None


@lru_cache(_REMEMBERED)
def _configured(price: ModelPrice) -> Rates:
    """A configured price: input and output left out cost nothing, a cache bucket left out costs what input does.

    A write that is kept for an hour costs twice that (Anthropic, the one upstream that reports them, prices it so).
    """
    given = Decimal(0) if price.input is None else price.input
    rates = Rates(
        input=Rate(given),
        cache_read=Rate(given if price.cached_input is None else price.cached_input),
        cache_write=Rate(given if price.cache_write is None else price.cache_write),
        cache_write_1h=Rate(2 * given if price.cache_write_1h is None else price.cache_write_1h),
        output=Rate(Decimal(0) if price.output is None else price.output),
    )
    return _FREE if rates == _FREE else rates


def _simulated(provider: ProviderConfig, model: str) -> Rates:
    scripted = provider.simulated_models.get(model)
    if scripted is None or (scripted.input is None and scripted.output is None):
        return _FREE
    return _configured(ModelPrice(input=scripted.input, output=scripted.output))


def listed_model(provider: ProviderConfig, model: str) -> "ModelInfo | None":
    """What the tables say about a model of that provider, None where they do not know it."""
    from genai_prices import data_snapshot  # noqa: PLC0415 - see provider_of_model

    identity = "anthropic" if provider.type == "anthropic" else library_id(provider)
    if identity is None:
        return None
    try:
        return data_snapshot.get_snapshot().find_provider_model(model, None, identity, None)[1]
    except LookupError:
        return None


def _from_library(provider: ProviderConfig, model: str) -> Rates | None:
    info = listed_model(provider, model)
    if info is None:
        return None
    try:
        prices: Any = info.get_prices(datetime.now(UTC))
    except IndexError:
        return None
    given, output = _rate(prices.input_mtok), _rate(prices.output_mtok)
    if given is None:
        return None
    return Rates(
        input=given,
        cache_read=_rate(prices.cache_read_mtok) or given,
        cache_write=_rate(prices.cache_write_mtok) or given,
        cache_write_1h=_rate(prices.cache_write_1h_mtok) or _twice(given),
        output=output or Rate(Decimal(0)),  # embeddings have no output price
    )


def _rate(price: Any) -> Rate | None:
    """A library price: a Decimal, or a base with tiers."""
    if price is None:
        return None
    if isinstance(price, Decimal):
        return Rate(price)
    return Rate(price.base, tuple((tier.start, tier.price) for tier in price.tiers))


def _twice(rate: Rate) -> Rate:
    return Rate(2 * rate.base, tuple((start, 2 * price) for start, price in rate.tiers))
