"""The key of `concurrency`: an expression over the input. Checked when a definition is read, rendered when a run is submitted."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, cast

from engine.definition import Concurrency
from engine.drafts import Scope
from engine.errors import UserError
from engine.expressions import ExpressionError, render
from engine.keys import CONCURRENCY_KEYS
from engine.readings import readings
from engine.references import Names
from engine.spots import Spot
from engine.store.json_text import storable
from engine.values import Bounds, is_number, to_text, type_name

_ONE_INPUT = re.compile(r"\$\{\s*input\.([A-Za-z0-9_]+)\s*\}")
_STRUCTURES = frozenset({"object", "array", "null"})
_LONGEST_KEY = 200  # characters; a longer one, and one that is no text to a database, is told apart by its hash


def check_concurrency(spot: Spot, names: Names, scope: Scope, inputs: Any) -> None:
    """Notes what a key cannot be: it reads nothing but the input, and not an input that is declared as a structure."""
    entries = (spot.node.entries or {}).get("concurrency")
    if entries is None or "key" not in (entries.entries or {}):
        return
    at = spot.entry("concurrency").entry("key")
    found = readings(CONCURRENCY_KEYS["key"], at)
    if isinstance(at.node.value, str) and not found and not at.findings.mistakes:
        at.mistake("has to be an expression over the input, such as ${input.customer}")
    for reading in found:
        if reading.read.kind == "input" or reading.read.name == "input":
            names.sources(reading, scope, 0, None)
        else:
            at.mistake("only `input` is known before a run begins")
    one = _ONE_INPUT.fullmatch(at.node.value.strip()) if isinstance(at.node.value, str) else None
    declared: Mapping[str, Any] = inputs or {}
    if one is not None and _types(declared.get(one[1])) & _STRUCTURES:
        at.mistake(f"has to give text, a number or a boolean; the input '{one[1]}' may be something else")


def line_name(workflow: str, concurrency: Concurrency, given: Any) -> str:
    """The line in which a run with that input waits for its place. Raises: UserError where the key gives no plain value."""
    if concurrency.key is None:
        return workflow
    try:
        value = render(concurrency.key, {"input": given})
    except ExpressionError as error:
        raise UserError("invalid_input", f"concurrency.key: {error.message}", param="input") from error
    if not (isinstance(value, str | bool) or is_number(value)):
        message = (
            f"concurrency.key: {concurrency.key} has to give text, a number or a boolean, it gives {type_name(value)}"
        )
        raise UserError("invalid_input", message, param="input")
    text = to_text(value, Bounds())
    if len(text) <= _LONGEST_KEY and text == storable(text):
        return f"{workflow}:{text}"
    return f"{workflow}#{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"


def _types(schema: object) -> frozenset[str]:
    """The types that an input's schema allows by name; none where it does not say."""
    told = cast(Mapping[str, Any], schema).get("type") if isinstance(schema, Mapping) else None
    if isinstance(told, str):
        return frozenset({told})
    return frozenset(cast(list[str], told)) if isinstance(told, list) else frozenset()
