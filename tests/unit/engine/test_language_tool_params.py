"""Parameters of a tool, checked against its own schema before anything runs."""

from typing import Any

import pytest

from engine.tool_params import wrong_params

SCHEMA = {
    "type": "object",
    "required": ["path"],
    "additionalProperties": False,
    "properties": {
        "path": {"type": "string", "minLength": 1},
        "count": {"type": "integer", "minimum": 1},
        "either": {"type": ["integer", "null"]},
        "filter": {"$ref": "#/$defs/filter"},
        "any": {},
        "also": {"$ref": "#/properties/count"},
    },
    "$defs": {"filter": {"type": "object", "properties": {"kind": {"enum": ["a", "b"]}}}},
}


@pytest.mark.parametrize(
    ("params", "wrong"),
    [
        ({"path": "x"}, {}),
        ({"path": "${input.path}", "count": "${input.n}", "any": [1], "either": None}, {}),
        ({"path": "a ${input.path}", "filter": {"kind": "${input.kind}"}}, {}),
        ({}, {"path": "needs it"}),
        ({"paht": "x"}, {"path": "needs it", "paht": "did you mean path"}),
        ({"path": 1}, {"path": "has to be string, not integer"}),
        ({"path": "x", "count": "5"}, {"count": "has to be integer, not string"}),
        ({"path": "x", "count": 0}, {"count": "at least 1"}),
        ({"path": "x", "count": "${input.n} or so"}, {"count": "has to be integer, and a text with an expression"}),
        ({"path": "x", "either": "${input.n}!"}, {"either": "has to be integer or null"}),
        ({"path": "x", "also": "5"}, {"also": "has to be integer, not string"}),
        ({"path": "x", "filter": {"kind": "c"}}, {"filter.kind": "one of a, b"}),
    ],
)
def test_mistakes_are_named(params: dict[str, Any], wrong: dict[str, str]) -> None:
    found = dict(wrong_params(params, SCHEMA))
    assert found.keys() == wrong.keys(), found
    assert all(clause in found[name] for name, clause in wrong.items()), found


@pytest.mark.parametrize(
    "schema", [{}, {"type": "object"}, {"properties": 5}, {"type": "no such type"}, {"required": 7}]
)
def test_a_schema_that_says_nothing_checks_nothing(schema: dict[str, Any]) -> None:
    assert wrong_params({"anything": 1}, schema) == []


def test_what_depends_on_a_value_that_is_not_known_yet_is_not_told() -> None:
    schema = {
        "properties": {"mode": {"enum": ["few", "all"]}, "count": {"type": "integer", "minimum": 1}},
        "if": {"properties": {"mode": {"const": "few"}}},
        "then": {"properties": {"count": {"maximum": 3}}},
    }
    assert dict(wrong_params({"mode": "few", "count": 9}, schema)) == {"count": "has to be at most 3"}
    assert wrong_params({"mode": "all", "count": 9}, schema) == []
    assert wrong_params({"mode": "${input.mode}", "count": 9}, schema) == []
    assert dict(wrong_params({"mode": "${input.mode}", "count": 0}, schema)) == {"count": "has to be at least 1"}
