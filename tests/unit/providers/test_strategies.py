import random
from collections import Counter
from collections.abc import Callable
from decimal import Decimal

import pytest

from providers.abilities import Abilities, Needs, has_images, has_tools
from providers.observed import EXPLORE_EVERY_S, STALE_S, Observations
from providers.pricing import PriceBook
from providers.provider import ModelAbilities, ModelPrice, ProviderConfig
from providers.routing import Candidate, Group, Route
from providers.simulated import SimulatedProvider
from providers.strategies import Chooser, Size

SIZE = Size(prompt_tokens=1000, output_limit=1000, streamed=True)


def candidate(name: str, price: ModelPrice | None = None, **abilities: object) -> Candidate:
    told = {"m": ModelAbilities(**abilities)} if abilities else {}  # pyright: ignore[reportArgumentType]
    prices = {"*": price} if price else {}
    return Candidate(SimulatedProvider(ProviderConfig(name, "simulated", prices=prices, abilities=told)), "m")


A, B, C = (candidate(name) for name in "abc")


class Desk:
    """A chooser whose clock stands still until it is told."""

    def __init__(self, chance: Callable[[], float] = lambda: 0.0) -> None:
        self.now = 0.0
        self.observed = Observations(lambda: self.now)
        self.chooser = Chooser(PriceBook(), self.observed, chance)

    def line(
        self, strategy: str, *members: Candidate | Group, weights: tuple[float, ...] = (), size: Size = SIZE
    ) -> str:
        group = Group(strategy, members, weights)
        flat = [one for member in members for one in (member.members if isinstance(member, Group) else (member,))]
        route = Route("asked", tuple(one for one in flat if isinstance(one, Candidate)), group)
        return "".join(found.key[0] for found in self.chooser.line(route, lambda: size))


@pytest.mark.parametrize(("chance", "expected"), [(0.0, "abc"), (0.59, "abc"), (0.61, "bac"), (0.95, "cba")])
def test_weighted_draws_by_weight_and_the_rest_the_same_way(chance: float, expected: str) -> None:
    assert Desk(lambda: chance).line("weighted", A, B, C, weights=(6, 3, 1)) == expected


def test_weighted_keeps_its_shares() -> None:
    dice = random.Random(7)
    desk = Desk(dice.random)
    first = Counter(desk.line("weighted", A, B, C, weights=(6, 3, 1))[0] for _ in range(10_000))
    assert abs(first["a"] - 6000) < 200 and abs(first["b"] - 3000) < 200 and abs(first["c"] - 1000) < 200


def test_least_busy_counts_this_process_calls() -> None:
    desk = Desk()
    assert desk.line("least_busy", A, B, C) == "abc"
    desk.observed.began(A.key)
    desk.observed.began(A.key)
    desk.observed.began(B.key)
    assert desk.line("least_busy", A, B, C) == "cba"
    desk.observed.ended(A.key)
    desk.observed.ended(A.key)
    assert desk.line("least_busy", A, B, C) == "acb"


def test_least_latency_asks_the_fastest_and_tries_the_unmeasured_a_bounded_number_of_times() -> None:
    desk = Desk()
    assert [desk.line("least_latency", A, B)[0] for _ in range(4)] == ["a", "b", "a", "a"]
    desk.observed.measured(A.key, streamed=True, seconds=0.9)
    desk.observed.measured(B.key, streamed=True, seconds=0.2)
    assert [desk.line("least_latency", A, B) for _ in range(3)] == ["ba"] * 3
    for _ in range(20):
        desk.observed.measured(B.key, streamed=True, seconds=2.0)
    assert desk.line("least_latency", A, B) == "ab"


