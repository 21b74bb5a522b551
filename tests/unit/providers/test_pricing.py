import base64
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.ledger import CostSource, Usage
from providers.pricing import PriceBook, Rate, Rates
from providers.provider import ModelPrice, ProviderConfig, SimulatedModel
from providers.usage import (
    asks_for_an_hour,
    estimate_prompt_tokens,
    reported_cost_picousd,
    usage_from_openai,
    usage_to_openai,
)

COUNT = st.integers(0, 10**9)
USAGE = st.builds(Usage, COUNT, COUNT, COUNT, COUNT, cache_write_1h=COUNT)
PRICE = st.decimals(0, 1000, places=4)
FULL_PRICE = st.builds(ModelPrice, PRICE, PRICE, PRICE, PRICE)
OPENAI = ProviderConfig("openai", "openai")


def priced(price: ModelPrice) -> ProviderConfig:
    return ProviderConfig("p", "openai", "http://127.0.0.1:1/v1", prices={"m": price})


@given(FULL_PRICE, USAGE)
def test_disjoint_buckets_add_up_exactly(price: ModelPrice, usage: Usage) -> None:
    book, config = PriceBook(), priced(price)
    parts = [
        Usage(input=usage.input),
        Usage(cache_read=usage.cache_read),
        Usage(cache_write=usage.cache_write),
        Usage(cache_write_1h=usage.cache_write_1h),
        Usage(output=usage.output),
    ]
    whole, _ = book.cost(config, "m", usage)
    each = [book.cost(config, "m", part)[0] or 0 for part in parts]
    assert (whole or 0) == sum(each)
    assert all(cost >= 0 for cost in each)


@given(FULL_PRICE, USAGE)
def test_the_worst_case_is_never_less_than_the_cost(price: ModelPrice, usage: Usage) -> None:
    if price.cached_input is not None and price.input is not None and price.cached_input > price.input:
        return  # a cache that costs more than none
    book, config = PriceBook(), priced(price)
    cost, _ = book.cost(config, "m", usage)
    hour = usage.cache_write_1h > 0
    worst = book.worst_case(config, "m", usage.prompt_tokens, usage.output, for_an_hour=hour)
    assert worst is not None and worst >= (cost or 0)


def test_the_library_prices_known_models_exactly() -> None:
    book = PriceBook()
    usage = Usage(input=1000, cache_read=800, cache_write=100, output=100)
    config = ProviderConfig("anthropic", "anthropic")
    # claude-sonnet-4-5: 3, 0.3, 3.75, 15 USD per million
    expected = 1000 * 3_000_000 + 800 * 300_000 + 100 * 3_750_000 + 100 * 15_000_000
    assert book.cost(config, "claude-sonnet-4-5", usage) == (expected, CostSource.PRICED)
    assert book.cost(config, "claude-sonnet-4-5-20250929", usage) == (expected, CostSource.PRICED)


def test_cache_writes_for_an_hour_have_a_price_of_their_own() -> None:
    book = PriceBook()
    usage = Usage(input=1, cache_write=100, cache_write_1h=1000)
    anthropic = ProviderConfig("anthropic", "anthropic")
    assert book.cost(anthropic, "claude-sonnet-4-5", usage)[0] == 3_000_000 + 100 * 3_750_000 + 1000 * 6_000_000
    own = priced(ModelPrice(Decimal("0.3"), cache_write=Decimal("0.375")))
    assert book.cost(own, "m", usage)[0] == 300_000 + 100 * 375_000 + 1000 * 600_000
    told = priced(ModelPrice(Decimal("0.3"), cache_write_1h=Decimal("0.5")))
    assert book.cost(told, "m", usage)[0] == 300_000 + 100 * 300_000 + 1000 * 500_000
    plain, hour = (
        book.worst_case(anthropic, "claude-sonnet-4-5", 1000, 0, for_an_hour=asked) for asked in (False, True)
    )
    assert (plain, hour) == (3_750_000_000, 6_000_000_000)


@pytest.mark.parametrize(
    "body",
    [
        {"system": [{"type": "text", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
        {"tools": [{"name": "t", "cache_control": {"ttl": "1h"}}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "cache_control": {"ttl": "1h"}}]}]},
        {"messages": [{"content": [{"type": "tool_result", "content": [{"cache_control": {"ttl": "1h"}}]}]}]},
        {"cache_control": {"ttl": "1h"}},
    ],
)
def test_it_is_seen_where_a_body_asks_for_an_hour(body: dict[str, Any]) -> None:
    assert asks_for_an_hour(body)
    assert not asks_for_an_hour({"messages": [{"content": [{"cache_control": {"ttl": "5m"}}, {"text": "1h"}]}]})


def test_what_nobody_prices_is_unknown_not_free() -> None:
    book, usage = PriceBook(), Usage(10, 0, 0, 10)
    assert book.cost(OPENAI, "gpt-99-unheard-of", usage) == (None, CostSource.UNKNOWN)
    here = ProviderConfig("vllm", "openai", "http://127.0.0.1:8000/v1")
    assert book.cost(here, "gpt-6-luna", usage) == (None, CostSource.UNKNOWN)
    assert book.worst_case(here, "gpt-6-luna", 10, 10) is None
    assert book.cost(OPENAI, "gpt-6-luna", None) == (None, CostSource.UNKNOWN)


