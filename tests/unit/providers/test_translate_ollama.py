from typing import Any

import pytest
from upstreams.book import chat, function_tool
from upstreams.ollama import check_chat

from engine.ledger import Usage
from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.translate.ollama_to_openai import LineReader, from_ollama, usage_of
from providers.translate.openai_to_anthropic import to_anthropic
from providers.translate.openai_to_ollama import to_ollama


def test_a_tool_conversation_names_its_tools() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "sum", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
    ]
    request, dropped = to_ollama("m", {"messages": messages, "tools": [function_tool("sum")]}, stream=False)
    check_chat(request)
    assert dropped == ()
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    assert request["messages"][1] == {"role": "user", "content": "a", "images": ["AAAA"]}
    assert request["messages"][2]["tool_calls"][0]["function"] == {"name": "sum", "arguments": {"a": 1}}
    assert request["messages"][3] == {"role": "tool", "content": "1", "tool_call_id": "c1", "tool_name": "sum"}


@pytest.mark.parametrize(
    ("given", "key", "expected"),
    [
        ({"max_tokens": 5}, "options", {"num_predict": 5}),
        (
            {"max_completion_tokens": 6, "temperature": 0, "stop": "x"},
            "options",
            {"num_predict": 6, "temperature": 0, "stop": ["x"]},
        ),
        ({"options": {"num_ctx": 9}, "seed": 3}, "options", {"num_ctx": 9, "seed": 3}),
        ({"response_format": {"type": "json_object"}}, "format", "json"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}},
            "format",
            {"type": "object"},
        ),
        ({"reasoning_effort": "high"}, "think", True),
        ({"reasoning_effort": "none"}, "think", False),
        ({"keep_alive": "5m"}, "keep_alive", "5m"),
    ],
)
def test_parameters_find_their_words(given: dict[str, Any], key: str, expected: Any) -> None:
    request, dropped = to_ollama("llama3.2:1b", chat("hi", **given), stream=True)
    check_chat(request)
    assert request[key] == expected and request["stream"] is True and dropped == ()


def test_effort_levels_go_to_the_models_that_know_them() -> None:
    assert to_ollama("gpt-oss:20b", chat("hi", reasoning_effort="minimal"), stream=False)[0]["think"] == "low"


def test_what_cannot_be_carried_is_named() -> None:
    body = chat(
        "hi", logit_bias={"1": 1}, service_tier="auto", tool_choice="required", user="u", tools=[function_tool("f")]
    )
    assert set(to_ollama("m", body, stream=False)[1]) == {"logit_bias", "service_tier", "tool_choice"}
    part = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    said = {"messages": [{"role": "user", "name": "bob", "content": [part]}], "response_format": {"type": "grammar"}}
    assert set(to_ollama("m", said, stream=False)[1]) == {"messages.name", "cache_control", "response_format"}
    none = to_ollama("m", {**body, "tool_choice": "none"}, stream=False)
    assert "tools" not in none[0] and "tool_choice" not in none[1]


@pytest.mark.parametrize(
    "body",
    [
        chat("x", n=3),
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "assistant", "audio": {"id": "a"}}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/a.png"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]},
        {
            "messages": [
                {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "[1]"}}]}
            ]
        },
    ],
)
def test_what_would_change_the_answer_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ProviderError) as caught:
        to_ollama("m", body, stream=False)
    assert caught.value.error_class is ErrorClass.INVALID_REQUEST


def test_counts_that_are_left_out() -> None:
    assert usage_of({}) is None
    assert usage_of({"eval_count": 3}) == Usage(output=3)
    assert usage_of({"prompt_eval_count": 4}) == Usage(input=4)
    assert usage_of({"prompt_eval_count": "4", "eval_count": 3}) is None  # half a count is none


def test_logprobs_come_back_where_they_were_asked_for() -> None:
    tokens = [{"token": "hi", "logprob": -0.1, "bytes": [104, 105], "top_logprobs": []}]
    told = {"message": {"content": "hi"}, "logprobs": tokens}
    expected = {"content": tokens, "refusal": None}
    assert from_ollama(told, "m")[0]["choices"][0]["logprobs"] == expected
    chunks = [chunk for chunk in LineReader("m", ()).line(told) if chunk.has_content]
    assert [chunk.body["choices"][0]["logprobs"] for chunk in chunks] == [expected]


def test_tool_calls_get_ids_and_their_finish_reason() -> None:
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    body, usage = from_ollama(
        {
            "message": {"role": "assistant", "content": "", "tool_calls": [call, call]},
            "done": True,
            "done_reason": "stop",
        },
        "m",
    )
    message = body["choices"][0]["message"]
    assert usage is None and "usage" not in body
    assert body["choices"][0]["finish_reason"] == "tool_calls" and message["content"] is None
    assert len({made["id"] for made in message["tool_calls"]}) == 2
    assert message["tool_calls"][0]["function"]["arguments"] == '{"a":1}'


def test_a_load_that_ends_the_stream_is_a_stop() -> None:
    reader = LineReader("m", ("seed",))
    chunks = list(reader.line({"model": "m", "message": {"content": ""}, "done": True, "done_reason": "load"}))
    assert [chunk.finish_reason for chunk in chunks] == [None, "stop"]
    assert chunks[0].dropped == ("seed",) and reader.finished


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", "many"),
        ("max_completion_tokens", True),
        ("temperature", "hot"),
        ("seed", [1]),
        ("stop", 5),
        ("stop", [1]),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(name: str, value: object) -> None:
    """Ollama answers 500 to it, which would be tried again and elsewhere."""
    with pytest.raises(ProviderError) as refused:
        to_ollama("m", {"messages": [{"role": "user", "content": "x"}], name: value}, stream=False)
    assert (refused.value.error_class, refused.value.param) == (ErrorClass.INVALID_REQUEST, name)


def test_of_allowed_tools_those_alone_are_offered() -> None:
    tools = [function_tool("one"), function_tool("two")]
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "two"}}]}
    body = {**chat("x"), "tools": tools, "tool_choice": {"type": "allowed_tools", "allowed_tools": allowed}}
    request, dropped = to_ollama("m", body, stream=False)
    assert (request["tools"], dropped) == ([tools[1]], ())
    anthropic, dropped = to_anthropic("claude-sonnet-5-5", body)
    assert ([tool["name"] for tool in anthropic["tools"]], anthropic["tool_choice"], dropped) == (
        ["two"],
        {"type": "auto"},
        (),
    )
    allowed["mode"] = "required"
    assert to_ollama("m", body, stream=False)[1] == ("tool_choice",)
    assert to_anthropic("claude-sonnet-5-5", body)[0]["tool_choice"] == {"type": "any"}


def test_a_tool_that_is_no_function_is_refused() -> None:
    with pytest.raises(ProviderError, match="`custom` cannot be carried"):
        to_ollama("m", {**chat("x"), "tools": [{"type": "custom", "custom": {"name": "c"}}]}, stream=False)


def test_what_anthropic_takes_in_part_is_named() -> None:
    request, dropped = to_anthropic("claude-sonnet-5-5", {**chat("x"), "temperature": 1.7, "stop": ["a", "\n"]})
    assert (request["temperature"], request["stop_sequences"]) == (1, ["a"])
    assert set(dropped) == {"temperature", "stop"}
