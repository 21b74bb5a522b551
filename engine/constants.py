"""Expressions that read nothing: what they come to is known before anything runs."""

from dataclasses import dataclass
from typing import Any

from engine.evaluator import Evaluation
from engine.syntax import Expression, ExpressionError
from engine.templates import parse_bare
from engine.values import Bounds

_WORK = 250  # units for each: a definition may hold thousands


@dataclass(frozen=True, slots=True)
class Constant:
    """The value of an expression, or why it has none."""

    value: Any = None
    reason: str | None = None


def constant(expression: Expression | None) -> Constant | None:
    """What an expression always gives; None where that depends on a run, or takes long to find out. Never raises."""
    if expression is None or expression.problems or not expression.closed:
        return None
    bounds = Bounds(work=_WORK)
    try:
        return Constant(Evaluation({}, bounds).value(expression))
    except ExpressionError as error:
        return None if bounds.exhausted else Constant(reason=error.reason)


def constant_condition(expression: str | None) -> bool | None:
    """The side that a condition, without its ${}, always takes; None where that depends on a run."""
    found = None if expression is None else constant(parse_bare(expression).whole)
    return found.value if found is not None and isinstance(found.value, bool) else None
