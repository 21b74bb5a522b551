"""What a step sends once its expressions are evaluated: values that a key does not take are the author's mistake, told in full."""

from typing import Any

import pytest

from engine.errors import UserError
from worker.executors.llm import request_body

FIELDS = {"model": "m", "prompt": "x"}
VALUES = {"text": "hot", "list": [1], "object": {"a": 1}, "half": 0.5, "nothing": None, "five": 5.0, "less": -1}


def body(**fields: Any) -> dict[str, Any]:
    return request_body({**FIELDS, **fields}, {"input": VALUES})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "messages has to be a list, not text"),
        ([], "messages may not be empty"),
        ([{"content": "x"}], "messages[0] has to be an object with a role"),
        ([{"role": "user"}], "messages[0].content has to be text or a list of parts, not nothing"),
        ([{"role": "assistant", "content": None}, {"role": "user", "content": 5}], "messages[1].content has to be"),
    ],
)
def test_messages_that_an_expression_gives(value: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        request_body({"model": "m", "messages": "${input.talk}"}, {"input": {"talk": value}})
    assert caught.value.message.startswith(f"${{input.talk}}: {message}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": "${input.text}"}, "${input.text}: temperature has to be a number, not text"),
        ({"temperature": "${input.five}"}, "${input.five}: temperature has to be at least 0 and at most 2"),
        ({"max_tokens": "${input.less}"}, "${input.less}: max_tokens has to be at least 1"),
        (
            {"max_tokens": "${input.half}"},
            "${input.half}: max_tokens has to be a whole number, not a number such as 0.5",
        ),
        ({"stop": "${input.object}"}, "${input.object}: stop has to be text or a list of texts, not an object"),
        ({"stop": ["a", "${input.list}"]}, "${input.list}: stop has to be a list of texts, not a list in it"),
        ({"logit_bias": {"5": "${input.text}"}}, "${input.text}: logit_bias 5: has to be a number, not text"),
        ({"reasoning_effort": "${input.half}"}, "${input.half}: reasoning_effort has to be text, not a number"),
        ({"model": "${input.nothing}"}, "${input.nothing}: model has to be text, not nothing"),
        ({"model": "${''}"}, "${''}: model may not be empty"),
        ({"images": "${input.text}"}, "${input.text}: images has to be data: or http(s): URLs, not 'hot'"),
        ({"images": ["${input.list}"]}, "${input.list}: images has to be data: or http(s): URLs, not list"),
        ({"extra": "${input.list}"}, "${input.list}: extra has to be an object, not a list"),
    ],
)
def test_a_value_that_a_key_does_not_take_names_expression_key_and_type(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        body(**fields)
    assert caught.value.message == message


def test_messages_whose_content_is_no_text() -> None:
    told = [{"role": "user", "content": "${input.half}"}]
    with pytest.raises(UserError) as caught:
        request_body({"model": "m", "messages": told}, {"input": VALUES})
    assert caught.value.message == "${input.half}: messages[0].content has to be text or a list of parts, not a number"


def test_null_leaves_a_key_out_and_whole_numbers_are_whole() -> None:
    sent = body(
        temperature="${input.nothing}",
        max_tokens="${input.five}",
        top_k="${6 / 2}",
        images="${input.nothing}",
        extra="${input.nothing}",
    )
    assert "temperature" not in sent and (sent["max_tokens"], sent["top_k"]) == (5, 3)
    assert isinstance(sent["max_tokens"], int) and body(max_tokens="${input.nothing}")["max_tokens"] == 4096
    assert sent["messages"][0]["content"] == [{"type": "text", "text": "x"}]
