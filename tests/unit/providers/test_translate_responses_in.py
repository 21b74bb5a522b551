"""`/v1/responses` to chat and back: what is made passes the strict checks of the dialect it is made for."""

from typing import Any

import pytest
from upstreams.anthropic import check_messages
from upstreams.openai import check_chat

from engine.ledger import Usage
from providers.errors import ProviderError
from providers.provider import Chunk, Json
from providers.translate.openai_to_anthropic import to_anthropic
from providers.translate.reasoning_seal import sealed, unsealed
from providers.translate.responses_in import from_responses
from providers.translate.responses_in_answer import response_frame, to_response, usage_to_responses
from providers.translate.responses_in_events import EventWriter

SIGNED: list[Json] = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
TOOL: Json = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": None, "description": None}
PICTURE = "data:image/png;base64,AAAA"
ITEMS: list[Json] = [
    {"role": "developer", "content": [{"type": "input_text", "text": "And kind."}]},
    {
        "type": "message",
        "role": "user",
        "content": [
            {"type": "input_text", "text": "See"},
            {"type": "input_image", "image_url": PICTURE, "detail": "low"},
        ],
    },
    {
        "type": "reasoning",
        "id": "rs",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": sealed(SIGNED),
    },
    {"type": "message", "role": "assistant", "id": "m", "content": [{"type": "output_text", "text": "I look."}]},
    {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"a": 1}', "id": "fc"},
    {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{}"},
    {
        "type": "function_call_output",
        "call_id": "c1",
        "output": [{"type": "input_text", "text": "seen"}, {"type": "input_image", "image_url": PICTURE}],
    },
    {"type": "function_call_output", "call_id": "c2", "output": "gone"},
    {"role": "user", "content": "Well?"},
]


def request(**more: Any) -> Json:
    return {"model": "m", "input": "hi", **more}


def test_a_whole_conversation_for_openai() -> None:
    wording = from_responses(request(instructions="Be brief.", input=ITEMS, tools=[TOOL])).worded("openai")
    check_chat({**wording.body, "model": "gpt-6-luna"})
    assert wording.dropped == ("input.reasoning",)
    roles = [message["role"] for message in wording.body["messages"]]
    assert roles == ["system", "system", "user", "assistant", "tool", "tool", "user", "user"]
    _, _, user, answer, first, second, attached, last = wording.body["messages"]
    assert user["content"][1] == {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}}
    assert answer["content"] == "I look." and [call["id"] for call in answer["tool_calls"]] == ["c1", "c2"]
    assert (first["content"], second["content"]) == ("seen", "gone") and last["content"] == "Well?"
    assert "c1" in attached["content"][0]["text"] and attached["content"][1]["type"] == "image_url"


def test_a_whole_conversation_for_anthropic() -> None:
    wording = from_responses(request(input=ITEMS, tools=[TOOL])).worded("anthropic")
    made, dropped = to_anthropic("claude-sonnet-5-5", wording.body)
    check_messages(made, "2023-06-01")
    assert wording.dropped == () and dropped == ("image_url.detail",)
    assert made["messages"][1]["content"][0] == SIGNED[0]


def test_a_whole_conversation_for_ollama() -> None:
    wording = from_responses(request(input=ITEMS)).worded("ollama")
    (answer,) = [message for message in wording.body["messages"] if message["role"] == "assistant"]
    assert answer["reasoning_content"] == "hm" and "thinking_blocks" not in answer and wording.dropped == ()


