"""How deep a JSON value may be nested, wherever it comes from: clients, models, tools, other services, expressions."""

from collections.abc import Iterable
from typing import Any

from engine.values import is_list, is_object

MAX_DEPTH = 200
"""Levels of a value: more than anybody means, fewer than the JSON encoder (254) and Python's own stack can take."""


def is_too_deep(value: Any) -> bool:
    """Whether a value has more than MAX_DEPTH levels. Level by level: no recursion that a value could exhaust."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, dict | list | tuple)]
        if not level:
            return False
    return True


def _inside(outer: Any) -> Iterable[Any]:
    if is_object(outer):
        return outer.values()
    return outer if is_list(outer) else ()
