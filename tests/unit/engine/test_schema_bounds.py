"""A schema that its author meant badly costs a check about a second at most, and every other one says what jsonschema says."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from engine import schema_validator
from engine.inputs import input_mistakes
from engine.json_schemas import schema_mistake, violations

ENDLESS = "(a|aa)+$"
TEXT = "a" * 60 + "b"
LAYERS = 30
ROWS: list[Any] = [{"id": n, "name": f"n{n}", "tags": ["a"]} for n in range(5_000)]


def layered(keyword: str) -> dict[str, Any]:
    """2 ** LAYERS ways through it."""
    layers = {f"l{n}": {keyword: [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(LAYERS)}
    return {"$ref": "#/$defs/l0", "$defs": {**layers, f"l{LAYERS}": {"type": "string"}}}


def least_cpu_s(check: Callable[[], None], enough_s: float) -> float:
    """Of three times at most: what else the machine does only ever adds."""
    least = float("inf")
    for _ in range(3):
        began = time.thread_time()
        check()
        least = min(least, time.thread_time() - began)
        if least < enough_s:
            break
    return least


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": ENDLESS}, TEXT),
        ({"items": {"pattern": ENDLESS}}, [TEXT] * 50),
        ({"patternProperties": {ENDLESS: {}}}, {TEXT: 1}),
        ({"patternProperties": {ENDLESS: {}}, "additionalProperties": False}, {TEXT: 1}),
        ({"propertyNames": {"pattern": ENDLESS}}, {TEXT: 1}),
        (layered("allOf"), "x"),
        (layered("anyOf"), 1),
        ({"anyOf": [{"type": "string"}] * 500}, ["x" * 100] * 50_000),
        ({"unevaluatedItems": False, "contains": {"type": "integer"}}, list(range(100_000))),
    ],
)
def test_a_check_ends_about_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch, schema: dict[str, Any], value: Any
) -> None:
    for name in ("MAX_WORK", "MAX_CPU_S", "PATTERN_S"):  # a fifth of the time, so that waiting costs less
        monkeypatch.setattr(schema_validator, name, getattr(schema_validator, name) / 5)
    assert schema_mistake(schema) is None

    def check() -> None:
        ((where, message),) = violations(schema, value)
        assert where == "" and "takes too long to" in message

    assert least_cpu_s(check, 0.8) < 0.8  # without a bound it takes minutes


def test_all_inputs_of_a_run_have_the_time_of_one() -> None:
    inputs = {f"i{n}": {"pattern": ENDLESS} for n in range(50)}

    def check() -> None:
        _, mistakes = input_mistakes(inputs, dict.fromkeys(inputs, TEXT))
        assert len(mistakes) == 50

    assert least_cpu_s(check, 1) < 1
    assert violations({"pattern": "^a"}, "abc") == []


@pytest.mark.parametrize(
    "schema",
    [
        {"uniqueItems": True},
        {"items": {"required": ["id"], "properties": {"id": {"type": "integer"}, "name": {"pattern": r"^\w{1,255}$"}}}},
        {
            "items": {
                "oneOf": [{"properties": {"id": {"multipleOf": 2}}}, {"properties": {"id": {"not": {"multipleOf": 2}}}}]
            }
        },
    ],
)
def test_thousands_of_rows_are_within_the_bounds(schema: dict[str, Any]) -> None:
    assert violations(schema, ROWS) == []


@pytest.mark.parametrize("inner", ["a", "[ab]", "(?:a|b)", "(?=a)a", "(?:)a"])
def test_a_pattern_that_would_take_all_memory_is_refused_before_it_is_compiled(inner: str) -> None:
    """The largest that this would take, were it not refused, is a gigabyte."""
    found = schema_mistake({"pattern": f"^(?:(?:(?:{inner}{{100}}){{50}}?){{50,60}}){{1,}}$"})
    assert found is not None and "repeats too much" in found[1]
    assert schema_mistake({"pattern": f"^({inner}{{1000}}-){{8}}(x{{0,60000}}){{0,60000}}$"}) is None


def test_patterns_are_pythons_and_what_cannot_be_bounded_is_refused() -> None:
    assert violations({"pattern": r"^(?=.*\d)(?=.*[A-Z]).{8,}\Z"}, "longEnough1") == []
    assert violations({"pattern": r"^a{,5}$"}, "b") == [("", "has to match ^a{,5}$")]
    for wrong in ("(", r"\p{L}", "x" * 10_001):
        found = schema_mistake({"patternProperties": {wrong: {}}})
        assert found is not None and "regular expression" in found[1]
    found = schema_mistake({"allOf": [{"patternProperties": {"a": {}}}], "unevaluatedProperties": False})
    assert found is not None and found[0] == ".unevaluatedProperties"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([1.0, 0.5, "", "a", "ab", "xy"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "ab", "xy"]), inner, max_size=3),
    max_leaves=6,
)
SCHEMAS = st.recursive(
    st.sampled_from(
        [True, False, {"type": "string"}, {"type": "integer"}, {"pattern": "^a"}, {"uniqueItems": True}, {"const": 1}]
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "items": inner,
            "properties": st.dictionaries(st.sampled_from(["a", "ab"]), inner, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner, max_size=2),
            "additionalProperties": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "uniqueItems": st.booleans(),
        },
    ),
    max_leaves=5,
)


@settings(deadline=None, max_examples=150)
@given(SCHEMAS.filter(lambda schema: isinstance(schema, dict)), VALUES)
def test_within_the_bounds_it_finds_what_jsonschema_finds(schema: Any, value: Any) -> None:
    checker: Any = Draft202012Validator(schema)
    theirs = [list(error.absolute_path) for error in checker.iter_errors(value)]
    ours = [where for where, _ in violations(schema, value)]
    assert sorted(ours) == sorted("".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in path) for path in theirs)
