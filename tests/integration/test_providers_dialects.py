"""Each dialect against its strict upstream over a real socket: plain, streamed, tools, pictures, schemas, embeddings."""

import asyncio
import base64
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import orjson
import pytest
from upstreams.anthropic import AnthropicUpstream
from upstreams.book import chat, function_tool
from upstreams.ollama import OllamaUpstream
from upstreams.openai import OpenAIUpstream
from upstreams.server import Upstream

from engine.ledger import Usage
from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.http import HttpClient
from providers.provider import Chunk, Provider, ProviderConfig
from providers.registry import build_providers

MODELS = {"openai": "gpt-6-luna", "anthropic": "claude-sonnet-5-5", "ollama": "llama3.2:1b"}
DIALECTS = sorted(MODELS)
PICTURE = "data:image/png;base64," + base64.b64encode(b"not really a picture").decode()


@pytest.fixture(scope="module")
def upstreams() -> Iterator[dict[str, Upstream]]:
    with ExitStack() as stack:
        services = {"openai": OpenAIUpstream(), "anthropic": AnthropicUpstream(), "ollama": OllamaUpstream()}
        yield {name: stack.enter_context(service) for name, service in services.items()}


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def upstream(upstreams: dict[str, Upstream], dialect: str) -> Upstream:
    upstreams[dialect].control.reset()
    return upstreams[dialect]


