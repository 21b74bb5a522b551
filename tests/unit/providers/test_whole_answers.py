"""A stream put together, as the cache keeps it: whatever its upstream told."""

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.openai import ChunkReader
from providers.whole_answers import to_chunks, to_whole


def bodies(*deltas: Any) -> list[Any]:
    return [{"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]


def test_calls_of_both_kinds_are_put_together_and_taken_apart() -> None:
    function = {"index": 1, "id": "b", "type": "function", "function": {"name": "f", "arguments": '{"a"'}}
    custom = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "patch", "input": "*** "}}
    more = [{"index": 0, "custom": {"input": "begin"}}, {"index": 1, "function": {"arguments": ": 1}"}}]
    whole = to_whole(bodies({"tool_calls": [function]}, {"tool_calls": [custom]}, {"tool_calls": more}))
    calls = [
        {"type": "custom", "id": "a", "custom": {"name": "patch", "input": "*** begin"}},
        {"type": "function", "id": "b", "function": {"name": "f", "arguments": '{"a": 1}'}},
    ]
    assert whole["choices"][0]["message"]["tool_calls"] == calls
    assert to_whole(chunk.body for chunk in to_chunks(whole)) == whole


def test_numbers_of_calls_may_be_any() -> None:
    call = {"index": 10**9, "id": "a", "function": {"name": "f", "arguments": "{}"}}
    [kept] = to_whole(bodies({"tool_calls": [call]}))["choices"][0]["message"]["tool_calls"]
    assert kept["id"] == "a" and "index" not in kept


JUNK = st.none() | st.booleans() | st.integers(-5, 10**10) | st.text(max_size=3) | st.just({"a": [1]}) | st.just(["x"])
CALL = st.dictionaries(st.sampled_from(["index", "id", "type", "function", "custom"]), JUNK, max_size=4)
FUNCTION = st.fixed_dictionaries({"function": st.dictionaries(st.sampled_from(["name", "arguments"]), JUNK)})
DELTA = st.dictionaries(st.sampled_from(["content", "role", "refusal", "tool_calls", "x"]), JUNK, max_size=3)
CALLS = st.fixed_dictionaries({"tool_calls": st.lists(CALL | FUNCTION, max_size=3)})


@settings(max_examples=150)
@given(st.lists(DELTA | CALLS, max_size=4))
def test_strange_deltas_raise_nothing(deltas: list[Any]) -> None:
    list(to_chunks(to_whole(bodies(*deltas))))
    reader = ChunkReader()
    for body in bodies(*deltas):
        list(reader.feed(b"data: " + orjson.dumps(body) + b"\n\n"))