def test_the_order_of_prices() -> None:
    book, usage = PriceBook(), Usage(1_000_000, 0, 0, 0)
    config = ProviderConfig("o", "openai", prices={"*": ModelPrice(Decimal(7)), "gpt-6-luna": ModelPrice(Decimal(9))})
    assert book.cost(config, "gpt-6-luna", usage, reported_picousd=5) == (5, CostSource.REPORTED)
    assert book.cost(config, "gpt-6-luna", usage) == (9 * 10**12, CostSource.PRICED)
    assert book.cost(config, "other", usage) == (7 * 10**12, CostSource.PRICED)
    assert book.estimate(config, "other", usage) == (7 * 10**12, CostSource.ESTIMATED)


def test_free_is_said_only_where_it_is() -> None:
    book, usage = PriceBook(), Usage(10, 0, 0, 10)
    assert book.cost(ProviderConfig("l", "ollama"), "llama3.2:1b", usage) == (0, CostSource.FREE)
    dear = ProviderConfig("l", "ollama", prices={"*": ModelPrice(Decimal(1), Decimal(1))})
    assert book.cost(dear, "llama3.2:1b", usage) == (20_000_000, CostSource.PRICED)
    sim = ProviderConfig("s", "simulated", simulated_models={"m": SimulatedModel(input=Decimal(1), output=Decimal(2))})
    assert book.cost(sim, "m", usage) == (30_000_000, CostSource.PRICED)
    assert book.cost(sim, "echo", usage) == (0, CostSource.FREE)
    zero = ProviderConfig("v", "openai", "http://x", prices={"*": ModelPrice(Decimal(0), Decimal(0))})
    assert book.cost(zero, "m", usage) == (0, CostSource.FREE)


def test_a_longer_prompt_can_reach_a_dearer_tier() -> None:
    rate = Rate(Decimal(3), ((200_000, Decimal(6)),))
    rates = Rates(rate, rate, rate, rate, Rate(Decimal(0)))
    assert rates.cost(Usage(input=200_000)) == 200_000 * 3_000_000
    assert rates.cost(Usage(input=200_001)) == 200_001 * 6_000_000


def test_lookups_are_remembered_in_a_bounded_number() -> None:
    now = [0.0]
    book = PriceBook(clock=lambda: now[0])
    for number in range(600):
        book.rates(OPENAI, f"none-{number}")
    assert len(book._known) == 512
    assert book.rates(OPENAI, "gpt-6-luna") is book.rates(OPENAI, "gpt-6-luna")


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_usage_goes_to_openais_shape_and_back(a: int, b: int, c: int, d: int) -> None:
    usage = Usage(a, b, c, d)
    assume(usage.total_tokens)
    assert usage_from_openai(usage_to_openai(usage)) == usage


@pytest.mark.parametrize(
    "told",
    [
        None,
        5,
        "x",
        [],
        {},
        {"prompt_tokens": None},
        {"prompt_tokens": "7"},
        {"prompt_tokens": True},
        {"prompt_tokens": -5, "completion_tokens": 4},
        {"prompt_tokens": 10.5, "completion_tokens": 4},
        {"prompt_tokens": 10**30, "completion_tokens": 4},
        {"prompt_tokens": 0, "completion_tokens": 0},
    ],
)
def test_usage_that_tells_nothing_is_none(told: Any) -> None:
    assert usage_from_openai(told) is None


def test_what_was_thought_is_output_where_only_the_total_tells_it() -> None:
    told: dict[str, Any] = {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135}  # Gemini
    assert usage_from_openai(told) == Usage(input=32, output=103)
    told["completion_tokens_details"] = {"reasoning_tokens": 94}  # xAI
    assert usage_from_openai(told) == Usage(input=32, output=103, reasoning=94)
    told |= {"completion_tokens": 103}  # OpenAI
    assert usage_from_openai(told) == Usage(input=32, output=103, reasoning=94)
    assert usage_from_openai({"prompt_tokens": 10.0, "completion_tokens": 4.0}) == Usage(input=10, output=4)
    beside = {"prompt_tokens": 10, "total_tokens": 64, "completion_tokens": 4, "prompt_cache_hit_tokens": 50}
    assert usage_from_openai(beside) == Usage(cache_read=50, output=4)  # the rest of this total is no output


def test_a_price_that_makes_no_sense_is_none() -> None:
    assert [reported_cost_picousd({"cost": cost}) for cost in (1e300, "1e12", -1, "NaN")] == [None] * 4
    assert [reported_cost_picousd({"cost_in_usd_ticks": ticks}) for ticks in (10**20, -1, True, "5")] == [None] * 4


def test_xais_ticks_are_its_price() -> None:
    assert reported_cost_picousd({"cost_in_usd_ticks": 37_756_000}) == 3_775_600_000  # $0.0037756


def test_cached_tokens_are_taken_out_of_the_prompt() -> None:
    told = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 80}}
    assert usage_from_openai(told) == Usage(input=20, cache_read=80, output=5)
    assert usage_from_openai({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 80}}) == Usage(0, 80)


def test_reported_costs_are_read_exactly() -> None:
    assert reported_cost_picousd({"cost": 0.00042}) == 420_000_000
    assert reported_cost_picousd({"cost": {"total_cost": 1}}) == 10**12
    for told in (None, {}, {"cost": None}, {"cost": True}, {"cost": "much"}, {"cost": -1}, {"cost": float("nan")}):
        assert reported_cost_picousd(told) is None


def test_a_picture_is_not_counted_by_its_letters() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 400}, picture]}]}
    assert 1100 < estimate_prompt_tokens(body) < 1200
    text = base64.b64encode(b"word " * 80_000).decode()
    file = {"type": "file", "file": {"file_data": f"data:text/plain;base64,{text}"}}
    assert 99_000 < estimate_prompt_tokens({"messages": [{"role": "user", "content": [file]}]}) < 101_000
