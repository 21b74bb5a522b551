"""`/v1/messages` to chat and back: what is made passes the strict checks of the dialect it is made for."""

import copy
from typing import Any

import pytest
from upstreams.ollama import check_chat as check_ollama
from upstreams.openai import check_chat as check_openai

from engine.ledger import Usage
from providers.errors import ProviderError
from providers.provider import Chunk, Json, ProviderType
from providers.translate.anthropic_in import from_messages
from providers.translate.anthropic_in_answer import stop_reason, to_message, usage_to_anthropic, without_unsigned
from providers.translate.anthropic_in_events import EventWriter
from providers.translate.anthropic_meter import EventMeter, content_size
from providers.translate.openai_to_ollama import to_ollama

CACHED = {"cache_control": {"type": "ephemeral"}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
TOOL: Json = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
CONVERSATION: list[Json] = [
    {"role": "user", "content": [{"type": "text", "text": "See", **CACHED}, IMAGE, {"type": "text", "text": ""}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "it"}},
            {"type": "tool_use", "id": "t2", "name": "look", "input": {}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "seen"}, IMAGE]},
            {"type": "tool_result", "tool_use_id": "t2", "content": "gone", "is_error": True},
            {"type": "text", "text": "Well?"},
        ],
    },
]


def request(**more: Any) -> Json:
    return {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}], **more}


def test_a_whole_conversation_for_openai() -> None:
    body = request(messages=CONVERSATION, tools=[{**TOOL, **CACHED}], system=[{"type": "text", "text": "Be brief."}])
    before = copy.deepcopy(body)
    wording = from_messages(body, "openai")
    check_openai({**wording.body, "model": "gpt-4.1-mini"})
    assert body == before and not wording.native
    assert set(wording.dropped) == {"cache_control", "thinking", "redacted_thinking"}
    system, user, answer, *results, last = wording.body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert [part["type"] for part in user["content"]] == ["text", "image_url"]
    assert user["content"][1]["image_url"]["url"] == "data:image/png;base64,AAAA"
    assert answer["content"] == "I look."
    assert [call["function"]["arguments"] for call in answer["tool_calls"]] == ['{"at":"it"}', "{}"]
    assert [(each["tool_call_id"], each["content"]) for each in results] == [("t1", "seen"), ("t2", "Error: gone")]
    assert [part["type"] for part in last["content"]] == ["text", "image_url", "text"]
    assert "t1" in last["content"][0]["text"]


def test_a_whole_conversation_for_ollama() -> None:
    wording = from_messages(request(messages=CONVERSATION, tools=[TOOL], top_k=4), "ollama")
    assert wording.body["messages"][1]["reasoning_content"] == "hm"
    made, dropped = to_ollama("m", wording.body, stream=False)
    check_ollama(made)
    assert made["options"]["top_k"] == 4 and made["messages"][1]["thinking"] == "hm" and dropped == ()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"system": "s"}, {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]}),
        ({"stop_sequences": ["a"]}, {"stop": ["a"]}),
        ({"metadata": {"user_id": "u"}}, {"user": "u"}),
        ({"temperature": 0, "top_p": 0.5, "stream": True}, {"temperature": 0, "top_p": 0.5, "stream": True}),
        ({"tools": [TOOL], "tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        ({"tools": [TOOL], "tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
        (
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "look", "disable_parallel_tool_use": True}},
            {"tool_choice": {"type": "function", "function": {"name": "look"}}, "parallel_tool_calls": False},
        ),
        ({"output_config": {"effort": "xhigh"}}, {"reasoning_effort": "xhigh"}),
    ],
)
def test_parameters_that_have_a_word(given: Json, expected: Json) -> None:
    wording = from_messages(request(**given), "openai")
    check_openai({**wording.body, "model": "gpt-4.1-mini"})
    assert wording.dropped == ()
    assert {key: wording.body[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("given", "dropped", "target"),
    [
        ({"top_k": 3}, ("top_k",), "openai"),
        ({"top_k": 3}, (), "simulated"),
        ({"container": "c"}, ("container",), "ollama"),
        ({"container": None}, (), "ollama"),
        ({"metadata": {"user_id": "u", "team": "t"}}, ("metadata.team",), "openai"),
        ({"stop_sequences": list("abcde")}, ("stop_sequences",), "openai"),
        ({"stop_sequences": list("abcde")}, (), "ollama"),
        ({"thinking": {"type": "adaptive"}}, (), "openai"),
        ({"thinking": {"type": "disabled"}}, ("thinking",), "openai"),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, ("thinking.display",), "ollama"),
        ({"output_config": {"effort": "low", "task_budget": {}}}, ("output_config.task_budget",), "openai"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, ("thinking.budget_tokens",), "openai"),
        ({"tools": [{**TOOL, "input_examples": []}]}, ("tools.input_examples",), "openai"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            ("prefill",),
            "openai",
        ),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, (), "ollama"),
    ],
)
def test_what_has_none_is_named(given: Json, dropped: tuple[str, ...], target: ProviderType) -> None:
    assert from_messages(request(**given), target).dropped == dropped


