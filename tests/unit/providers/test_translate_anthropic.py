from typing import Any

import orjson
import pytest
from upstreams.anthropic import check_messages
from upstreams.book import chat, function_tool

from engine.ledger import Usage
from engine.states import ErrorClass
from providers.errors import ProviderError
from providers.translate.anthropic_schema import structured_schema
from providers.translate.anthropic_to_openai import MessageReader, finish_reason, from_anthropic, usage_of
from providers.translate.openai_to_anthropic import to_anthropic

CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": [{"type": "text", "text": "And kind."}]},
    {"role": "user", "content": "Weather in two towns?"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Quick."},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "hm",
        "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}],
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "A"}'}},
            {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": ""}},
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "sun"},
    {"role": "tool", "tool_call_id": "c2", "content": ""},
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]},
]


def test_a_whole_conversation_is_one_that_anthropic_takes() -> None:
    request, dropped = to_anthropic(
        "claude-sonnet-4-5", {"messages": CONVERSATION, "tools": [function_tool("weather")]}
    )
    check_messages(request, "2023-06-01")
    assert dropped == ()
    assert [block["text"] for block in request["system"]] == ["Be brief.", "And kind."]
    assert [message["role"] for message in request["messages"]] == ["user", "assistant", "user"]
    first, answer, results = (message["content"] for message in request["messages"])
    assert [block["type"] for block in first] == ["text", "text", "image"]
    assert first[2]["source"] == {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    assert [block["type"] for block in answer] == ["thinking", "tool_use", "tool_use"]
    assert [block["input"] for block in answer[1:]] == [{"town": "A"}, {}]
    assert [block["type"] for block in results] == ["tool_result", "tool_result", "image"]
    assert results[0] == {"type": "tool_result", "tool_use_id": "c1", "content": "sun"}
    assert results[2]["source"] == {"type": "url", "url": "https://example.com/a.png"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"max_tokens": 4096}),
        ({"max_tokens": 7}, {"max_tokens": 7}),
        ({"max_completion_tokens": 8}, {"max_tokens": 8}),
        ({"temperature": 1.7}, {"temperature": 1}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["A", " "]}, {"stop_sequences": ["A"]}),
        ({"user": "u1"}, {"metadata": {"user_id": "u1"}}),
        ({"reasoning_effort": "minimal"}, {"output_config": {"effort": "low"}}),
        ({"tools": [function_tool("f")], "tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
        ({"tools": [function_tool("f")], "tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
        (
            {"tools": [function_tool("f")], "tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool_choice": {"type": "tool", "name": "f"}},
        ),
        (
            {"tools": [function_tool("f")], "parallel_tool_calls": False},
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
        ({"tools": [], "tool_choice": "auto"}, {}),
    ],
)
def test_parameters_find_their_words(given: dict[str, Any], expected: dict[str, Any]) -> None:
    request, dropped = to_anthropic("claude-sonnet-4-5", chat("hi", **given))
    check_messages(request, "2023-06-01")
    assert dropped == tuple(key for key in ("temperature", "stop") if given.get(key) in (1.7, ["A", " "]))
    assert {key: request[key] for key in expected} == expected
    assert given.get("tools") != [] or ("tools" not in request and "tool_choice" not in request)


def test_what_cannot_be_carried_is_named() -> None:
    body = chat("hi", seed=1, logprobs=True, frequency_penalty=0.5, temperature=0.5, top_p=0.5, store=False, user=None)
    request, dropped = to_anthropic(
        "claude-sonnet-4-5", {**body, "response_format": {"type": "json_object"}, "made_up": 1}
    )
    check_messages(request, "2023-06-01")
    assert set(dropped) == {"seed", "logprobs", "frequency_penalty", "top_p", "response_format", "made_up"}


@pytest.mark.parametrize(
    "told", [{}, {"output_tokens": 4}, {"input_tokens": -1, "output_tokens": 4}, {"input_tokens": 0}]
)
def test_counts_that_make_no_sense_are_none(told: dict[str, Any]) -> None:
    assert usage_of(told) is None


def test_what_messages_say_besides_is_named() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    thought = {"role": "assistant", "content": "y", "reasoning_content": "t", "refusal": None, "annotations": []}
    signed = {**thought, "thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": "s"}]}
    messages = [{"role": "user", "name": "bob", "content": [picture]}, thought, {"role": "user", "content": "go on"}]
    body = {"messages": messages, "response_format": {"type": "grammar"}}
    named = {"messages.name", "messages.reasoning_content", "image_url.detail", "response_format"}
    assert set(to_anthropic("claude-sonnet-4-5", body)[1]) == named
    assert to_anthropic("claude-sonnet-4-5", {"messages": [*chat("x")["messages"], signed]})[1] == ()


def test_files_and_custom_calls_find_their_blocks() -> None:
    def file(url: str) -> dict[str, Any]:
        return {"type": "file", "file": {"filename": "a", "file_data": url}}

    call = {"id": "c1", "type": "custom", "custom": {"name": "patch", "input": "*** begin"}}
    parts = [file("data:application/pdf;base64,JVBERi0="), file("data:text/plain;base64,R3LDvMOfZQ==")]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "tool_calls": [call]}]
    request, _ = to_anthropic("claude-sonnet-4-5", {"messages": messages})
    check_messages(request, "2023-06-01")
    pdf, text = request["messages"][0]["content"]
    assert pdf["source"]["type"] == "base64" and pdf["title"] == text["title"] == "a"
    assert text["source"] == {"type": "text", "media_type": "text/plain", "data": "Grüße"}
    used = {"type": "tool_use", "id": "c1", "name": "patch", "input": {"input": "*** begin"}}
    assert request["messages"][1]["content"] == [used]


