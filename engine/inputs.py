"""Checks what a run is given against the inputs that its workflow declares."""

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

from engine.definition import Definition
from engine.errors import Mistake, UserError
from engine.json_schemas import violations
from engine.nearest import nearest
from engine.schema_validator import checked_together
from engine.values import is_list, is_object


def check_inputs(definition: Definition, given: object) -> dict[str, Any]:
    """The inputs of a run, defaults filled in; where the workflow declares none, anything is taken.

    Raises: UserError (`invalid_input`) with every mistake in `details`; `param` names the first, such as `input.topic`.
    """
    if not isinstance(given, Mapping):
        raise _refused([Mistake("the input has to be an object", "input")])
    values, mistakes = input_mistakes(definition.inputs, cast(Mapping[str, Any], given))
    mistakes = mistakes or [Mistake("a number has to be finite", path) for path in _infinite(values)]
    if mistakes:
        raise _refused(mistakes)
    return values


def _infinite(values: Mapping[str, Any]) -> Iterator[str]:
    """Where NaN or Infinity stand, which Python's reader takes and which no JSON can hold."""
    pending: list[tuple[str, Any]] = [("input", values)]
    while pending:
        path, value = pending.pop()
        if is_object(value):
            pending.extend((f"{path}.{key}", item) for key, item in value.items())
        elif is_list(value):
            pending.extend((f"{path}[{index}]", item) for index, item in enumerate(value))
        elif isinstance(value, float) and not math.isfinite(value):
            yield path


def input_mistakes(inputs: Mapping[str, Any] | None, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Mistake]]:
    """What is given with the defaults filled in, and all that does not fit what is declared."""
    values = dict(given)
    if inputs is None:
        return values, []
    mistakes = _undeclared(inputs, values)
    with checked_together():
        for name, schema in inputs.items():
            if name in values:
                found = violations(schema, values[name])
                mistakes += [Mistake(message, f"input.{name}{where}") for where, message in found]
            elif "default" in schema:
                values[name] = copy.deepcopy(schema["default"])
            else:
                mistakes.append(Mistake("is required", f"input.{name}"))
    return values, mistakes


def _undeclared(inputs: Mapping[str, Any], values: Mapping[str, Any]) -> list[Mistake]:
    return [
        Mistake("is not an input of this workflow", f"input.{str(name)[:100]}", suggestion=nearest(str(name), inputs))
        for name in values
        if name not in inputs
    ]


def _refused(mistakes: list[Mistake]) -> UserError:
    first = mistakes[0]
    more = f", and {len(mistakes) - 1} more" if len(mistakes) > 1 else ""
    hint = f" (did you mean {first.suggestion}?)" if first.suggestion else ""
    message = f"{first.path}: {first.message}{hint}{more}"
    return UserError("invalid_input", message, param=first.path, details=mistakes[:200])