def ask(upstream: Upstream, dialect: str, question: Callable[[Provider], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        http = HttpClient()
        config = ProviderConfig("p", dialect, upstream.base_url, None if dialect == "ollama" else "test-key")  # type: ignore[arg-type]
        try:
            return await question(build_providers([config], http)["p"])
        finally:
            await http.close()

    return asyncio.run(run())


def whole(upstream: Upstream, dialect: str, body: dict[str, Any], model: str | None = None) -> Any:
    return ask(upstream, dialect, lambda provider: provider.chat(model or MODELS[dialect], body))


def streamed(upstream: Upstream, dialect: str, body: dict[str, Any]) -> list[Chunk]:
    async def collect(provider: Provider) -> list[Chunk]:
        return [chunk async for chunk in provider.stream(MODELS[dialect], body)]

    return ask(upstream, dialect, collect)


def assembled(chunks: list[Chunk]) -> dict[str, Any]:
    """The message that a client puts together; it checks what clients rely on."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
    assert len({(chunk.body["id"], chunk.body["model"], chunk.body["created"]) for chunk in chunks}) == 1
    for chunk in chunks:
        for choice in chunk.body["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            message["reasoning_content"] += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls") or ():
                if call["index"] == len(message["tool_calls"]):
                    message["tool_calls"].append({"id": call["id"], "name": call["function"]["name"], "arguments": ""})
                assert call["index"] == len(message["tool_calls"]) - 1, "parallel calls are interleaved"
                message["tool_calls"][-1]["arguments"] += call["function"].get("arguments") or ""
    return message


def test_plain_and_streamed_answers_are_the_same(upstream: Upstream, dialect: str) -> None:
    body = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "good day"}]}
    answer = whole(upstream, dialect, body)
    chunks = streamed(upstream, dialect, body)
    assert answer.body["choices"][0]["message"]["content"] == assembled(chunks)["content"] == "Answer to: good day"
    assert answer.body["object"] == "chat.completion" and answer.body["choices"][0]["finish_reason"] == "stop"
    assert answer.usage == Usage(input=4, output=4)
    assert [chunk.usage for chunk in chunks if chunk.usage] == [answer.usage]
    assert chunks[-1].usage_only and chunks[-1].body["choices"] == []
    assert len({tuple(chunk.body[key] for key in ("id", "created", "model", "object")) for chunk in chunks}) == 1
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    assert not chunks[0].has_content and chunks[1].has_content
    assert answer.upstream_model == MODELS[dialect]


def test_parallel_tool_calls_and_their_results(upstream: Upstream, dialect: str) -> None:
    tools = [function_tool("sum", a={"type": "integer"}), function_tool("now")]
    body = chat('use tool sum with {"a": 1} and use tool now', tools=tools)
    message = whole(upstream, dialect, body).body["choices"][0]["message"]
    live = assembled(streamed(upstream, dialect, body))
    called = [(call["function"]["name"], orjson.loads(call["function"]["arguments"])) for call in message["tool_calls"]]
    assert called == [("sum", {"a": 1}), ("now", {})]
    assert [(call["name"], orjson.loads(call["arguments"])) for call in live["tool_calls"]] == called
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": f"result {n}"}
        for n, call in enumerate(message["tool_calls"])
    ]
    after = {"messages": [*body["messages"], message, *results], "tools": tools}
    assert (
        whole(upstream, dialect, after).body["choices"][0]["message"]["content"] == "The tool said: result 0 result 1"
    )


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_token_limit_are_taken(upstream: Upstream, dialect: str, limit: str) -> None:
    answer = whole(upstream, dialect, chat("[words 20]", **{limit: 5}))
    assert answer.body["choices"][0]["finish_reason"] == "length"
    assert answer.usage.output == 5
    if dialect == "openai":
        whole(upstream, dialect, chat("[words 20]", **{limit: 5}), model="gpt-4.1-mini")
        assert [sorted(call.body) for call in upstream.control.calls] == [
            ["max_completion_tokens", "messages", "model"],
            ["max_tokens", "messages", "model"],
        ]


def test_pictures_go_along(upstream: Upstream, dialect: str) -> None:
    parts = [{"type": "text", "text": "what"}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    answer = whole(upstream, dialect, {"messages": [{"role": "user", "content": parts}]})
    assert answer.usage.input == 86


def test_a_schema_gives_data(upstream: Upstream, dialect: str) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}, "required": ["n"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    answer = whole(upstream, dialect, chat("x", response_format=wanted))
    assert orjson.loads(answer.body["choices"][0]["message"]["content"]).keys() == {"n"}


def test_stops_and_sampling_are_carried(upstream: Upstream, dialect: str) -> None:
    answer = whole(upstream, dialect, chat("one END two", stop="END", temperature=1.5))
    assert answer.body["choices"][0]["message"]["content"].strip() == "Answer to: one"
    assert answer.dropped == (("temperature",) if dialect == "anthropic" else ())  # which goes to 1 there


@pytest.mark.parametrize("dialect", ["anthropic"])
def test_thinking_becomes_reasoning_and_goes_back_signed(upstream: Upstream, dialect: str) -> None:
    tools = [function_tool("now")]
    body = chat("[think 3] use tool now", tools=tools)
    live = assembled(streamed(upstream, dialect, body))
    assert live["reasoning_content"] == "thought0 thought1 thought2 "
    message = whole(upstream, dialect, body).body["choices"][0]["message"]
    assert message["thinking_blocks"][0]["signature"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "noon"}
    whole(upstream, dialect, {"messages": [*body["messages"], message, result], "tools": tools})
    assert upstream.control.calls[-1].body["messages"][1]["content"][0]["type"] == "thinking"


@pytest.mark.parametrize("dialect", ["ollama"])
def test_ollamas_thinking_becomes_reasoning(upstream: Upstream, dialect: str) -> None:
    body = chat("[think 2] x", reasoning_effort="low")
    answer = whole(upstream, dialect, body, model="gpt-oss:20b")
    assert answer.body["choices"][0]["message"]["reasoning_content"] == "thought0 thought1 "


@pytest.mark.parametrize("dialect", ["anthropic", "openai"])
def test_cached_tokens_are_buckets_of_their_own(upstream: Upstream, dialect: str) -> None:
    body = chat("a b c d e [cached 4] [cache_write 2] [think 1]")
    expected = Usage(input=5, cache_read=4, cache_write=2, output=14, reasoning=1)
    assert whole(upstream, dialect, body).usage == expected
    assert streamed(upstream, dialect, body)[-1].usage == expected


@pytest.mark.parametrize("dialect", ["openai"])
def test_openai_passes_what_is_not_known_here(upstream: Upstream, dialect: str) -> None:
    extra = {
        "verbosity": "low",
        "metadata": {"a": "b"},
        "logit_bias": {"1": 1},
        "seed": 7,
        "tools": [],
        "tool_choice": "auto",
    }
    answer = whole(upstream, dialect, {"temperature": 1, **chat("x"), **extra})
    sent = upstream.control.calls[-1].body
    assert list(sent) == ["temperature", "messages", "verbosity", "metadata", "logit_bias", "seed", "model"]
    assert answer.body["system_fingerprint"] == "fp_test" and answer.body["service_tier"] == "default"
    with pytest.raises(ProviderError) as caught:
        whole(upstream, dialect, chat("x", made_up=1))
    assert (caught.value.status, caught.value.message) == (400, "Unrecognized request argument supplied: made_up")


@pytest.mark.parametrize("dialect", ["openai"])
def test_usage_is_always_asked_for_and_null_usage_shown_only_on_demand(upstream: Upstream, dialect: str) -> None:
    quiet = streamed(upstream, dialect, chat("x", stream_options={"include_obfuscation": False}))
    assert upstream.control.calls[-1].body["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert quiet[-1].usage_only and all("usage" not in chunk.body for chunk in quiet[:-1])
    asked = streamed(upstream, dialect, chat("x", stream_options={"include_usage": True}))
    assert all(chunk.body["usage"] is None for chunk in asked[:-1])


@pytest.mark.parametrize("dialect", ["openai"])
def test_several_choices_are_all_waited_for(upstream: Upstream, dialect: str) -> None:
    chunks = streamed(upstream, dialect, chat("x", n=2))
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop", "stop"]
    assert whole(upstream, dialect, chat("x", n=2)).usage.output == 6


def test_models_are_listed(upstream: Upstream, dialect: str) -> None:
    assert ask(upstream, dialect, lambda provider: provider.list_models()) == list(upstream.models)


@pytest.mark.parametrize("dialect", ["openai", "ollama"])
def test_embeddings(upstream: Upstream, dialect: str) -> None:
    model = "text-embedding-3-small" if dialect == "openai" else MODELS[dialect]
    plain = ask(upstream, dialect, lambda provider: provider.embeddings(model, {"input": ["a b", "c"]}))
    packed = ask(
        upstream, dialect, lambda provider: provider.embeddings(model, {"input": "a b", "encoding_format": "base64"})
    )
    assert plain.usage == Usage(input=3) and len(plain.body["data"]) == 2
    assert (
        list(struct.unpack("<8f", base64.b64decode(packed.body["data"][0]["embedding"])))
        == plain.body["data"][0]["embedding"]
    )


@pytest.mark.parametrize("dialect", ["anthropic"])
def test_anthropic_has_no_embeddings(upstream: Upstream, dialect: str) -> None:
    with pytest.raises(ProviderError) as caught:
        ask(upstream, dialect, lambda provider: provider.embeddings("x", {"input": "a"}))
    assert caught.value.error_class is ErrorClass.INVALID_REQUEST and upstream.control.count() == 0


def test_an_unknown_model_is_not_found_everywhere(upstream: Upstream, dialect: str) -> None:
    with pytest.raises(ProviderError) as caught:
        whole(upstream, dialect, chat("x"), model="none")
    assert (caught.value.error_class, caught.value.status) == (ErrorClass.INVALID_REQUEST, 404)
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("dialect", ["openai"])
def test_unknown_upstream_keys_survive_a_stream(upstream: Upstream, dialect: str) -> None:
    assert all(chunk.body["service_tier"] == "default" for chunk in streamed(upstream, dialect, chat("x")))