@pytest.mark.parametrize(
    "body",
    [
        chat("hi", n=2),
        chat("hi", stop=5),
        chat("hi", stop=["a", 5]),
        {"messages": [{"role": "function", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://x"}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{"}}]}]},
        chat("hi", tools=[{"type": "web_search"}]),
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": ["hi"]}]},
        {"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}]},
        {"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "file", "file": {"file_data": "data:text/x;base64,/w=="}}]}
            ]
        },
    ],
)
def test_what_would_change_the_answer_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ProviderError) as caught:
        to_anthropic("claude-sonnet-4-5", body)
    assert caught.value.error_class is ErrorClass.INVALID_REQUEST
    assert caught.value.param is not None


def test_cache_marks_are_kept() -> None:
    mark = {"type": "ephemeral", "ttl": "1h"}
    part = {"type": "text", "text": "long", "cache_control": mark}
    tool = {**function_tool("f"), "cache_control": mark}
    body = {"messages": [{"role": "system", "content": [part]}, {"role": "user", "content": [part]}], "tools": [tool]}
    request, _ = to_anthropic("claude-sonnet-4-5", body)
    check_messages(request, "2023-06-01")
    assert request["system"][0]["cache_control"] == request["messages"][0]["content"][0]["cache_control"] == mark
    assert request["tools"][0]["cache_control"] == mark


def test_a_schema_keeps_its_bounds_as_words() -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 2, "description": "Who"},
            "tags": {
                "type": "array",
                "items": {"oneOf": [{"type": "integer", "maximum": 9}, {"type": "null"}]},
                "minItems": 3,
            },
            "at": {"type": "string", "format": "date"},
        },
        "required": ["name"],
        "additionalProperties": True,
    }
    fitted = structured_schema(schema)
    request, _ = to_anthropic(
        "m", chat("hi", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    )
    assert request["output_config"]["format"] == {"type": "json_schema", "schema": fitted}
    check_messages(request, "2023-06-01")
    assert fitted["additionalProperties"] is False and fitted["required"] == ["name"]
    assert fitted["properties"]["name"] == {"type": "string", "description": 'Who {"minLength":2}'}
    assert fitted["properties"]["at"] == {"type": "string", "format": "date"}
    assert "3" in fitted["properties"]["tags"]["description"]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
        (None, "stop"),
    ],
)
def test_stop_reasons_become_openais(reason: Any, expected: str) -> None:
    assert finish_reason(reason) == expected


def test_a_message_with_thinking_comes_back_whole() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 2,
        "output_tokens": 5,
        "output_tokens_details": {"thinking_tokens": 1},
    }
    message = {
        "id": "m",
        "type": "message",
        "model": "c",
        "stop_reason": "end_turn",
        "usage": usage,
        "content": [thinking, hidden, {"type": "text", "text": "ok"}],
    }
    body, told = from_anthropic(message)
    assert told == Usage(10, 3, 2, 5, 1)
    assert body["usage"]["prompt_tokens"] == 15
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": "ok",
        "reasoning_content": "hm",
        "thinking_blocks": [thinking, hidden],
    }
    again, _ = to_anthropic("c", {"messages": [{"role": "user", "content": "x"}, body["choices"][0]["message"]]})
    assert again["messages"][1]["content"] == [thinking, hidden, {"type": "text", "text": "ok"}]


def test_a_tool_call_without_arguments_still_ends_as_json() -> None:
    reader = MessageReader("c", ())
    events: list[dict[str, Any]] = [
        {
            "type": "message_start",
            "message": {"id": "m", "model": "c", "usage": {"input_tokens": 4, "output_tokens": 1}},
        },
        {"type": "ping"},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]
    chunks = [*(chunk for event in events for chunk in reader.event(event)), *reader.usage_chunk()]
    fragments = [
        call["function"]["arguments"]
        for chunk in chunks
        for choice in chunk.body["choices"]
        for call in choice["delta"].get("tool_calls", ())
    ]
    assert orjson.loads("".join(fragments)) == {}
    assert chunks[-1].usage == Usage(input=4, output=9)
    assert {(chunk.body["id"], chunk.body["created"], chunk.body["model"]) for chunk in chunks} == {
        ("m", chunks[0].body["created"], "c")
    }
    assert reader.finished and reader.done


def test_content_for_a_block_that_never_began_is_an_error() -> None:
    with pytest.raises(ProviderError):
        list(
            MessageReader("c", ()).event(
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}
            )
        )