@pytest.mark.parametrize(
    ("budget", "effort"), [(1024, "low"), (2048, "low"), (2049, "medium"), (16_384, "medium"), (32_000, "high")]
)
def test_a_thinking_budget_becomes_an_effort(budget: int, effort: str) -> None:
    wording = from_messages(request(thinking={"type": "enabled", "budget_tokens": budget}), "openai")
    assert wording.body["reasoning_effort"] == effort


def test_documents() -> None:
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}
    blocks: list[Json] = [
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}, "title": "T"},
        {"type": "document", "source": pdf, "title": "t.pdf", "citations": {"enabled": True}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "inner"}, IMAGE]}},
        {"type": "search_result", "title": "R", "source": "s", "content": [{"type": "text", "text": "found"}]},
    ]
    wording = from_messages(request(messages=[{"role": "user", "content": blocks}]), "openai")
    check_openai({**wording.body, "model": "gpt-4.1-mini"})
    first, file, inner, picture, result = wording.body["messages"][0]["content"]
    assert first["text"] == "T\nwords" and inner["text"] == "inner" and picture["type"] == "image_url"
    assert file["file"] == {"filename": "t.pdf", "file_data": "data:application/pdf;base64,AAAA"}
    assert result["text"] == "R\ns\nfound" and wording.dropped == ("citations",)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0"),
        ({"messages": [{"role": "user", "content": [{"type": "odd"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "assistant", "content": [{"type": "server_tool_use"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}
                ]
            },
            "messages.0.content.0.source",
        ),
    ],
)
def test_content_that_cannot_be_carried_is_refused(given: Json, param: str) -> None:
    with pytest.raises(ProviderError) as caught:
        from_messages(request(**given), "openai")
    assert caught.value.param == param and caught.value.status == 400 and caught.value.message.startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (
            {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "required": ["a"],
                "additionalProperties": False,
            },
            True,
        ),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": [], "additionalProperties": False},
            False,
        ),
        ({"type": "object", "properties": {}, "required": []}, False),
        ({"type": "array", "items": {"type": "object", "properties": {}}}, False),
        ({"anyOf": [{"type": "object", "properties": {}, "additionalProperties": False}, {"type": "null"}]}, True),
    ],
)
def test_a_schema_is_strict_where_openai_would_take_it(schema: Json, strict: bool) -> None:
    config = {"format": {"type": "json_schema", "schema": schema}}
    made = from_messages(request(output_config=config), "openai").body["response_format"]
    assert made["json_schema"].get("strict", False) is strict and made["json_schema"]["schema"] == schema


def completion(finish_reason: str = "stop", **message: Any) -> Json:
    return {"model": "up", "choices": [{"message": {"role": "assistant", **message}, "finish_reason": finish_reason}]}


def test_a_whole_answer() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
    odd = {"id": "d", "type": "function", "function": {"name": "look", "arguments": "{broken"}}
    message = to_message(
        completion("tool_calls", content="So", reasoning_content="hm", tool_calls=[call, odd]),
        "m",
        Usage(input=1, cache_read=2, cache_write=3, output=4, reasoning=1),
    )
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert message["content"][0] == {"type": "thinking", "thinking": "hm", "signature": ""}
    assert message["content"][2]["input"] == {"a": 1} and message["content"][3]["input"] == {"_arguments": "{broken"}
    assert message["model"] == "up" and message["stop_reason"] == "tool_use" and message["stop_sequence"] is None
    assert message["usage"] == {
        "input_tokens": 1,
        "cache_read_input_tokens": 2,
        "cache_creation_input_tokens": 3,
        "output_tokens": 4,
        "output_tokens_details": {"thinking_tokens": 1},
    }


@pytest.mark.parametrize(
    ("reason", "calls", "expected"),
    [
        ("stop", False, "end_turn"),
        ("stop", True, "tool_use"),
        ("length", True, "max_tokens"),
        ("content_filter", False, "refusal"),
        ("never heard of", False, "end_turn"),
        (None, False, "end_turn"),
    ],
)
def test_stop_reasons(reason: Any, calls: bool, expected: str) -> None:
    assert stop_reason(reason, calls=calls) == expected


