"""Failover over real sockets: order, pauses, what is held back, what is booked."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest
from upstreams.anthropic import AnthropicUpstream
from upstreams.book import PRICES, SCOPE, MemoryBook, chat, route
from upstreams.control import Fault
from upstreams.ollama import OllamaUpstream
from upstreams.openai import OpenAIUpstream

from engine.errors import AIGatewayError, BudgetExceeded, Conflict, Forbidden, LimitExceeded, UserError
from engine.ledger import UNKNOWN_PRICE, CallKind, CostSource, Intent
from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.failover import Failover
from providers.http import HttpClient
from providers.pricing import PriceBook
from providers.provider import ModelPrice, Provider, ProviderConfig, SimulatedModel, Timeouts
from providers.registry import build_providers
from providers.routing import Candidate, Route
from providers.walk import FailoverPolicy

QUICK = Timeouts(connect_s=2, first_content_s=0.3, idle_s=0.3, total_s=5)
PATIENT = Timeouts(connect_s=30, first_content_s=30, idle_s=30, total_s=60)


@dataclass
class House:
    """Two OpenAI upstreams and one of each other kind, one failover whose pauses are noted instead of slept."""

    first: OpenAIUpstream
    second: OpenAIUpstream
    anthropic: AnthropicUpstream
    ollama: OllamaUpstream
    providers: dict[str, Provider]
    book: MemoryBook = field(default_factory=MemoryBook)
    pauses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.failover = Failover(PriceBook(), sleep=self._pause, jitter=lambda: 1.0)

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    @property
    def both(self) -> Route:
        return route((self.providers["first"], "gpt-6-luna"), (self.providers["second"], "gpt-6-sol"))

    async def complete(self, where: Route | None = None, body: Any = None, policy: FailoverPolicy | None = None) -> Any:
        return await self.failover.complete(
            where or self.both, body or chat("hi"), scope=SCOPE, book=self.book, policy=policy
        )

    async def stream(self, where: Route | None = None, body: Any = None) -> Any:
        return await self.failover.stream(where or self.both, body or chat("hi"), scope=SCOPE, book=self.book)

    def counts(self) -> tuple[int, int]:
        return self.first.control.count(), self.second.control.count()


def in_house(use: Callable[[House], Awaitable[Any]], context: int = 100_000, timeouts: Timeouts = QUICK) -> Any:
    with ExitStack() as stack:
        first, second = (stack.enter_context(OpenAIUpstream(context=size)) for size in (context, 100_000))
        other, local = stack.enter_context(AnthropicUpstream()), stack.enter_context(OllamaUpstream())

        async def main() -> Any:
            http = HttpClient()
            configs = [
                ProviderConfig("first", "openai", first.base_url, "test-key", prices=PRICES, timeouts=timeouts),
                ProviderConfig("second", "openai", second.base_url, "test-key", prices=PRICES, timeouts=timeouts),
                ProviderConfig("anthropic", "anthropic", other.base_url, "test-key", prices=PRICES, timeouts=timeouts),
                ProviderConfig("ollama", "ollama", local.base_url, prices=PRICES, timeouts=timeouts),
            ]
            house = House(first, second, other, local, build_providers(configs, http))
            try:
                return await use(house)
            finally:
                await http.close()

        return asyncio.run(main())


def test_the_first_answers_when_it_can() -> None:
    async def use(house: House) -> None:
        done = await house.complete()
        assert (done.provider, done.model, len(done.attempts), house.counts()) == ("first", "gpt-6-luna", 1, (1, 0))
        assert (done.cost_source, done.cost_picousd) == (CostSource.PRICED, house.first.control.bill_picousd)
        [intent] = house.book.intents.values()
        assert (intent.kind, intent.requested_model, intent.streamed) == (CallKind.CHAT, "asked", False)
        assert intent.reserve_picousd and intent.reserve_picousd > done.cost_picousd

    in_house(use)


def test_retry_after_is_waited_out_and_the_same_candidate_answers() -> None:
    async def use(house: House) -> None:
        house.first.control.script(Fault("status", status=429, headers={"Retry-After": "4"}))
        done = await house.complete()
        assert (done.provider, house.pauses, house.counts()) == ("first", [4.0], (2, 0))
        assert [info.success for info in done.attempts] == [False, True]
        assert len({info.id for info in done.attempts} & house.book.settlements.keys()) == 2

    in_house(use)


def test_a_long_retry_after_moves_on_at_once_and_cools_the_candidate() -> None:
    async def use(house: House) -> None:
        house.first.control.script(Fault("status", status=429, headers={"Retry-After": "60"}))
        assert (await house.complete()).provider == "second"
        assert (house.pauses, house.counts()) == ([], (1, 1))
        assert (await house.complete()).provider == "second"
        assert house.counts() == (1, 2)
        alone = route((house.providers["first"], "gpt-6-luna"))
        assert (await house.complete(alone)).provider == "first"  # a sole candidate is always tried

    in_house(use)


def test_a_long_retry_after_on_the_last_candidate_is_told() -> None:
    async def use(house: House) -> None:
        house.first.control.script(Fault("status", status=429, headers={"Retry-After": "60"}))
        with pytest.raises(ProviderError) as caught:
            await house.complete(route((house.providers["first"], "gpt-6-luna")))
        assert (caught.value.retry_after_s, caught.value.status, house.pauses) == (60, 429, [])
        assert (caught.value.provider, caught.value.model) == ("first", "gpt-6-luna")

    in_house(use)


@pytest.mark.parametrize("fault", [Fault("status", status=500), Fault("status", status=503), Fault("reset")])
@pytest.mark.parametrize("stream", [False, True])
def test_lasting_trouble_is_retried_twice_then_left(fault: Fault, stream: bool) -> None:
    async def use(house: House) -> None:
        house.first.control.always(fault)
        if stream:
            async with await house.stream() as chunks:
                assert (chunks.provider, len(chunks.attempts)) == ("second", 3)
                assert [chunk async for chunk in chunks][-1].usage_only
                assert len(chunks.attempts) == 4
        else:
            assert (await house.complete()).provider == "second"
        assert (house.counts(), house.pauses) == ((3, 1), [0.5, 1.0])

    in_house(use)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("hang"),
        Fault("role_then_stall"),
        Fault("status", status=401),
        Fault("status", status=429, code="insufficient_quota"),
        Fault("status", status=404, code="model_not_found"),
    ],
)
def test_trouble_of_one_candidate_is_left_at_once(fault: Fault) -> None:
    async def use(house: House) -> None:
        house.first.control.script(fault)
        async with await house.stream() as chunks:
            texts = [c["delta"].get("content") or "" async for chunk in chunks for c in chunk.body["choices"]]
        assert (chunks.provider, "".join(texts), house.counts(), house.pauses) == (
            "second",
            "Answer to: hi",
            (1, 1),
            [],
        )

    in_house(use)


def test_a_context_that_is_too_long_goes_to_the_next() -> None:
    async def use(house: House) -> None:
        done = await house.complete(body=chat("a b c d e f g"))
        assert (done.provider, house.counts()) == ("second", (1, 1))
        assert done.attempts[0].error_class is ErrorClass.CONTEXT_LENGTH

    in_house(use, context=5)


@pytest.mark.parametrize(
    "fault",
    [Fault("status", status=400), Fault("status", status=422), Fault("status", status=400, code="content_filter")],
)
def test_a_wrong_or_refused_request_goes_nowhere_else(fault: Fault) -> None:
    async def use(house: House) -> None:
        house.first.control.script(fault)
        with pytest.raises(ProviderError) as caught:
            await house.complete()
        assert (caught.value.status, house.counts(), house.pauses) == (fault.status, (1, 0), [])

    in_house(use)


def test_the_last_error_is_the_answer_when_all_fail() -> None:
    async def use(house: House) -> None:
        house.first.control.always(Fault("status", status=500))
        house.second.control.always(Fault("status", status=429, message="Slow down."))
        with pytest.raises(ProviderError) as caught:
            await house.complete()
        assert (caught.value.status, caught.value.message, house.counts()) == (429, "Slow down.", (3, 3))
        assert [info.status_code for info in caught.value.attempts] == [500] * 3 + [429] * 3
        assert len(house.book.rows) == 6

    in_house(use)


def test_the_fallback_may_speak_another_dialect() -> None:
    async def use(house: House) -> None:
        house.first.control.always(Fault("reset"))
        house.anthropic.control.always(Fault("status", status=529))
        three = [("first", "gpt-6-luna"), ("anthropic", "claude-sonnet-5-5"), ("ollama", "llama3.2:1b")]
        done = await house.complete(
            route(*((house.providers[name], model) for name, model in three)), chat("hi", seed=1)
        )
        assert (done.provider, done.answer.body["choices"][0]["message"]["content"]) == ("ollama", "Answer to: hi")
        assert [info.provider for info in done.attempts] == ["first"] * 3 + ["anthropic"] * 3 + ["ollama"]

    in_house(use)


def test_after_the_first_content_there_is_no_second_try() -> None:
    async def use(house: House) -> None:
        house.first.control.script(Fault("cut"))
        texts: list[str] = []
        with pytest.raises(ProviderError) as caught:
            async with await house.stream() as chunks:
                async for chunk in chunks:
                    texts += [c["delta"].get("content") or "" for c in chunk.body["choices"]]
        assert "".join(texts) == "Answer to: "
        assert (caught.value.error_class, house.counts()) == (ErrorClass.CONNECTION, (1, 0))
        assert caught.value.attempts[0].ttft_us is not None
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)

    in_house(use)


def test_what_is_held_back_is_held_until_the_last_of_several_answers_has_ended() -> None:
    async def use(house: House) -> None:
        house.first.control.script(Fault("error_in_stream", after=5))  # the first of the two has ended by then
        async with await house.stream(replace(house.both, hold_back_s=60.0), chat("[words 3]", n=2)) as chunks:
            told = [choice async for chunk in chunks for choice in chunk.body["choices"]]
        texts = ["".join(c["delta"].get("content") or "" for c in told if c["index"] == index) for index in (0, 1)]
        assert (texts, house.counts()) == (["w0 w1 w2"] * 2, (2, 0))

    in_house(use)


def with_dear(house: House) -> Candidate:
    """A candidate at the second upstream whose worst case does not fit into the house's budget."""
    house.book = MemoryBook(budget_picousd=10**11)
    dear = {"*": ModelPrice(Decimal(1000), Decimal(1000))}
    costly = ProviderConfig("dear", "openai", house.second.base_url, "test-key", prices=dear)
    return Candidate(build_providers([costly], HttpClient())["dear"], "gpt-6-sol")


