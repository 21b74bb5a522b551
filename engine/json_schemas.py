"""JSON Schema (draft 2020-12) as the language uses it: for inputs and for the answers of models.

Schemas stand alone: a reference leads to another place of the same schema, nothing is ever fetched.
"""

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, cast

from engine.nearest import nearest
from engine.schema_validator import TooMuch, mistakes

JSON_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_REFUSED = ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor")
_DATA = ("const", "enum", "default", "examples")
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SAME_VALUE = (
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "dependentSchemas",
)  # hold schemas for the value itself
_CONDITIONAL = frozenset({"then", "else"})
_LONGEST = 200
MAX_PATTERN = 10_000  # characters
MAX_WRITTEN_OUT = 100_000
"""Characters with all repetitions: some ten megabytes while it is compiled."""
_MOST = 1_000  # mistakes that are looked for


def schema_mistake(schema: Mapping[str, Any]) -> tuple[str, str, str | None] | None:
    """What is wrong with a schema: the path in it, a message and a suggestion; None where it is fine."""
    from jsonschema import Draft202012Validator, SchemaError  # noqa: PLC0415  # takes 100 ms to import

    unevaluated, by_pattern = None, False
    for path, keyword, value in _keywords(schema, ""):
        message = _keyword_mistake(schema, keyword, value)
        if message is not None:
            return path, message, None
        unevaluated = path if keyword == "unevaluatedProperties" else unevaluated
        by_pattern = by_pattern or keyword == "patternProperties"
    if unevaluated is not None and by_pattern:
        return unevaluated, "unevaluatedProperties is not taken where a schema has patternProperties", None
    try:
        Draft202012Validator.check_schema(schema)
        seen: dict[int, bool] = {}
        if any(_goes_in_circles(schema, inner, seen) for inner in _schemas(schema)):
            return "", "a $ref leads back to itself without going deeper into the value", None
    except SchemaError as error:
        return _explained(error.absolute_path, error.instance, error.message)
    except RecursionError:
        return "", "the schema is nested too deeply", None
    return None


def violations(schema: Mapping[str, Any], value: Any, *, partial: bool = False) -> list[tuple[str, str]]:
    """Where and how a value does not follow a schema that `schema_mistake` found fine: paths such as `.a[1]` with messages.

    A check that takes more than about a second is given up, and the value counts as one that does not follow.
    `partial`: entries whose values are not known yet are left out of it, so that nobody can say which side of an `if` holds.
    """
    try:
        errors = sorted(mistakes(schema, value, _MOST), key=_json_path)
    except TooMuch as error:
        return [("", str(error))]
    except RecursionError:
        return [("", "the value or its schema is nested too deeply")]
    return [
        (_path(error.absolute_path), _readable(str(error.validator), error.validator_value, error))
        for error in errors
        if not (partial and _CONDITIONAL.intersection(error.absolute_schema_path))
    ]


def _json_path(error: Any) -> str:
    return error.json_path


def _explained(path: Any, instance: object, message: str) -> tuple[str, str, str | None]:
    steps = list(path)
    where = _path(steps)
    if steps and steps[-1] == "type" and isinstance(instance, str):
        return where, f"there is no JSON type '{instance[:60]}'", nearest(instance, JSON_TYPES)
    return where, f"not a valid JSON Schema: {message[:_LONGEST]}", None