def test_least_latency_measures_again_what_it_has_not_seen_for_a_while() -> None:
    desk = Desk()
    for key, seconds in ((A.key, 0.1), (B.key, 5.0)):
        desk.observed.measured(key, streamed=True, seconds=seconds)
    desk.now = STALE_S
    desk.observed.measured(A.key, streamed=True, seconds=0.1)
    assert [desk.line("least_latency", A, B) for _ in range(3)] == ["ba", "ab", "ab"]
    desk.now += EXPLORE_EVERY_S
    assert [desk.line("least_latency", A, B) for _ in range(2)] == ["ba", "ab"]


def test_least_latency_forgets_who_failed_and_keeps_whole_answers_apart() -> None:
    desk = Desk()
    plain = Size(1, 1, streamed=False)
    for key, seconds in ((A.key, 0.1), (B.key, 0.5)):
        desk.observed.measured(key, streamed=True, seconds=seconds)
        desk.observed.measured(key, streamed=False, seconds=1 - seconds)
    assert (desk.line("least_latency", A, B), desk.line("least_latency", A, B, size=plain)) == ("ab", "ba")
    desk.observed.forget(A.key)
    assert [desk.line("least_latency", A, B) for _ in range(2)] == ["ab", "ba"]


def test_cheapest_is_for_the_size_of_the_request_free_first_unknown_last() -> None:
    reads = candidate("r", ModelPrice(Decimal(1), Decimal(10)))
    writes = candidate("w", ModelPrice(Decimal(4), Decimal(4)))
    free = candidate("f", ModelPrice(Decimal(0), Decimal(0)))
    unknown = Candidate(SimulatedProvider(ProviderConfig("u", "openai", "http://127.0.0.1:9/v1")), "m")
    desk = Desk()
    assert desk.line("cheapest", unknown, writes, reads, free, size=Size(9000, 100, False)) == "frwu"
    assert desk.line("cheapest", unknown, reads, writes, free, size=Size(100, 9000, False)) == "fwru"


def test_a_name_inside_a_name_keeps_its_own_strategy() -> None:
    desk = Desk(lambda: 0.99)
    inner = Group("weighted", (A, B), (1, 1))
    assert desk.line("ordered", inner, C) == "bac"
    desk.observed.began(B.key)
    assert desk.line("least_busy", inner, C) == "cba"


def test_who_cannot_take_the_request_is_left_out_where_another_can() -> None:
    small = candidate("s", context_length=100)
    deaf, blind = candidate("d", tools=False), candidate("b", images=False)
    able = Abilities().able
    line = [small, deaf, blind]
    assert able(line, Needs(100, tools=False, images=False)) == line
    assert able(line, Needs(101, tools=False, images=False)) == [deaf, blind]
    assert able(line, Needs(1, tools=True, images=True)) == [small]
    assert able([small], Needs(101, tools=False, images=False)) == [small]


def test_only_a_larger_model_takes_what_was_too_long() -> None:
    small, same, large, unknown = (candidate(str(size), context_length=size or None) for size in (100, 100, 200, 0))
    abilities = Abilities()
    assert abilities.larger([same, large, unknown], small) == [large, unknown]
    assert abilities.larger([same, large], unknown) == [same, large]


def test_the_tables_know_contexts() -> None:
    anthropic = Candidate(SimulatedProvider(ProviderConfig("x", "anthropic")), "claude-sonnet-4-5")
    assert (Abilities().context_length(anthropic) or 0) >= 200_000
    own = Candidate(SimulatedProvider(ProviderConfig("x", "openai", "http://gpu/v1")), "gpt-4o")
    assert Abilities().context_length(own) is None


def test_pictures_and_tools_are_seen_in_every_dialect() -> None:
    picture = {"type": "image", "source": {"type": "base64"}}
    assert has_images({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]})
    assert has_images({"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [picture]}]}]})
    assert has_images({"input": [{"role": "user", "content": [{"type": "input_image"}]}]})
    assert not has_images({"messages": [{"role": "user", "content": "an image"}], "input": "text"})
    assert (has_tools({"tools": [{}]}), has_tools({"tools": []}), has_tools({})) == (True, False, False)
