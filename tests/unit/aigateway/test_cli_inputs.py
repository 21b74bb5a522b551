from typing import Any

import pytest
import typer

from aigateway.cli.inputs import Inputs, typed_inputs


def one(text: str, schema: Any) -> Any:
    return typed_inputs(Inputs({"n": text}, frozenset({"n"})), {"n": schema})["n"]


@pytest.mark.parametrize(
    ("text", "types", "value"),
    [
        ("5", "integer", 5),
        ("-3", "integer", -3),
        (" 5 ", "integer", 5),
        ("5", "number", 5),
        ("2.5e3", "number", 2500.0),
        ("True", "boolean", True),
        ("false", ["boolean", "integer"], False),
        ("0", ["boolean", "integer"], 0),
        ("null", ["integer", "null"], None),
        ("[1, 2]", "array", [1, 2]),
        ('{"a": 1}', "object", {"a": 1}),
        ("5", "string", "5"),
        ("5", ["string", "integer"], "5"),
    ],
)
def test_a_text_takes_its_declared_type(text: str, types: Any, value: Any) -> None:
    found = one(text, {"type": types})
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("5", {"anyOf": [{"type": "integer"}, {"type": "boolean"}]}, 5),
        ("true", {"oneOf": [{"type": "integer"}, {"type": "boolean"}]}, True),
        ("null", {"anyOf": [{"type": "object"}, {"type": "null"}]}, None),
        ('{"a": 1}', {"anyOf": [{"type": "object"}, {"type": "null"}]}, {"a": 1}),
        ("5", {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "5"),
        ("5", {"anyOf": [{"type": "integer"}, {"type": "string", "minLength": 2}]}, 5),
        ("2", {"enum": [1, 2]}, 2),
        ("1.5", {"$ref": "#/$defs/n", "$defs": {"n": {"type": "number"}}}, 1.5),
        ("7", {"allOf": [{"type": "number"}, {"maximum": 9}]}, 7),
        ("word", {"anyOf": [{"type": "integer"}, {"type": "boolean"}]}, "word"),
    ],
)
def test_a_text_becomes_what_one_of_several_schemas_takes(text: str, schema: Any, value: Any) -> None:
    found = one(text, schema)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("schema", [None, {}, {"enum": ["5"]}, "integer", 3, {"type": 3}])
def test_what_declares_no_type_stays_text(schema: Any) -> None:
    assert one("5", schema) == "5"


@pytest.mark.parametrize(
    ("text", "types", "wanted"),
    [
        ("five", "integer", "an integer"),
        ("5.5", "integer", "an integer"),
        ("9" * 5000, "integer", "an integer"),
        ("", "integer", "an integer"),
        ("nan", "number", "a number"),
        ("1e999", "number", "a number"),
        ("1_000", "number", "a number"),
        ("yes", "boolean", "true or false"),
        ('{"a": 1}', "array", "an array in JSON"),
        ("[" * 100_000, "array", "an array in JSON"),
        ("x", ["integer", "null"], "an integer or null"),
    ],
)
def test_a_text_of_another_type_is_refused_by_name(text: str, types: Any, wanted: str) -> None:
    with pytest.raises(typer.BadParameter) as refused:
        one(text, {"type": types})
    assert f"n has to be {wanted}, not " in str(refused.value)
    assert len(str(refused.value)) < 200


def test_values_given_as_json_stay_as_they_are() -> None:
    assert typed_inputs(Inputs({"n": "5"}, frozenset()), {"n": {"type": "integer"}}) == {"n": "5"}
