"""The strict upstreams themselves: the vendors' own clients work against them unmodified, and bad requests are refused."""

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

import anthropic
import openai
import pytest
from upstreams.anthropic import AnthropicUpstream
from upstreams.book import chat, function_tool
from upstreams.control import Fault, Price
from upstreams.ollama import OllamaUpstream
from upstreams.openai import OpenAIUpstream
from upstreams.serve import upstream_process

TOOL_MESSAGES = [
    {"role": "user", "content": "hi"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
]


def post(url: str, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_openai_client_works_unmodified() -> None:
    with OpenAIUpstream() as up, openai.OpenAI(base_url=up.base_url, api_key="test-key") as client:
        whole = client.chat.completions.create(
            model="gpt-6-luna", messages=[{"role": "user", "content": "good day [cached 1]"}]
        )
        assert whole.choices[0].message.content == "Answer to: good day [cached 1]"
        assert (
            whole.usage and whole.usage.prompt_tokens_details and whole.usage.prompt_tokens_details.cached_tokens == 1
        )
        stream = client.chat.completions.create(
            model="gpt-6-luna",
            messages=[{"role": "user", "content": 'use tool sum with {"a": 1}'}],
            tools=[function_tool("sum")],  # type: ignore[list-item]
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        arguments = "".join(
            call.function.arguments or ""
            for c in chunks
            if c.choices
            for call in c.choices[0].delta.tool_calls or ()
            if call.function
        )
        assert json.loads(arguments) == {"a": 1}
        assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 1
        assert client.models.list().data[0].id == "gpt-6-luna"
        vectors = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])  # asks for base64
        assert len(vectors.data[0].embedding) == 8
        up.control.script(Fault("status", status=429, code="rate_limit_exceeded", headers={"retry-after-ms": "1"}))
        assert client.chat.completions.create(model="gpt-6-luna", messages=[{"role": "user", "content": "x"}]).id
        assert up.control.count() == 5
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.chat.completions.create(model="none", messages=[{"role": "user", "content": "x"}])
    told = sum(call.picousd for call in up.control.calls)
    assert up.control.bill_picousd == told > 0


def test_the_anthropic_client_works_unmodified() -> None:
    with AnthropicUpstream() as up, anthropic.Anthropic(base_url=up.base_url, api_key="test-key") as client:
        message = client.messages.create(
            model="claude-sonnet-5-5", max_tokens=50, messages=[{"role": "user", "content": "good day [think 2]"}]
        )
        assert [block.type for block in message.content] == ["thinking", "text"]
        assert message.usage.output_tokens == 8
        with client.messages.stream(
            model="claude-sonnet-5-5",
            max_tokens=50,
            tools=[{"name": "sum", "input_schema": {"type": "object"}}],
            messages=[{"role": "user", "content": 'use tool sum with {"a": 1} and use tool sum'}],
        ) as stream:
            final = stream.get_final_message()
        assert [block.input for block in final.content if block.type == "tool_use"] == [{"a": 1}, {}]
        assert final.stop_reason == "tool_use"
        counted = client.messages.count_tokens(
            model="claude-sonnet-5-5", messages=[{"role": "user", "content": "a b c"}]
        )
        assert counted.input_tokens == 3
        assert client.models.list().data[0].id == "claude-sonnet-4-5"
        assert {call.headers["anthropic-version"] for call in up.control.calls} == {"2026-10-21"}


OPENAI_REFUSALS: list[tuple[dict[str, Any], str, str | None]] = [
    (chat("x", foo=1), "Unrecognized request argument supplied: foo", None),
    (chat("x", max_tokens=5), "'max_tokens' is not supported with this model", "unsupported_parameter"),
    (chat("x", temperature="hot"), "Invalid type for 'temperature'", "invalid_type"),
    (chat("x", user=None), "Invalid type for 'user'", "invalid_type"),
    (chat("x", stream_options={"include_usage": True}), "only allowed when 'stream' is enabled", None),
    (chat("x", tools=[]), "Invalid 'tools': empty array", "empty_array"),
    (chat("x", tool_choice="auto"), "only allowed when 'tools' are specified", None),
    ({"messages": []}, "Invalid 'messages': empty array", "empty_array"),
    ({}, "Missing required parameter: 'messages'", "missing_required_parameter"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "Invalid value: 'robot'", "invalid_value"),
    ({"messages": [{"role": "user", "content": None}]}, "Invalid type for 'messages[0].content'", "invalid_type"),
    (
        {"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]},
        "must be a response to a preceding message",
        None,
    ),
    ({"messages": TOOL_MESSAGES}, "must be followed by tool messages", None),
    ({"messages": [*TOOL_MESSAGES, {"role": "user", "content": "x"}]}, "must be followed by tool messages", None),
    (
        {"messages": [*TOOL_MESSAGES, {"role": "tool", "tool_call_id": "zz", "content": "x"}]},
        "must be a response",
        None,
    ),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}
            ]
        },
        "Invalid image URL",
        "invalid_image_url",
    ),
]


def test_openai_refuses_what_openai_refuses() -> None:
    with OpenAIUpstream() as up:
        url, key = f"{up.base_url}/chat/completions", {"Authorization": "Bearer test-key"}
        for body, message, code in OPENAI_REFUSALS:
            status, answer = post(url, {"model": "gpt-6-luna", **body}, key)
            assert (status, answer["error"]["code"]) == (400, code), answer
            assert message in answer["error"]["message"], answer
        assert post(url, chat("x"))[0] == 401
        assert post(url, chat("x"), {"Authorization": "Bearer wrong"})[1]["error"]["code"] == "invalid_api_key"
        assert {call.outcome for call in up.control.calls} == {"refused"}
        assert up.control.bill_picousd == 0


RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "x"}
USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
ANTHROPIC_REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"foo": 1}, "foo: Extra inputs are not permitted"),
    ({"max_tokens": None}, "max_tokens"),
    ({"messages": [{"role": "system", "content": "x"}]}, 'Unexpected role "system"'),
    ({"messages": []}, "messages: at least one"),
    ({"messages": [{"role": "user", "content": ""}]}, "messages.0.content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]},
        "text content blocks must be non-empty",
    ),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "Input tag 'image_url'"),
    ({"messages": [{"role": "user", "content": [RESULT]}]}, "unexpected `tool_use_id`"),
    (
        {
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": [USE]},
                {"role": "user", "content": "y"},
            ]
        },
        "without `tool_result`",
    ),
    (
        {
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": [USE]},
                {"role": "user", "content": [{"type": "text", "text": "first"}, RESULT]},
            ]
        },
        "immediately after",
    ),
    ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "so "}]}, "trailing whitespace"),
    ({"temperature": 2}, "temperature"),
    ({"temperature": 1, "top_p": 1}, "cannot both be specified"),
    ({"tool_choice": {"type": "auto"}}, "only be specified while providing tools"),
    ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}, "additionalProperties"),
]


def test_anthropic_refuses_what_anthropic_refuses() -> None:
    with AnthropicUpstream() as up:
        url = f"{up.base_url}/v1/messages"
        old = {"x-api-key": "test-key", "anthropic-version": "2023-06-01"}
        good = {"model": "claude-sonnet-5-5", "max_tokens": 10, **chat("x")}
        for change, message in ANTHROPIC_REFUSALS:
            status, answer = post(url, {**good, **change}, old)
            assert (status, answer["type"], answer["error"]["type"]) == (400, "error", "invalid_request_error"), answer
            assert message in answer["error"]["message"], answer
        without = {key: value for key, value in good.items() if key != "max_tokens"}
        assert post(url, without, old)[1]["error"]["message"] == "max_tokens: Field required"
        assert (
            post(url, good, {"x-api-key": "test-key"})[1]["error"]["message"] == "anthropic-version: header is required"
        )
        assert post(url, good, {"anthropic-version": "2023-06-01"})[0] == 401
        assert post(url, {**good, "model": "claude-none"}, old)[0] == 404
        assert post(url, {**good, "temperature": 0.5}, old)[0] == 200
        new = {"Authorization": "Bearer test-key", "anthropic-version": "2026-10-21"}
        assert post(url, good, new)[0] == 200
        for name in ("temperature", "top_p", "top_k"):
            assert post(url, {**good, name: 1}, new)[1]["error"]["message"] == f"{name}: Extra inputs are not permitted"


def test_ollama_refuses_what_ollama_refuses() -> None:
    with OllamaUpstream() as up:
        url = f"{up.base_url}/api/chat"
        good = {"model": "llama3.2:1b", "stream": False, **chat("x")}
        assert post(url, good)[0] == 200
        assert post(url, {**good, "model": "none"}) == (404, {"error": "model 'none' not found"})
        bad_call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
        assert post(url, {**good, "messages": [bad_call]})[0] == 400
        assert post(url, {**good, "messages": [{"role": "user", "content": "x", "images": ["https://x"]}]})[0] == 400
        assert post(url, {**good, "messages": [{"role": "user", "content": [{"type": "text"}]}]})[0] == 400
        assert post(url, {**good, "think": True})[0] == 400


def test_calls_are_counted_by_model_and_marker_and_billed_by_what_was_sent() -> None:
    price = Price()
    with OpenAIUpstream(prices={"*": price}) as up:
        url, key = f"{up.base_url}/chat/completions", {"Authorization": "Bearer test-key"}
        post(url, {"model": "gpt-6-luna", **chat("a b [marker run-1]")}, key)
        post(url, {"model": "gpt-6-sol", **chat("a b")}, {**key, "x-test-marker": "run-1"})
        assert up.control.count(marker="run-1") == 2
        assert up.control.count(model="gpt-6-sol") == 1
        first, second = up.control.calls
        assert (first.tokens.input, first.tokens.output) == (4, 6)
        assert up.control.bill_picousd == first.picousd + second.picousd == (4 + 2 * 6 + 2 + 2 * 4) * 10**6


def test_another_process_serves_and_is_steered_over_http() -> None:
    async def ask(base_url: str) -> str | None:
        async with openai.AsyncOpenAI(base_url=base_url, api_key="test-key", max_retries=0) as client:
            whole = await client.chat.completions.create(
                model="gpt-6-luna", messages=[{"role": "user", "content": "x [marker m]"}]
            )
            return whole.choices[0].message.content

    with upstream_process() as services:
        up = services["openai"]
        up.script(Fault("status", status=503))
        with pytest.raises(openai.InternalServerError):
            asyncio.run(ask(up.base_url))
        assert asyncio.run(ask(up.base_url)) == "Answer to: x [marker m]"
        state = up.wait(lambda seen: seen["running"] == 0)
        assert state["by_marker"] == {"m": 2} and state["bill_picousd"] > 0
        up.reset()
        assert up.state()["total"] == 0
        assert (
            post(f"{services['ollama'].base_url}/api/chat", {"model": "llama3.2:1b", "stream": False, **chat("x")})[0]
            == 200
        )