def test_a_picture_from_a_function_stays_where_it_came() -> None:
    items = [*ITEMS[4:8], {"role": "assistant", "content": "I saw."}, {"role": "user", "content": "So?"}]
    roles = [message["role"] for message in from_responses(request(input=items)).body["messages"]]
    assert roles == ["assistant", "tool", "tool", "user", "assistant", "user"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_output_tokens": 5}, {"max_completion_tokens": 5}),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
        ({"text": {"verbosity": "low", "format": {"type": "text"}}}, {"verbosity": "low"}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
        ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
        ({"tools": [TOOL], "tool_choice": "required"}, {"tool_choice": "required"}),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "look"}, "parallel_tool_calls": False},
            {"tool_choice": {"type": "function", "function": {"name": "look"}}, "parallel_tool_calls": False},
        ),
        (
            {
                "tools": [TOOL, {**TOOL, "name": "other"}],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "look"}],
                },
            },
            {
                "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
                "tool_choice": "auto",
            },
        ),
        ({"temperature": 0, "prompt_cache_key": "k"}, {"temperature": 0, "prompt_cache_key": "k"}),
    ],
)
def test_parameters_that_have_a_word(given: Json, expected: Json) -> None:
    wording = from_responses(request(**given)).worded("openai")
    check_chat({**wording.body, "model": "gpt-6-luna"})
    assert wording.dropped == () and {key: wording.body[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("given", "dropped"),
    [
        ({"store": True}, ("store",)),
        ({"store": False, "metadata": {"a": "b"}, "stream_options": {"include_obfuscation": False}}, ()),
        ({"truncation": "auto"}, ("truncation",)),
        ({"max_tool_calls": 3, "moderation": None}, ("max_tool_calls",)),
        ({"reasoning": {"mode": "x", "effort": None}}, ("reasoning.mode",)),
        ({"include": ["file_search_call.results"]}, ("include.file_search_call.results",)),
        ({"text": {"format": {"type": "grammar"}, "x": 1}}, ("text.x", "text.format")),
        ({"tools": [{**TOOL, "defer_loading": True}]}, ("tools.defer_loading",)),
        ({"input": [{"role": "assistant", "phase": "commentary", "content": "y"}]}, ("input.phase",)),
        (
            {"input": [{"type": "reasoning", "encrypted_content": "of another"}, {"role": "user", "content": "x"}]},
            ("input.reasoning",),
        ),
    ],
)
def test_what_has_none_is_named(given: Json, dropped: tuple[str, ...]) -> None:
    assert from_responses(request(**given)).worded("openai").dropped == dropped


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"previous_response_id": "r"}, "previous_response_id"),
        ({"tools": [{"type": "file_search"}]}, "tools[0]"),
        ({"tools": [TOOL], "tool_choice": {"type": "mcp"}}, "tool_choice"),
        ({"input": [{"type": "computer_call_output"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "input[0].content[0]"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "x"}]}]},
            "input[0].output[0]",
        ),
    ],
)
def test_what_cannot_be_carried_is_refused(given: Json, param: str) -> None:
    with pytest.raises(ProviderError) as caught:
        from_responses(request(**given))
    assert caught.value.param == param and caught.value.status == 400


def test_the_seal_keeps_blocks_and_takes_no_others() -> None:
    assert unsealed(sealed(SIGNED)) == SIGNED
    for value in (None, 5, "of another", sealed(SIGNED)[:-3] + "!!!", sealed(SIGNED)[:30]):
        assert unsealed(value) == []


def test_a_whole_answer() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    message = {
        "content": "So",
        "refusal": "No",
        "reasoning_content": "hm",
        "thinking_blocks": SIGNED,
        "tool_calls": [call],
    }
    completion = {"model": "up", "choices": [{"message": message, "finish_reason": "tool_calls"}]}
    response = to_response(
        completion, request(metadata={"a": "b"}), "m", Usage(input=1, cache_read=2, output=4, reasoning=1)
    )
    reasoning, said, called = response["output"]
    assert unsealed(reasoning["encrypted_content"]) == SIGNED and reasoning["summary"][0]["text"] == "hm"
    assert [part["type"] for part in said["content"]] == ["output_text", "refusal"]
    assert called["call_id"] == "c" and called["status"] == "completed"
    assert response["status"] == "completed" and response["metadata"] == {"a": "b"} and response["store"] is False
    assert response["usage"]["input_tokens"] == 3 and response["usage"]["total_tokens"] == 7
    assert usage_to_responses(Usage(cache_write=1))["input_tokens_details"]["cache_write_tokens"] == 1


def written(*given: Json, finish: str = "stop") -> list[Json]:
    writer = EventWriter(response_frame(request(), "m"))
    events = list(writer.start())
    for delta in given:
        events += writer.chunk(Chunk({"choices": [{"delta": delta}]}))
    events += writer.chunk(Chunk({"choices": [{"delta": {}, "finish_reason": finish}]}))
    return [*events, *writer.end(Usage(input=1), aigateway={})]


