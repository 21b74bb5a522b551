import asyncio
import base64
import struct
from typing import Any

import pytest
from upstreams.book import chat, function_tool

from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.provider import Chunk, ProviderConfig, SimulatedModel, SimulatedToolCall
from providers.simulated import SimulatedProvider


def provider(**models: SimulatedModel) -> SimulatedProvider:
    return SimulatedProvider(ProviderConfig("sim", "simulated", simulated_models=models))


async def collect(sim: SimulatedProvider, model: str, body: Any) -> list[Chunk]:
    return [chunk async for chunk in sim.stream(model, body)]


def text(chunks: list[Chunk]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.body["choices"])


def test_echo_is_always_there() -> None:
    body = {
        "messages": [
            {"role": "user", "content": "one"},
            {"role": "user", "content": [{"type": "text", "text": "two  three"}]},
        ]
    }
    answer = asyncio.run(provider().chat("echo", body))
    assert answer.body["choices"][0]["message"]["content"] == "two  three"
    assert text(asyncio.run(collect(provider(), "echo", body))) == "two  three"
    assert answer.usage and (answer.usage.input, answer.usage.output) == (3, 3)


def test_failures_are_used_up_in_order() -> None:
    sim = provider(flaky=SimulatedModel(reply="ok", fail=(500, "timeout", 429, "reset")))

    async def run() -> list[Any]:
        seen: list[Any] = []
        for _ in range(5):
            try:
                seen.append((await sim.chat("flaky", chat("x"))).body["choices"][0]["message"]["content"])
            except ProviderError as error:
                seen.append(error.error_class)
        return seen

    expected = [ErrorClass.SERVER_ERROR, ErrorClass.TIMEOUT, ErrorClass.RATE_LIMIT, ErrorClass.CONNECTION, "ok"]
    assert asyncio.run(run()) == expected


def test_a_cut_stream_gives_half_and_then_fails() -> None:
    sim = provider(cut=SimulatedModel(reply="a b c d", fail=("cut",)))
    seen: list[Chunk] = []

    async def run() -> None:
        async for chunk in sim.stream("cut", chat("x")):
            seen.append(chunk)

    with pytest.raises(ProviderError) as caught:
        asyncio.run(run())
    assert caught.value.error_class is ErrorClass.CONNECTION
    assert text(seen) == "a b "


@pytest.mark.parametrize(("chunks", "expected"), [(0, 6), (3, 3), (4, 3), (1, 1), (99, 6)])
def test_the_number_of_chunks_is_kept_to(chunks: int, expected: int) -> None:
    sim = provider(m=SimulatedModel(reply="a b c d e f", chunks=chunks))
    seen = asyncio.run(collect(sim, "m", chat("x")))
    assert sum(chunk.has_content for chunk in seen) == expected
    assert text(seen) == "a b c d e f"
    assert seen[-2].finish_reason == "stop" and seen[-1].usage_only


def test_limits_and_scripted_counts() -> None:
    sim = provider(m=SimulatedModel(reply="a b c d", tokens_in=1000, tokens_out=7))
    answer = asyncio.run(sim.chat("m", chat("x", max_tokens=2)))
    assert answer.body["choices"][0]["finish_reason"] == "length"
    assert answer.body["choices"][0]["message"]["content"] == "a b"
    assert answer.usage and (answer.usage.input, answer.usage.output) == (1000, 7)


def test_scripted_tools_are_called_where_they_are_offered() -> None:
    sim = provider(m=SimulatedModel(reply="done", tool_calls=(SimulatedToolCall("sum", {"a": 1}),)))
    body = chat("x", tools=[function_tool("sum")])
    answer = asyncio.run(sim.chat("m", body))
    call = answer.body["choices"][0]["message"]["tool_calls"][0]
    assert call["function"] == {"name": "sum", "arguments": '{"a":1}'}
    assert answer.body["choices"][0]["finish_reason"] == "tool_calls"
    body["messages"] += [
        answer.body["choices"][0]["message"],
        {"role": "tool", "tool_call_id": call["id"], "content": "1"},
    ]
    assert asyncio.run(sim.chat("m", body)).body["choices"][0]["message"]["content"] == "done"
    assert asyncio.run(sim.chat("m", chat("x"))).body["choices"][0]["message"]["content"] == "done"


def test_a_tool_whose_name_is_no_text_is_never_called() -> None:
    sim = provider(m=SimulatedModel(reply="so", tool_calls=(SimulatedToolCall("f"),)))
    answer = asyncio.run(sim.chat("m", chat("x", tools=[{"type": "function", "function": {"name": {"a": 1}}}])))
    assert answer.body["choices"][0]["message"]["content"] == "so"


def test_an_unknown_model_is_not_found() -> None:
    with pytest.raises(ProviderError) as caught:
        asyncio.run(provider().chat("none", chat("x")))
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_equal_texts_have_equal_vectors() -> None:
    sim = provider()
    plain = asyncio.run(sim.embeddings("echo", {"input": ["a", "b", "a"]})).body["data"]
    assert plain[0]["embedding"] == plain[2]["embedding"] != plain[1]["embedding"]
    packed = asyncio.run(sim.embeddings("echo", {"input": "a", "encoding_format": "base64", "dimensions": 8})).body[
        "data"
    ]
    assert list(struct.unpack("<8f", base64.b64decode(packed[0]["embedding"]))) == plain[0]["embedding"]
    one = asyncio.run(sim.embeddings("echo", {"input": [1, 2, 3]}))
    assert len(one.body["data"]) == 1 and one.usage and one.usage.input == 3
