"""The JSON Schema of the language: it agrees with the loader on every shipped workflow and on wrong forms."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from engine.errors import UserError
from engine.keys import RETRY_KEYS, STEP_KEYS, STEP_TYPES, TOP_KEYS
from engine.loader import load_data
from engine.schema import language_schema

SHIPPED = sorted((Path(__file__).parents[3] / "workflows").glob("*.yaml"))
SCHEMA: Any = language_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_workflow_follows_it(path: Path) -> None:
    assert not list(VALIDATOR.iter_errors(yaml.safe_load(path.read_text())))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_an_editor_finds_the_schema_beside_it(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=schema.json"
    shipped = json.loads((path.parent / "schema.json").read_text())
    assert shipped == SCHEMA, "the language has changed: run `make schema`"


def test_every_key_has_a_description() -> None:
    step = SCHEMA["$defs"]["step"]
    assert set(SCHEMA["properties"]) == set(TOP_KEYS) and set(step["properties"]) == set(STEP_KEYS)
    groups = [
        SCHEMA,
        step,
        step["properties"]["retry"],
        SCHEMA["$defs"]["message"],
        *(part["then"] for part in step["allOf"]),
    ]
    assert [set(part["then"]["properties"]) for part in step["allOf"]] == [
        set(kind.keys) for kind in STEP_TYPES.values()
    ]
    assert set(step["properties"]["retry"]["properties"]) == set(RETRY_KEYS)
    for group in groups:
        for name, key in group["properties"].items():
            assert key["description"], name


def workflow(**step: Any) -> dict[str, Any]:
    return {"name": "w", "steps": [{"id": "a", "type": "set", "value": 1, **step}]}


def llm(**more: Any) -> dict[str, Any]:
    return {"name": "w", "steps": [{"id": "a", "type": "llm", "model": "m", "prompt": "x", **more}]}


@pytest.mark.parametrize(
    "data",
    [
        workflow(), workflow(timeout="30s"), workflow(timeout=1.5), workflow(retry={"max_attempts": 3, "errors": ["timeout"]}), workflow(on_error="continue"), workflow(needs=[]), workflow(output="x"), workflow(value=None),
        workflow(**{"if": True}), workflow(**{"if": "${input.x}"}), llm(), llm(temperature=0.5), llm(temperature="${input.t}"), llm(stop=["a"]), llm(schema={"type": "object"}), llm(max_tokens=1),
        {**workflow(), "budget_usd": 0.5, "deadline": "1h", "inputs": {"x": {"type": "string", "default": ""}}, "output": {"a": 1}},
    ],
)  # fmt: skip
def test_both_take_what_is_right(data: dict[str, Any]) -> None:
    assert not list(VALIDATOR.iter_errors(data))
    assert load_data(data)


@pytest.mark.parametrize(
    "data",
    [
        {}, {"name": "w"}, {"name": "w", "steps": []}, {"name": "W", "steps": [{"id": "a", "type": "set", "value": 1}]}, {**workflow(), "nope": 1}, {**workflow(), "finally": []}, {**workflow(), "budget_usd": -1},
        {**workflow(), "inputs": {"x": "string"}}, {**workflow(), "inputs": {"x": {"type": "strin"}}}, workflow(id="A"), workflow(id="input"), workflow(type="foreach"), workflow(type="agent"), workflow(cache="1h"), workflow(type="sett"), workflow(nope=1), workflow(prompt="x"),
        workflow(timeout="30 s"), workflow(timeout=0), workflow(retry={"max": 1, "nope": 1}), workflow(retry={"max_attempts": 0}), workflow(retry={"errors": ["x"]}), workflow(on_error="stop"), workflow(output="item"), workflow(output="or"), workflow(needs="a"),
        llm(temperature=3), llm(temperature="hot"), llm(messages=[{"role": "user", "content": "x"}]), llm(max_tokens=0), llm(seed=1.5), llm(stop=[]), llm(schema={"type": 1}), llm(tools=[]), llm(prompt=1),
        {"name": "w", "steps": [{"id": "a", "type": "llm", "model": "m"}]}, {"name": "w", "steps": [{"id": "a", "type": "mcp_tool"}]}, {"name": "w", "steps": [{"id": "a", "type": "if", "condition": "x", "then": []}]},
    ],
)  # fmt: skip
def test_both_refuse_what_is_wrong(data: dict[str, Any]) -> None:
    assert list(VALIDATOR.iter_errors(data))
    with pytest.raises(UserError):
        load_data(data)
