"""Checks a body against a JSON Schema that is written as data and tells the first mistake in words a dialect can use."""

from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

Schema = dict[str, Any]


@dataclass(frozen=True)
class Mistake:
    """`kind` is unknown | missing | type | value | empty | other; `path` is like `messages[0].role`."""

    kind: str
    path: str
    message: str
    name: str = ""


class Checker:
    """A compiled schema."""

    def __init__(self, schema: Schema) -> None:
        self._validator = Draft202012Validator(schema)

    def first_mistake(self, body: Any) -> Mistake | None:
        errors = sorted(
            self._validator.iter_errors(body), key=lambda error: (list(map(str, error.path)), error.validator)
        )
        return _mistake(errors[0]) if errors else None


_KINDS = {
    "type": "type",
    "enum": "value",
    "const": "value",
    "pattern": "value",
    "minItems": "empty",
    "minLength": "empty",
}


def _mistake(error: ValidationError) -> Mistake:
    while error.context:  # the branch of an anyOf that came furthest tells most
        error = max(error.context, key=lambda inner: (len(inner.absolute_path), inner.validator != "type"))
    path = _path(error)
    if error.validator == "additionalProperties":
        name = sorted(set(error.instance) - set(error.schema.get("properties", {})))[0]
        return Mistake("unknown", f"{path}.{name}".lstrip("."), error.message, name)
    if error.validator == "required":
        name = next(key for key in error.validator_value if key not in error.instance)
        return Mistake("missing", f"{path}.{name}".lstrip("."), error.message, name)
    return Mistake(_KINDS.get(str(error.validator), "other"), path, error.message)


def _path(error: ValidationError) -> str:
    text = ""
    for part in error.absolute_path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def obj(properties: Schema, *required: str, open_ended: bool = False) -> Schema:
    """An object; unknown keys are refused unless `open_ended`."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": open_ended}


def array(items: Schema, least: int = 0) -> Schema:
    return {"type": "array", "items": items, "minItems": least}


def one_of(*values: Any) -> Schema:
    return {"enum": list(values)}


def nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
ANY_OBJECT: Schema = {"type": "object"}