def test_the_fallback_is_checked_against_the_budget_again() -> None:
    """One that does not fit is passed over: what the other one said is the answer."""

    async def use(house: House) -> None:
        house.first.control.script(Fault("status", status=401))
        where = Route("asked", (house.both.candidates[0], with_dear(house)))
        with pytest.raises(ProviderError) as caught:
            await house.complete(where, chat("hi", max_tokens=1000))
        assert (caught.value.status, house.counts()) == (401, (1, 0))

    in_house(use)


@pytest.mark.parametrize("stream", [False, True])
def test_a_budget_that_refuses_the_first_lets_a_fitting_one_answer(stream: bool) -> None:
    async def use(house: House) -> None:
        where = Route("asked", (with_dear(house), house.both.candidates[0]))
        body = chat("hi", max_tokens=1000)
        if stream:
            async with await house.stream(where, body) as chunks:
                assert [chunk async for chunk in chunks][-1].usage_only
            assert chunks.provider == "first"
        else:
            assert (await house.complete(where, body)).provider == "first"
        assert (house.counts(), len(house.book.rows)) == ((1, 0), 1)

    in_house(use)


@pytest.mark.parametrize(
    "refusal", [UserError(UNKNOWN_PRICE, "no price"), Forbidden("model_not_allowed", "not this one")]
)
def test_a_missing_price_and_a_model_that_the_key_may_not_use_leave_the_others(refusal: UserError) -> None:
    class Picky(MemoryBook):
        async def open(self, intent: Intent) -> None:
            if intent.provider == "first":
                raise refusal
            await super().open(intent)

    async def use(house: House) -> None:
        house.book = Picky()
        assert (await house.complete()).provider == "second"
        with pytest.raises(UserError) as caught:
            await house.complete(Route("asked", house.both.candidates[:1]))
        assert (caught.value, house.counts()) == (refusal, (0, 1))

    in_house(use)


