"""Typed ${…}: renders values once, evaluates expressions and conditions, and says what they read.

The only door to `templates` and `evaluator`. A scope holds `input`, `run`, `steps` and every output name; what stands in it
is data and is never evaluated. Everything here raises ExpressionError and nothing else.
"""

from collections.abc import Mapping
from typing import Any, cast

from engine.depth import MAX_DEPTH, is_too_deep
from engine.evaluator import Evaluation
from engine.syntax import Expression, ExpressionError, Read
from engine.templates import Template, parse_bare, parse_template
from engine.values import DEFAULT_LIMIT, Bounds, Trouble, is_list, is_object, measure, type_name
from engine.writer import Writer

__all__ = ["ExpressionError", "condition", "evaluate", "reads", "references", "render", "render_known", "render_text"]

_DEEPEST = 100


def render(value: Any, scope: Mapping[str, Any], *, blocks: bool = False, limit: int = DEFAULT_LIMIT) -> Any:
    """The structure with every text in it rendered; a text that is one ${…} becomes its value, of any type.

    `limit` bounds the characters of the result as JSON, roughly. `blocks` lets {% if %} and {% for %} work.
    Raises: ExpressionError.
    """
    rendered = _render(value, Evaluation(scope, Bounds(limit)), blocks=blocks, depth=0)
    return _shallow(value if isinstance(value, str) else "value", rendered)


def render_text(template: str, scope: Mapping[str, Any], *, limit: int = DEFAULT_LIMIT) -> str:
    """A text with {% if %} and {% for %}, always as text. Raises: ExpressionError."""
    parsed = parse_template(template, blocks=True)
    _check(parsed)
    return Writer(Evaluation(scope, Bounds(limit))).text(parsed.parts)


def render_known(value: Any, scope: Mapping[str, Any], *, blocks: bool = False) -> Any:
    """The structure rendered as far as the scope goes: an expression that cannot be evaluated stays as it is written.

    Of a text whose {% if %} or {% for %} cannot be evaluated, all stays. Never raises.
    """
    if is_object(value):
        return {key: render_known(item, scope, blocks=blocks) for key, item in value.items()}
    if is_list(value):
        return [render_known(item, scope, blocks=blocks) for item in value]
    if not isinstance(value, str):
        return value
    try:
        return render(value, scope, blocks=blocks)
    except ExpressionError:
        parts = parse_template(value, blocks=blocks).parts
    if not all(isinstance(part, str | Expression) for part in parts):
        return value
    return "".join(_known(part, scope) for part in parts if isinstance(part, str | Expression))


def _known(part: str | Expression, scope: Mapping[str, Any]) -> str:
    if isinstance(part, str):
        return part
    try:
        return Writer(Evaluation(scope, Bounds())).text((part,))
    except ExpressionError:
        return part.text


def evaluate(expression: str, scope: Mapping[str, Any], *, limit: int = DEFAULT_LIMIT) -> Any:
    """The value of one expression, written with or without its ${}. Raises: ExpressionError."""
    return _shallow(expression, _typed(parse_bare(expression), Evaluation(scope, Bounds(limit))))


def condition(expression: str, scope: Mapping[str, Any]) -> bool:
    """The value of an expression that has to be a boolean. Raises: ExpressionError, which names the type it got."""
    value = evaluate(expression, scope)
    if isinstance(value, bool):
        return value
    raise ExpressionError(expression, f"a condition must give a boolean, not {type_name(value)}")


def references(value: Any, *, blocks: bool = True) -> tuple[set[str], set[str]]:
    """The names and the step ids that all texts of a structure read, `input` and `run` left out. Raises: ExpressionError."""
    found = reads(value, blocks=blocks)
    names = {read.name for read in found if read.kind == "name" and read.name not in ("input", "run")}
    return names, {read.name for read in found if read.kind == "step"}


def reads(value: Any, *, blocks: bool = True) -> tuple[Read, ...]:
    """Everything that all texts of a structure read, in order. Raises: ExpressionError where one of them is wrong."""
    if isinstance(value, str):
        parsed = parse_template(value, blocks=blocks)
        _check(parsed)
        return parsed.reads
    if is_object(value):
        value = list(value.values())
    found = [reads(item, blocks=blocks) for item in value] if is_list(value) else []
    return tuple(dict.fromkeys(read for part in found for read in part))


def _render(value: Any, evaluation: Evaluation, *, blocks: bool, depth: int) -> Any:
    if isinstance(value, str):
        parsed = parse_template(value, blocks=blocks)
        return _typed(parsed, evaluation) if parsed.whole else _text(parsed, evaluation)
    if depth > _DEEPEST:
        raise ExpressionError("value", f"is nested more than {_DEEPEST} deep")
    if is_object(value):
        return {key: _render(item, evaluation, blocks=blocks, depth=depth + 1) for key, item in value.items()}
    if is_list(value):
        return [_render(item, evaluation, blocks=blocks, depth=depth + 1) for item in value]
    return value


def _shallow(written: str, value: Any) -> Any:
    """The value. Raises: ExpressionError for one that no store and no answer would take."""
    if (is_object(value) or is_list(value)) and is_too_deep(value):
        raise ExpressionError(written, f"is nested too deeply: {MAX_DEPTH} levels are the limit")
    return value


def _text(parsed: Template, evaluation: Evaluation) -> str:
    _check(parsed)
    return Writer(evaluation).text(parsed.parts)


def _typed(parsed: Template, evaluation: Evaluation) -> Any:
    _check(parsed)
    whole = parsed.whole
    assert whole is not None  # parse_bare makes nothing else, and _render asked
    value = evaluation.value(whole)
    try:
        measure(value, evaluation.bounds)
    except Trouble as trouble:
        raise ExpressionError(whole.text, str(trouble)) from None
    return list(cast(tuple[Any, ...], value)) if isinstance(value, tuple) else value


def _check(parsed: Template) -> None:
    if parsed.problems:
        problem = parsed.problems[0]
        hint = f" (did you mean {problem.suggestion}?)" if problem.suggestion else ""
        raise ExpressionError(problem.expression, problem.message + hint)