def deltas(*given: Json, finish: str = "stop") -> list[Chunk]:
    chunks = [Chunk({"choices": [{"delta": delta}]}) for delta in given]
    return [*chunks, Chunk({"choices": [{"delta": {}, "finish_reason": finish}]}, finish_reason=finish)]


def written(chunks: list[Chunk]) -> list[Json]:
    writer = EventWriter("m")
    events = [writer.start(Usage(input=5))]
    for chunk in chunks:
        events += writer.chunk(chunk)
    return [*events, *writer.end(Usage(input=5, output=2))]


def call_piece(index: int, arguments: str, **more: Any) -> Json:
    return {"tool_calls": [{"index": index, **more, "function": {"name": "look", "arguments": arguments}}]}


def test_blocks_follow_each_other() -> None:
    events = written(
        deltas(
            {"role": "assistant", "content": ""},
            {"reasoning_content": "h"},
            {"reasoning_content": "m"},
            {"content": "So"},
            call_piece(0, "", id="a"),
            call_piece(0, "{}"),
            call_piece(1, '{"b":1}', id="b"),
            finish="tool_calls",
        )
    )
    told = [(event["type"], event.get("index")) for event in events]
    assert told == [
        ("message_start", None),
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("content_block_start", 2),
        ("content_block_delta", 2),
        ("content_block_stop", 2),
        ("content_block_start", 3),
        ("content_block_delta", 3),
        ("content_block_stop", 3),
        ("message_delta", None),
        ("message_stop", None),
    ]
    assert events[0]["message"]["usage"]["input_tokens"] == 5
    assert events[-2]["delta"]["stop_reason"] == "tool_use" and events[-2]["usage"]["output_tokens"] == 2


def test_an_answer_without_content_has_no_block() -> None:
    assert [event["type"] for event in written(deltas())] == ["message_start", "message_delta", "message_stop"]


def test_mixed_up_tool_calls_are_no_answer() -> None:
    with pytest.raises(ProviderError, match="mixed up"):
        written(deltas(call_piece(0, "{", id="a"), call_piece(1, "{", id="b"), call_piece(0, "}")))


def test_unsigned_thinking_is_taken_out_and_nothing_else() -> None:
    signed = {"type": "thinking", "thinking": "a", "signature": "s"}
    unsigned = {"type": "thinking", "thinking": "b", "signature": ""}
    text = {"type": "text", "text": "c"}
    clean = request(messages=[{"role": "assistant", "content": [signed, text]}])
    assert without_unsigned(clean) == (clean, False) and without_unsigned(clean)[0] is clean
    mixed = request(
        messages=[
            {"role": "assistant", "content": [unsigned, text]},
            {"role": "assistant", "content": [unsigned]},
            {"role": "user", "content": "x"},
        ]
    )
    body, changed = without_unsigned(mixed)
    assert changed and body["messages"] == [
        {"role": "assistant", "content": [text]},
        {"role": "user", "content": "x"},
    ]


def test_native_events_are_metered_and_left_alone() -> None:
    meter = EventMeter()
    events: list[Json] = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1, "odd": 1}}},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "four"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "x", "name": "look"}},
        {"type": "something_new", "value": 1},
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 7}},
    ]
    chunks = [chunk for event in events for chunk in meter.event(event)]
    assert [chunk.body for chunk in chunks] == events and all(chunk.native for chunk in chunks)
    assert [chunk.has_content for chunk in chunks] == [False, False, False, True, False, True, False, False]
    assert sum(chunk.size for chunk in chunks) == 8 and chunks[-1].finish_reason == "length"
    assert chunks[0].prompt_usage == Usage(input=3, output=1) and meter.finished and not meter.done
    stop: Json = {"type": "message_stop", "more": 1}
    assert list(meter.event(stop)) == [] and meter.done
    (last,) = meter.usage_chunk()
    assert last.body == stop and last.usage_only and last.usage == Usage(input=3, output=7)
    with pytest.raises(ProviderError):
        list(meter.event({}))


def test_sizes_of_native_content() -> None:
    blocks: list[Json] = [
        {"type": "text", "text": "four"},
        {"type": "tool_use", "id": "x", "name": "ab", "input": {"k": "abc"}},
    ]
    assert content_size({"content": blocks}) == 9


def test_usage_is_told_in_disjoint_buckets() -> None:
    assert usage_to_anthropic(Usage(input=1, cache_read=2))["input_tokens"] == 1
