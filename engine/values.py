"""JSON values as expressions see them: their names in messages, their text form, their size, and the bounds of one evaluation.

Knows neither Jinja nor the language. Used by `filters`, `syntax` and `evaluator`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard, cast

MAX_ITERATIONS = 10_000
MAX_WORK = 600_000
DEFAULT_LIMIT = 16 * 1_048_576  # characters: what a value may have (`engine.store.payloads`)
MAX_INTEGER = 2**63 - 1


class Trouble(Exception):
    """An expression cannot go on. The message is a clause that names types and keys, never values."""


class Missing(Trouble):
    """A name, key or index is not there; `default` and `is defined` catch this one alone."""


class Bounds:
    """What one rendering may still use: work units, loop iterations, and the size of any text or structure it makes.

    A unit of work is about a microsecond: one node of an expression, or some hundred characters that a filter handles.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT, *, work: int = MAX_WORK) -> None:
        self.limit = limit
        self._work = work
        self._iterations = MAX_ITERATIONS

    @property
    def exhausted(self) -> bool:
        """Whether the work of this rendering was used up."""
        return self._work < 0

    def spend(self, units: int = 1) -> None:
        """Raises: Trouble when the work of this rendering is used up."""
        self._work -= units
        if self._work < 0:
            raise Trouble("it takes too much work to evaluate")

    def iterate(self) -> None:
        """Counts one loop iteration. Raises: Trouble."""
        self._iterations -= 1
        if self._iterations < 0:
            raise Trouble(f"its loops take more than {MAX_ITERATIONS} iterations")

    def check_size(self, size: int) -> None:
        """Raises: Trouble where a text or structure would be larger than the limit."""
        if size > self.limit:
            raise Trouble(f"the result is larger than {self.limit} characters")

    def handle(self, value: Any) -> None:
        """Pays for going once over a value's own characters or entries, not over what lies deeper."""
        if isinstance(value, str):
            self.spend(1 + len(value) // 256)
        elif is_list(value) or is_object(value):
            self.spend(1 + len(value) // 8)


def is_object(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether it is a JSON object."""
    return isinstance(value, dict) or isinstance(value, Mapping)


def is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    """Whether it is a JSON list."""
    return isinstance(value, list | tuple)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a JSON number; booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def type_name(value: Any) -> str:
    """The word for a value's type in messages: text, number, boolean, null, list, object, else the Python class."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "text"
    if is_number(value):
        return "number"
    if is_list(value):
        return "list"
    return "object" if is_object(value) else type(cast(object, value)).__name__


def to_text(value: Any, bounds: Bounds) -> str:
    """A value inside text: strings as they are, everything else as compact JSON. Raises: Trouble."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):  # booleans too
        return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
    return to_json(value, bounds)


def to_json(value: Any, bounds: Bounds, indent: int | None = None) -> str:
    """Compact JSON, or indented. Raises: Trouble where the value is no JSON or larger than the limit."""
    bounds.check_size(measure(value, bounds))
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, separators=separators, indent=indent, default=_plain_object
    )
    bounds.check_size(len(text))
    return text


def _plain_object(value: Any) -> dict[str, Any]:
    if is_object(value):
        return dict(value)
    raise Trouble(f"{type_name(value)} is not data")


def measure(value: Any, bounds: Bounds) -> int:
    """Roughly the characters of a value's JSON, counting shared parts each time. Stops early. Raises: Trouble."""
    size = count = 0
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        count += 1
        size += len(item) + 2 if isinstance(item, str) else 4
        if is_object(item):
            size += sum(_key_size(key) for key in item)
            pending.extend(item.values())
        elif is_list(item):
            pending.extend(item)
        else:
            _check_scalar(item)
        if size + 2 * len(pending) > bounds.limit:
            bounds.check_size(size + 2 * len(pending))
    bounds.spend(count + size // 256)
    return size


def _check_scalar(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise Trouble("a number is not finite")
    if not (value is None or isinstance(value, str | int | float)):
        raise Trouble(f"{type_name(value)} is not data")


def _key_size(key: object) -> int:
    if isinstance(key, str):
        return len(key) + 3
    raise Trouble(f"an object has a key that is {type_name(key)}, not text")


def equal(left: Any, right: Any) -> bool:
    """Equality as JSON has it: true is not 1. The caller has measured containers, so that sharing cannot make it endless."""
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    if is_list(left) and is_list(right):
        return len(left) == len(right) and all(equal(one, other) for one, other in zip(left, right, strict=True))
    if is_object(left) and is_object(right):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    return bool(left == right)
