"""The JSON Schema of the workflow language for editors and for models that write workflows, made from `engine.keys`.

It says what stands in one place by itself; what spans places (references, cycles, names used twice) only `engine.checks` can say.
"""

from typing import Any

from engine.durations import DURATION_PATTERN
from engine.key_kinds import Key, Kind, Rendering, StepType
from engine.keys import (
    CONCURRENCY_KEYS,
    EXPRESSION_WORDS,
    ID_PATTERN,
    MAX_NAME,
    MAX_SCHEDULES,
    RETRY_KEYS,
    SCHEDULE_KEYS,
    SIGNAL_PATTERN,
    STEP_KEYS,
    STEP_TYPES,
    TAKEN_NAMES,
    TOP_KEYS,
    WORKFLOW_NAME_PATTERN,
)
from engine.llm_keys import MAX_TOOLS, MESSAGE_ROLES, TOOL_PATTERN

_STEPS: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/step"}}
_SCHEDULE: dict[str, Any] = {"$ref": "#/$defs/schedule"}
_STATUS: dict[str, Any] = {"type": "integer", "minimum": 100, "maximum": 599}
_EXPRESSION: dict[str, Any] = {"type": "string", "pattern": r"\$\{"}
_PICTURE: dict[str, Any] = {"type": "string", "pattern": r"^(data:|https?://)|\$\{"}
_JSON_SCHEMA: dict[str, Any] = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
_FIXED: dict[Kind, dict[str, Any]] = {
    Kind.ANY: {},
    Kind.BOOLEAN: {"type": "boolean"},
    Kind.CONDITION: {"type": ["string", "boolean"]},
    Kind.DURATION: {
        "anyOf": [{"type": "string", "pattern": DURATION_PATTERN}, {"type": "number", "exclusiveMinimum": 0}]
    },
    Kind.ID: {
        "type": "string",
        "pattern": ID_PATTERN,
        "maxLength": MAX_NAME,
        "not": {"enum": sorted(TAKEN_NAMES | EXPRESSION_WORDS)},
    },
    Kind.INPUTS: {"type": "object", "additionalProperties": {"type": "object", "allOf": [_JSON_SCHEMA]}},
    Kind.JSON_SCHEMA: {"type": "object", "allOf": [_JSON_SCHEMA]},
    Kind.LIST: {"type": "array"},
    Kind.NAME: {"type": "string", "minLength": 1, "maxLength": 2 * MAX_NAME},
    Kind.NEEDS: {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
    Kind.NUMBERS: {"type": "object", "additionalProperties": {"anyOf": [{"type": "number"}, _EXPRESSION]}},
    Kind.OBJECT: {"type": "object"},
    Kind.PICTURES: {"anyOf": [_PICTURE, {"type": "array", "items": _PICTURE}]},
    Kind.CASES: {"type": "object", "minProperties": 1, "additionalProperties": _STEPS},
    Kind.SIGNAL: {"type": "string", "pattern": SIGNAL_PATTERN},
    Kind.STATUSES: {"anyOf": [_STATUS, {"type": "array", "minItems": 1, "items": _STATUS}]},
    Kind.STEPS: _STEPS,
    Kind.STOP: {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "minItems": 1, "maxItems": 16, "items": {"type": "string"}},
        ]
    },
    Kind.TIME: {"type": "string"},
    Kind.URL: {"type": "string", "pattern": r"^https?://[^/\s?#]|\$\{"},
    Kind.TOOLS: {
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_TOOLS,
        "uniqueItems": True,
        "items": {"type": "string", "pattern": TOOL_PATTERN, "maxLength": 2 * MAX_NAME},
    },
    Kind.MESSAGES: {"anyOf": [_EXPRESSION, {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/message"}}]},
}


def language_schema() -> dict[str, Any]:
    """The whole schema, draft 2020-12, with a description on every key."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "aigateway workflow",
        "description": "A workflow definition. Expressions are written ${…}.",
        **_object(TOP_KEYS, special={"name": _workflow_name()}),
        "$defs": {"step": _step(), "message": _message(), "schedule": _schedule()},
    }


def _workflow_name() -> dict[str, Any]:
    return {"type": "string", "pattern": WORKFLOW_NAME_PATTERN, "maxLength": MAX_NAME}


def _object(keys: dict[str, Key], *, special: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """An object with these keys and no others."""
    return {
        "type": "object",
        "properties": {name: _key(key, (special or {}).get(name)) for name, key in keys.items()},
        "required": [name for name, key in keys.items() if key.required],
        "additionalProperties": False,
    }


def _step() -> dict[str, Any]:
    types = {"type": "string", "enum": list(STEP_TYPES)}
    step_id = {"type": "string", "pattern": ID_PATTERN, "maxLength": MAX_NAME, "not": {"enum": sorted(TAKEN_NAMES)}}
    return {
        "type": "object",
        "properties": {name: _key(key, {"type": types, "id": step_id}.get(name)) for name, key in STEP_KEYS.items()},
        "required": [name for name, key in STEP_KEYS.items() if key.required],
        "allOf": [_of_type(name, step_type) for name, step_type in STEP_TYPES.items()],
        "unevaluatedProperties": False,
    }


def _of_type(name: str, step_type: StepType) -> dict[str, Any]:
    then: dict[str, Any] = {
        "description": step_type.description,
        "properties": {key: _key(value) for key, value in step_type.keys.items()},
        "required": [key for key, value in step_type.keys.items() if value.required],
    }
    never = [[key] for key in step_type.refused] + [list(step_type.not_both)] * bool(step_type.not_both)
    if never:
        then["not"] = {"anyOf": [{"required": keys} for keys in never]}
    if step_type.one_of:
        then["oneOf"] = [{"required": [key]} for key in step_type.one_of]
    return {"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": then}


def _schedule() -> dict[str, Any]:
    line = {"type": "string", "minLength": 1, "description": "A cron line, in UTC."}
    return {"description": "When a run starts by itself.", "anyOf": [line, _object(SCHEDULE_KEYS)]}


def _message() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "One message of a conversation.",
        "properties": {
            "role": {"description": "Who says it.", "enum": list(MESSAGE_ROLES)},
            "content": {"description": "What is said: text, or a list of parts.", "type": ["string", "array"]},
            "name": {"description": "Tells speakers of the same role apart.", "type": "string"},
        },
        "required": ["role", "content"],
        "additionalProperties": False,
    }


def _key(key: Key, special: dict[str, Any] | None = None) -> dict[str, Any]:
    shape = _shape(key) if special is None else special
    if key.rendering is Rendering.VALUE and key.kind not in (Kind.ANY, Kind.TEXT):
        shape = {"anyOf": [shape, _EXPRESSION]}
    examples = {"examples": list(key.examples)} if key.examples else {}
    return {"description": key.description, **shape, **examples}


def _shape(key: Key) -> dict[str, Any]:
    match key.kind:
        case Kind.NUMBER | Kind.INTEGER:
            bounds = {"minimum": key.minimum, "maximum": key.maximum}
            return {"type": key.kind.value, **{word: value for word, value in bounds.items() if value is not None}}
        case Kind.TEXT:
            return {"type": "string", **({"minLength": 1} if key.minimum else {})}
        case Kind.CHOICE:
            return {"enum": list(key.choices)}
        case Kind.ON_ERROR:
            steps = {
                "type": "object",
                "properties": {"steps": _STEPS},
                "required": ["steps"],
                "additionalProperties": False,
            }
            return {"anyOf": [{"enum": list(key.choices)}, steps]}
        case Kind.CHOICES:
            return {"type": "array", "minItems": 1, "items": {"enum": list(key.choices)}}
        case Kind.RETRY:
            return _object(RETRY_KEYS)
        case Kind.SCHEDULE:
            several = {"type": "array", "minItems": 1, "maxItems": MAX_SCHEDULES, "items": _SCHEDULE}
            return {"anyOf": [_SCHEDULE, several]}
        case Kind.CONCURRENCY:
            return {"anyOf": [_shape(CONCURRENCY_KEYS["limit"]), _object(CONCURRENCY_KEYS)]}
        case _:
            return dict(_FIXED[key.kind])
