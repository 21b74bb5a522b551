"""What an llm step makes of answers that are meant as data, and of messages that an expression gave."""

from typing import Any

import pytest

from engine.errors import UserError
from worker.executors.llm import checked, request_body


@pytest.mark.parametrize(
    "answer",
    ["[" * 100_000, '{"a": NaN}', '{"a": Infinity}', '{"a": 1e999}', '{"a": "\\ud800"}', "hello", ""],
)
def test_an_answer_that_is_no_json_is_a_mistake_and_no_crash(answer: str) -> None:
    value, mistake = checked(answer, {})
    assert value is None and mistake is not None


def test_an_answer_too_deep_for_its_schema_is_a_mistake() -> None:
    schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#"}}]}
    for levels in (201, 400, 960, 100_000):
        assert checked("[" * levels + "]" * levels, schema)[1] == "it is nested too deeply: 200 levels are the limit"
    assert checked("[" * 200 + "]" * 200, {})[1] is None
    assert checked('[["a"]]', schema) == ([["a"]], None)


def test_a_mistake_in_an_answer_names_its_place_and_takes_a_bounded_time() -> None:
    schema = {"properties": {"a": {"items": {"type": "string"}}, "b": {"pattern": "(a|aa)+$"}}}
    assert checked('{"a": ["x", 1]}', schema) == (None, "$.a[1]: has to be string, not integer")
    assert checked('{"b": "%sb"}' % ("a" * 60), schema) == (None, "$: takes too long to match (a|aa)+$")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("text", "messages has to be a list, not text"),
        (None, "messages has to be a list, not null"),
        ({"role": "user"}, "messages has to be a list, not object"),
        ([{"role": "user", "content": "x"}, 5], "messages[1] has to be an object with a role"),
        ([{"content": "x"}], "messages[0] has to be an object with a role"),
    ],
)
def test_messages_that_are_none_are_told_with_their_expression(given: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        request_body({"model": "m", "messages": "${input.m}"}, {"input": {"m": given}})
    assert caught.value.message == f"${{input.m}}: {message}"


def test_messages_of_a_conversation_pass_as_they_are() -> None:
    talk: list[Any] = [
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "tool_call_id": "a", "content": "x"},
    ]
    assert request_body({"model": "m", "messages": "${input.m}"}, {"input": {"m": talk}})["messages"] == talk
