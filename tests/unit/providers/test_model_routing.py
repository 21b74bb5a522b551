import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from engine.errors import NotFound, RetryableError
from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.provider import Answer, Chunk, Provider, ProviderConfig, ProviderType
from providers.routing import LIST_TTL_S, Alias, ModelLists, Router


class Listed:
    """A provider that is nothing but its list of models; None: it cannot be reached."""

    def __init__(self, name: str, kind: ProviderType, offers: list[str] | None, **more: Any) -> None:
        self.config = ProviderConfig(name, kind, **more)
        self.offers = offers
        self.asked = 0

    async def list_models(self) -> list[str]:
        self.asked += 1
        if self.offers is None:
            raise ProviderError(ErrorClass.CONNECTION, "down")
        return self.offers

    async def chat(self, model: str, body: Any) -> Answer:
        raise NotImplementedError

    async def embeddings(self, model: str, body: Any) -> Answer:
        raise NotImplementedError

    def stream(self, model: str, body: Any) -> AsyncGenerator[Chunk, None]:
        raise NotImplementedError


OPENAI = Listed("openai", "openai", ["gpt-6-luna", "shared"], default_model="gpt-6-luna")
ANTHROPIC = Listed("anthropic", "anthropic", ["claude-sonnet-5-5"])
OLLAMA = Listed("ollama", "ollama", ["llama3.2:1b", "qwen2.5:32b-instruct", "shared"])
ALIASES = {
    "fast": Alias(("ollama/llama3.2:1b", "openai/gpt-6-luna")),
    "both": Alias(("fast", "anthropic/claude-sonnet-5-5", "openai/gpt-6-luna")),
    "loop": Alias(("pool",)),
    "pool": Alias(("loop",)),
    "claude-sonnet-5-5": Alias(("ollama/llama3.2:1b",), strategy="weighted"),
}


def resolve(name: str, *providers: Provider, aliases: dict[str, Alias] | None = None) -> list[str]:
    given = providers or (OPENAI, ANTHROPIC, OLLAMA)
    router = Router({provider.config.name: provider for provider in given}, aliases if aliases is not None else ALIASES)
    found = asyncio.run(router.resolve(name))
    assert found.requested == name
    return ["/".join(candidate.key) for candidate in found.candidates]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fast", ["ollama/llama3.2:1b", "openai/gpt-6-luna"]),
        ("both", ["ollama/llama3.2:1b", "openai/gpt-6-luna", "anthropic/claude-sonnet-5-5"]),
        ("claude-sonnet-5-5", ["ollama/llama3.2:1b"]),  # a configured name comes first
        ("openai/whatever/is-new", ["openai/whatever/is-new"]),  # the upstream decides
        ("openai", ["openai/gpt-6-luna"]),
        ("ollama", ["ollama/llama3.2:1b"]),
        ("qwen2.5:32b-instruct", ["ollama/qwen2.5:32b-instruct"]),  # listed by one
        ("claude-sonnet-4-5", ["anthropic/claude-sonnet-4-5"]),  # listed by none, priced as one's
        ("local", ["ollama/llama3.2:1b"]),
    ],
)
def test_names_resolve_in_the_promised_order(name: str, expected: list[str]) -> None:
    assert resolve(name) == expected


def test_local_can_be_configured() -> None:
    assert resolve("local", aliases={"local": Alias(("ollama/qwen2.5:32b-instruct",))}) == [
        "ollama/qwen2.5:32b-instruct"
    ]


def test_a_configured_list_needs_no_upstream() -> None:
    down = Listed("vllm", "openai", None, models=("my-model",))
    assert resolve("my-model", down, OLLAMA) == ["vllm/my-model"]
    assert down.asked == 0


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("gpt-6-lun", "openai/gpt-6-luna"), ("fats", "fast"), ("lama3.2:1b", "ollama/llama3.2:1b"), ("zzzzzz", "fast")],
)
def test_an_unknown_name_is_told_its_nearest(name: str, nearest: str) -> None:
    with pytest.raises(NotFound) as caught:
        resolve(name)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert f"`{nearest}`" in caught.value.message


def test_a_name_that_two_providers_list_has_to_be_written_out() -> None:
    with pytest.raises(NotFound, match="`openai/shared`, `ollama/shared`"):
        resolve("shared")


def test_a_priced_name_is_its_makers_among_all_that_speak_the_protocol() -> None:
    openai = Listed("openai", "openai", None)
    at_google = Listed("google", "openai", None, base_url="https://generativelanguage.googleapis.com/v1beta/openai")
    mine = Listed("mine", "openai", None, base_url="http://127.0.0.1:9/v1")
    assert resolve("gpt-4o-mini", openai, at_google, mine) == ["openai/gpt-4o-mini"]
    assert resolve("gemini-2.5-flash", openai, at_google, mine) == ["google/gemini-2.5-flash"]
    assert resolve("gpt-4o-mini", mine) == ["mine/gpt-4o-mini"]
    with pytest.raises(NotFound, match="google, mine could not be asked"):
        resolve("gpt-4o-mini", at_google, mine)


def test_a_circle_of_names_is_refused() -> None:
    with pytest.raises(NotFound, match="leads back to itself"):
        resolve("loop")


def test_a_provider_without_default_says_what_to_write() -> None:
    with pytest.raises(NotFound, match="anthropic/MODEL"):
        resolve("anthropic", Listed("anthropic", "anthropic", ["a", "b"]))


@pytest.mark.parametrize("name", ["local", "ollama"])
def test_a_provider_that_cannot_be_asked_is_not_a_404(name: str) -> None:
    with pytest.raises(RetryableError) as caught:
        resolve(name, Listed("ollama", "ollama", None))
    assert caught.value.code == "provider_unavailable"


def test_an_unheard_of_name_says_who_could_not_be_asked() -> None:
    with pytest.raises(NotFound, match="ollama could not be asked"):
        resolve("unheard-of", Listed("ollama", "ollama", None))


def test_a_provider_that_is_down_hides_no_other() -> None:
    assert resolve("gpt-6-luna", OPENAI, Listed("ollama", "ollama", None)) == ["openai/gpt-6-luna"]
    router = Router({"ollama": Listed("ollama", "ollama", None), "openai": OPENAI}, {})
    assert [row.id for row in asyncio.run(router.list_names())] == ["openai/gpt-6-luna", "openai/shared"]


def test_lists_are_kept_for_a_while() -> None:
    now = [0.0]
    provider = Listed("ollama", "ollama", ["a"])
    lists = ModelLists(clock=lambda: now[0])

    async def ask() -> None:
        await lists.of(provider)
        await lists.of(provider)
        assert provider.asked == 1
        now[0] = LIST_TTL_S
        await lists.of(provider)
        assert provider.asked == 2

    asyncio.run(ask())


def test_all_names_are_listed() -> None:
    router = Router({"ollama": OLLAMA, "anthropic": ANTHROPIC}, {"fast": ALIASES["fast"]})
    rows = [(row.id, row.owned_by) for row in asyncio.run(router.list_names())]
    assert rows[:3] == [("local", "aigateway"), ("fast", "aigateway"), ("ollama/llama3.2:1b", "ollama")]
    assert ("anthropic/claude-sonnet-5-5", "anthropic") in rows
