"""What a run is given against what its workflow declares."""

from typing import Any

import pytest

from engine.definition import Definition
from engine.errors import UserError
from engine.inputs import check_inputs
from engine.loader import load_data


def definition(inputs: Any) -> Definition:
    declared = {} if inputs is None else {"inputs": inputs}
    return load_data({"name": "w", "steps": [{"id": "a", "type": "set", "value": 1}], **declared})


def refused(inputs: Any, given: object) -> UserError:
    with pytest.raises(UserError) as caught:
        check_inputs(definition(inputs), given)
    assert caught.value.code == "invalid_input" and caught.value.details
    return caught.value


def test_undeclared_inputs_mean_that_anything_is_taken() -> None:
    assert check_inputs(definition(None), {"any": [1]}) == {"any": [1]}
    assert check_inputs(definition(None), {}) == {}


def test_defaults_are_filled_in_as_fresh_copies() -> None:
    declared = definition({"a": {"type": "array", "default": [1]}, "b": {"default": None}, "c": {"type": "string"}})
    first = check_inputs(declared, {"c": "x"})
    assert first == {"a": [1], "b": None, "c": "x"}
    first["a"].append(2)
    assert check_inputs(declared, {"c": "x"})["a"] == [1]
    assert check_inputs(declared, {"c": "x", "a": []})["a"] == []


def test_no_inputs_at_all_may_be_declared() -> None:
    assert refused({}, {"x": 1}).param == "input.x"


@pytest.mark.parametrize("given", [None, [], "x", 1, True])
def test_an_input_that_is_no_object_is_refused(given: object) -> None:
    assert refused(None, given).param == "input"


def test_every_mistake_comes_at_once_with_its_path() -> None:
    inputs = {
        "topic": {"type": "string", "minLength": 1},
        "rows": {"type": "array", "items": {"type": "object", "required": ["n"]}},
        "n": {"maximum": 3},
        "left": {},
    }
    error = refused(inputs, {"topic": "", "rows": [{"n": 1}, {}, 5], "n": 4, "topik": 1})
    assert [(item.path, item.suggestion) for item in error.details] == [
        ("input.topik", "topic"), ("input.topic", None), ("input.rows[1]", None), ("input.rows[2]", None), ("input.n", None), ("input.left", None),
    ]  # fmt: skip
    assert error.param == "input.topik" and "\n" not in error.message and "and 5 more" in error.message


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        ({"type": "string"}, 1, "has to be string, not integer"),
        ({"type": ["string", "null"]}, True, "has to be string or null, not boolean"),
        ({"minLength": 2}, "a", "at least 2 characters"),
        ({"maxLength": 1}, "ab", "at most 1 character"),
        ({"minimum": 2}, 1, "at least 2"),
        ({"enum": ["a", "b"]}, "c", "one of a, b"),
        ({"pattern": "^a$"}, "b", "match ^a$"),
        ({"const": 1}, 2, "1 was expected"),
    ],
)
def test_messages_are_sentences(schema: Any, value: Any, message: str) -> None:
    assert message in refused({"x": schema}, {"x": value}).details[0].message


def test_a_long_value_is_not_repeated_in_the_message() -> None:
    assert len(refused({"x": {"const": 1}}, {"x": "y" * 10_000}).message) < 400


def test_a_schema_that_refers_to_itself_without_end_is_a_mistake_of_the_workflow() -> None:
    with pytest.raises(UserError, match="leads back to itself"):
        definition({"x": {"$ref": "#"}})


def test_nothing_is_ever_fetched() -> None:
    with pytest.raises(UserError, match="has to lead to a place in the same schema"):
        definition({"x": {"$ref": "http://127.0.0.1:9/schema.json"}})


def test_references_inside_a_schema_work() -> None:
    inputs = {"x": {"$defs": {"n": {"type": "integer"}}, "type": "array", "items": {"$ref": "#/$defs/n"}}}
    assert check_inputs(definition(inputs), {"x": [1]}) == {"x": [1]}
    assert refused(inputs, {"x": ["a"]}).param == "input.x[0]"


@pytest.mark.parametrize("inputs", [None, {"a": {}}])
@pytest.mark.parametrize(("value", "path"), [(float("nan"), "input.a"), ({"b": [1, float("inf")]}, "input.a.b[1]")])
def test_a_number_that_is_none_is_refused(inputs: Any, value: Any, path: str) -> None:
    assert refused(inputs, {"a": value}).param == path