def test_every_kind_of_item_in_order() -> None:
    events = written(
        {"reasoning_content": "h"},
        {"reasoning_content": "m"},
        {"thinking_blocks": SIGNED},
        {"content": "So"},
        {"refusal": "No"},
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "look", "arguments": "{}"}}]},
    )
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "content_part.added",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    output = events[-1]["response"]["output"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert output == done and unsealed(output[0]["encrypted_content"]) == SIGNED
    assert [part.get("text") or part["refusal"] for part in output[1]["content"]] == ["So", "No"]
    indexes = [(e["output_index"], e["content_index"]) for e in events if "content_index" in e]
    assert indexes == [(1, 0)] * 4 + [(1, 1)] * 4


GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: WORD"}
PATCH: Json = {"type": "custom", "name": "patch", "description": "Changes files.", "format": GRAMMAR}


def test_custom_tools_go_to_and_fro() -> None:
    items: list[Json] = [
        {"role": "user", "content": "go"},
        {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": "*** begin", "id": "ctc"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
    ]
    choice = {"type": "custom", "name": "patch"}
    wording = from_responses(request(input=items, tools=[PATCH, TOOL], tool_choice=choice)).worded("openai")
    told = {"name": "patch", "description": "Changes files."}
    rules = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: WORD"}}
    assert wording.body["tools"][0] == {"type": "custom", "custom": {**told, "format": rules}}
    assert wording.body["tool_choice"] == {"type": "custom", "custom": {"name": "patch"}}
    call = {"id": "c1", "type": "custom", "custom": {"name": "patch", "input": "*** begin"}}
    assert wording.body["messages"][1]["tool_calls"] == [call]
    assert wording.body["messages"][2] == {"role": "tool", "tool_call_id": "c1", "content": "done"}
    only = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "patch"}]}
    allowed = from_responses(request(tools=[PATCH, TOOL], tool_choice=only)).body
    assert len(allowed["tools"]) == 1 and allowed["tool_choice"] == "required"
    completion = {"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    [item] = to_response(completion, request(tools=[PATCH]), "m", None)["output"]
    assert item["id"].startswith("ctc_") and "arguments" not in item
    assert (item["type"], item["call_id"], item["name"], item["input"]) == (
        "custom_tool_call",
        "c1",
        "patch",
        "*** begin",
    )


def test_events_of_a_custom_tools_call() -> None:
    events = written(
        {"tool_calls": [{"index": 0, "id": "c1", "type": "custom", "custom": {"name": "patch", "input": "*** "}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "begin"}}]},
    )
    told = [event for event in events if "custom_tool_call_input" in event["type"]]
    assert [event["type"].rpartition(".")[2] for event in told] == ["delta", "delta", "done"]
    assert [event["delta"] for event in told[:2]] == ["*** ", "begin"] and told[2]["input"] == "*** begin"
    [item] = events[-1]["response"]["output"]
    assert (item["type"], item["input"], item["status"]) == ("custom_tool_call", "*** begin", "completed")


def test_what_a_text_refers_to() -> None:
    cited = {"url": "https://x", "title": "X", "start_index": 0, "end_index": 2}
    told = [{"type": "url_citation", "url_citation": cited}]
    message = {"content": "So", "annotations": told}
    expected = [{"type": "url_citation", **cited}]
    [said] = to_response({"choices": [{"message": message}]}, request(), "m", None)["output"]
    assert said["content"][0]["annotations"] == expected
    events = written({"content": "So"}, {"annotations": told})
    [added] = [event for event in events if event["type"] == "response.output_text.annotation.added"]
    assert (added["annotation"], added["annotation_index"], added["content_index"]) == (expected[0], 0, 0)
    assert events[-1]["response"]["output"][0]["content"][0]["annotations"] == expected
    assert told[0]["url_citation"] == cited  # what is kept elsewhere is not changed


def test_hidden_thinking_is_an_item_without_a_summary() -> None:
    hidden: list[Json] = [{"type": "redacted_thinking", "data": "x"}]
    events = written({"thinking_blocks": hidden})
    assert [event["type"] for event in events if "summary" in event["type"]] == []
    assert unsealed(events[-1]["response"]["output"][0]["encrypted_content"]) == hidden


def test_endings() -> None:
    assert written({"content": "x"}, finish="length")[-1]["type"] == "response.incomplete"
    filtered = written({"content": "x"}, finish="content_filter")[-1]["response"]
    assert filtered["incomplete_details"] == {"reason": "content_filter"}
    writer = EventWriter(response_frame(request(), "m"))
    list(writer.chunk(Chunk({"choices": [{"delta": {"content": "half"}}]})))
    (failed,) = writer.failure("server_error", "It broke.")
    assert failed["type"] == "response.failed" and failed["response"]["output"] == []
    assert failed["response"]["error"] == {"code": "server_error", "message": "It broke."}


def test_mixed_up_tool_calls_are_no_answer() -> None:
    with pytest.raises(ProviderError, match="mixed up"):
        written(*[{"tool_calls": [{"index": n, "id": str(n), "function": {"arguments": "{"}}]} for n in (0, 1, 0)])