@pytest.mark.parametrize(
    "error",
    [
        LimitExceeded("slow", retry_after_s=1, unit="requests", limit=1, remaining=0),
        Conflict("attempt_superseded", "gone"),
    ],
)
def test_what_is_not_about_one_candidate_ends_the_chain(error: AIGatewayError) -> None:
    class Closed(MemoryBook):
        async def open(self, intent: Intent) -> None:
            raise error

    async def use(house: House) -> None:
        house.book = Closed()
        with pytest.raises(AIGatewayError) as caught:
            await house.complete()
        assert (caught.value, house.counts()) == (error, (0, 0))

    in_house(use)


def test_a_budget_is_the_answer_where_nobody_fits() -> None:
    async def use(house: House) -> None:
        dear = with_dear(house)
        for where in (Route("asked", (dear,)), Route("asked", (dear, replace(dear, model="gpt-6-luna")))):
            with pytest.raises(BudgetExceeded):
                await house.complete(where, chat("hi", max_tokens=1000))
        assert house.counts() == (0, 0)

    in_house(use)


def test_the_cost_is_known_before_the_usage_chunk_is_given_out() -> None:
    async def use(house: House) -> None:
        async with await house.stream() as chunks:
            assert chunks.cost_picousd is None
            async for chunk in chunks:
                if chunk.usage_only:
                    assert chunks.cost_picousd == house.book.cost_picousd == house.first.control.bill_picousd
        assert chunks.usage and chunks.usage.total_tokens

    in_house(use)


