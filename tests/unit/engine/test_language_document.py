"""docs/language.md: every example loads and follows the JSON Schema, and every key of the language has its example."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from engine.filters import FILTERS, TESTS
from engine.keys import CONCURRENCY_KEYS, RETRY_KEYS, STEP_KEYS, STEP_TYPES, TOP_KEYS
from engine.loader import load
from engine.schema import language_schema

DOCUMENT = (Path(__file__).parents[3] / "docs" / "language.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", DOCUMENT, re.M | re.S)
VALIDATOR = Draft202012Validator(language_schema())


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.splitlines()[0])
def test_an_example_loads_and_follows_the_schema(text: str) -> None:
    assert load(text)
    assert not list(VALIDATOR.iter_errors(yaml.safe_load(text)))


def test_every_key_has_an_example() -> None:
    shown: set[tuple[str, str]] = set()
    for text in EXAMPLES:
        found = yaml.safe_load(text)
        shown |= {("", key) for key in found}
        for step in steps_in(found):
            shown |= {(kind, key) for key in step for kind in (step["type"], "*")}
            shown |= {("retry", key) for key in step.get("retry", {})}
        shown |= {("concurrency", key) for key in found.get("concurrency", {})}
    wanted = (
        {("", key) for key in TOP_KEYS} | {("*", key) for key in STEP_KEYS} | {("retry", key) for key in RETRY_KEYS}
    )
    wanted |= {("concurrency", key) for key in CONCURRENCY_KEYS}
    asked = set(STEP_TYPES["llm"].keys)  # an agent takes these as well: one example serves for both
    own = {name: set(kind.keys) - (asked if name == "agent" else set()) for name, kind in STEP_TYPES.items()}
    wanted |= {(name, key) for name, keys in own.items() for key in keys}
    assert not wanted - shown


def steps_in(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [step for item in value for step in steps_in(item)]
    if not isinstance(value, dict):
        return []
    own = [value] if "id" in value and "type" in value else []
    return own + [step for inner in value.values() for step in steps_in(inner)]


@pytest.mark.parametrize("name", sorted({*FILTERS, *TESTS}))
def test_every_filter_and_test_is_named(name: str) -> None:
    assert f"`{name}`" in DOCUMENT