def _keywords(schema: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    """Every keyword of a schema and of those inside it, with its path; what is data there is left out."""
    if isinstance(schema, list):
        for index, item in enumerate(cast(list[Any], schema)):
            yield from _keywords(item, f"{path}[{index}]")
    if not isinstance(schema, Mapping):
        return
    for keyword, value in cast(Mapping[str, Any], schema).items():
        here = f"{path}.{keyword}"
        yield here, keyword, value
        if keyword in _BY_NAME and isinstance(value, Mapping):
            for name, inner in cast(Mapping[str, Any], value).items():
                yield from _keywords(inner, f"{here}.{name}")
        elif keyword not in _DATA:
            yield from _keywords(value, here)


def _keyword_mistake(schema: Mapping[str, Any], keyword: str, value: Any) -> str | None:
    if keyword in _REFUSED:
        return f"{keyword} is not allowed: a schema stands alone"
    if keyword == "$ref" and not _resolves(schema, value):
        return "a $ref has to lead to a place in the same schema, such as #/$defs/item"
    patterns: list[Any] = [value] if keyword == "pattern" else []
    if keyword == "patternProperties" and isinstance(value, Mapping):
        patterns = list(cast(Mapping[str, Any], value))
    for pattern in patterns:
        if not isinstance(pattern, str):
            continue
        message = _pattern_mistake(pattern)
        if message is not None:
            return message
    return None


def _pattern_mistake(pattern: str) -> str | None:
    """Patterns are Python's: what they are tried by reads more, and takes longer to say what is wrong."""
    import regex  # noqa: PLC0415  # 3 MB and 40 ms that schemas without patterns do not need

    if len(pattern) > MAX_PATTERN:
        return f"a regular expression may have at most {MAX_PATTERN} characters"
    try:
        re.compile(pattern)
        if _written_out(cast(Any, import_module("re._parser")).parse(pattern)) > MAX_WRITTEN_OUT:
            return "a regular expression repeats too much: {n} inside of {n} multiplies"
        regex.compile(pattern)
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        return f"not a regular expression: {error}"
    return None


def _written_out(part: Any) -> int:
    """About how many characters a pattern has, as Python's parser reads it, when each repetition is written as often as it is
    demanded. `regex` does write them out as it compiles: a few characters may take all memory.
    """
    if isinstance(part, tuple) and str(cast(Any, part)[0]).endswith("_REPEAT"):
        least, _, inner = cast(Any, part)[1]
        return max(1, least) * _written_out(inner)
    parts: Any = getattr(cast(Any, part), "data", cast(Any, part))
    return 1 + sum(map(_written_out, cast("list[Any]", parts))) if isinstance(parts, list | tuple) else 1


def _goes_in_circles(root: Any, schema: Any, seen: dict[int, bool]) -> bool:
    """Whether a check of one value would never end. `seen` holds what was gone into, with whether it is over."""
    if isinstance(schema, list):
        return any(_goes_in_circles(root, item, seen) for item in cast(list[Any], schema))
    if not isinstance(schema, Mapping):
        return False
    known = cast(Mapping[str, Any], schema)
    if id(known) in seen:
        return not seen[id(known)]
    seen[id(known)] = False
    for keyword, value in known.items():
        if keyword == "$ref":
            found = _goes_in_circles(root, _target(root, value), seen)
        elif keyword == "dependentSchemas":
            found = any(_goes_in_circles(root, inner, seen) for inner in value.values())
        else:
            found = keyword in _SAME_VALUE and _goes_in_circles(root, value, seen)
        if found:
            return True
    seen[id(known)] = True
    return False


def _schemas(schema: Any) -> Iterator[Any]:
    """It and all inside it, known by their keywords; what is data there is left out."""
    yield schema
    if isinstance(schema, list):
        for item in cast(list[Any], schema):
            yield from _schemas(item)
    if not isinstance(schema, Mapping):
        return
    for keyword, value in cast(Mapping[str, Any], schema).items():
        if keyword in _BY_NAME and isinstance(value, Mapping):
            for inner in cast(Mapping[str, Any], value).values():
                yield from _schemas(inner)
        elif keyword not in _DATA:
            yield from _schemas(value)


def _resolves(schema: Any, reference: Any) -> bool:
    return isinstance(_target(schema, reference), Mapping | bool)


def _target(schema: Any, reference: Any) -> Any:
    """What a reference leads to; None where it leads nowhere or out of the schema."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return None
    for step in reference[2:].split("/") if len(reference) > 1 else []:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and key.isdecimal() and int(key) < len(cast(list[Any], schema)):
            schema = cast(list[Any], schema)[int(key)]
        elif isinstance(schema, Mapping) and key in schema:
            schema = cast(Mapping[str, Any], schema)[key]
        else:
            return None
    return schema


def _path(steps: Any) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _readable(validator: str, wanted: Any, error: Any) -> str:
    match validator:
        case "type":
            names = wanted if isinstance(wanted, str) else " or ".join(wanted)
            return f"has to be {names}, not {_json_type(error.instance)}"
        case "minLength":
            return f"has to have at least {wanted} character{'s' if wanted != 1 else ''}"
        case "maxLength":
            return f"has to have at most {wanted} characters"
        case "minimum" | "maximum":
            return f"has to be at {'least' if validator == 'minimum' else 'most'} {wanted}"
        case "enum":
            return f"has to be one of {', '.join(str(item) for item in wanted)}"[:_LONGEST]
        case "pattern":
            return f"has to match {wanted}"[:_LONGEST]
        case _:
            return str(error.message)[:_LONGEST]


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    names = {"bool": "boolean", "int": "integer", "float": "number", "str": "string", "list": "array", "dict": "object"}
    return names.get(type(value).__name__, type(value).__name__)