def test_embeddings_fail_over_and_are_booked() -> None:
    async def use(house: House) -> None:
        house.first.control.script(Fault("status", status=401))
        where = route(*((house.providers[name], "text-embedding-3-small") for name in ("first", "second")))
        done = await house.failover.embeddings(where, {"input": "a b"}, scope=SCOPE, book=house.book)
        assert (done.provider, done.cost_picousd) == ("second", 2_000_000)
        assert {intent.kind for intent in house.book.intents.values()} == {CallKind.EMBEDDINGS}

    in_house(use)


def test_the_simulated_provider_fails_over_like_any_other() -> None:
    async def use(house: House) -> None:
        sims = {
            "a": SimulatedModel(fail=("timeout",)),
            "b": SimulatedModel(reply="b", input=Decimal(1), output=Decimal(2)),
        }
        sim = build_providers([ProviderConfig("sim", "simulated", simulated_models=sims)], HttpClient())["sim"]
        done = await house.complete(route((sim, "a"), (sim, "b")))
        assert (done.model, done.cost_picousd, done.cost_source) == ("b", 3_000_000, CostSource.PRICED)

    in_house(use)


MIX = [
    None,
    None,
    None,
    "status",
    "reset",
    "cut",
    "no_usage",
    "no_done",
    "malformed",
    "error_in_stream",
    "not_json",
    "empty",
]


async def one_of_the_mix(house: House, number: int, chance: random.Random) -> None:
    name, model = chance.choice([("first", "gpt-6-luna"), ("anthropic", "claude-haiku-5-5"), ("ollama", "llama3.2:1b")])
    where = route((house.providers[name], model), (house.providers["second"], "gpt-6-sol"))
    leave = chance.random() < 0.15
    body = chat(
        f"a b c d e [words {chance.randint(1, 30)}] [cached {chance.randint(0, 4)}] [think {chance.randint(0, 3)}] [marker {'left' if leave else 'stays'}] {number}"
    )
    try:
        if not leave and chance.random() < 0.5:
            await house.complete(where, body)
        else:
            async with await house.stream(where, body) as chunks:
                async for chunk in chunks:
                    if leave and chunk.has_content:
                        break
    except ProviderError:
        pass


def test_the_books_balance_over_a_random_mix() -> None:
    """Where usage was told, ledger and bill agree to the pico-dollar; every upstream call has its one row."""
    chance = random.Random(20261122)

    async def use(house: House) -> None:
        services = [house.first, house.second, house.anthropic, house.ollama]
        for service in services:
            faults = [chance.choice(MIX) for _ in range(400)]
            service.control.script(*(Fault(kind, after=chance.randint(0, 3)) if kind else None for kind in faults))
        gate = asyncio.Semaphore(16)

        async def gated(number: int) -> None:
            async with gate:
                await one_of_the_mix(house, number, chance)

        await asyncio.gather(*(gated(number) for number in range(300)))
        await house.failover.drain()
        calls = sum(service.control.count() for service in services)
        assert len(house.book.intents) == len(house.book.rows) == calls > 300
        priced = sum(row.cost_picousd or 0 for row in house.book.rows if row.cost_source is CostSource.PRICED)
        for service in services:
            await asyncio.to_thread(
                service.control.wait, lambda control: all(c.outcome != "running" for c in control.calls)
            )
        told = sum(
            call.picousd
            for service in services
            for call in service.control.calls
            if call.usage_told and call.marker == "stays"  # who leaves may miss what was sent
        )
        assert priced == told > 0
        assert {row.cost_source for row in house.book.rows} >= {
            CostSource.PRICED,
            CostSource.ESTIMATED,
            CostSource.FREE,
        }

    in_house(use, timeouts=PATIENT)  # a busy machine is no reason to miss what was told
