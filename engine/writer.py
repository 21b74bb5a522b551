"""Writes a parsed template as one text, with its conditions and loops."""

from typing import Any

from engine.evaluator import Evaluation
from engine.syntax import Expression, ExpressionError
from engine.templates import Conditional, Loop, Part
from engine.values import Bounds, Trouble, is_list, is_object, to_text, type_name


class Writer:
    """Writes parts over one evaluation."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation
        self._bounds: Bounds = evaluation.bounds

    def text(self, parts: tuple[Part, ...]) -> str:
        """All parts as one text. Raises: ExpressionError."""
        made: list[str] = []
        self._write(parts, made, 0)
        return "".join(made)

    def _write(self, parts: tuple[Part, ...], made: list[str], size: int) -> int:
        for part in parts:
            match part:
                case str():
                    made.append(part)
                    size += len(part)
                case Expression():
                    made.append(self._shown(part))
                    size += len(made[-1])
                case Conditional():
                    size = self._conditional(part, made, size)
                case Loop():
                    size = self._loop(part, made, size)
            if size > self._bounds.limit:
                shown = part.text if isinstance(part, Expression) else "text"
                raise ExpressionError(shown, f"the rendered text is larger than {self._bounds.limit} characters")
        return size

    def _shown(self, expression: Expression) -> str:
        value = self._evaluation.value(expression)
        try:
            return to_text(value, self._bounds)
        except (Trouble, TypeError, ValueError, RecursionError) as trouble:
            raise ExpressionError(expression.text, str(trouble)[:200]) from None

    def _conditional(self, part: Conditional, made: list[str], size: int) -> int:
        for test, parts in part.branches:
            if test is None or self._evaluation.value(test):
                return self._write(parts, made, size)
        return size

    def _loop(self, loop: Loop, made: list[str], size: int) -> int:
        items = self._items(loop)
        outer = self._evaluation.loops
        for index, item in enumerate(items):
            self._evaluation.loops = outer | item | {"loop": _loop_state(index, len(items))}
            size = self._write(loop.body, made, size)
        self._evaluation.loops = outer
        return size if items else self._write(loop.otherwise, made, size)

    def _items(self, loop: Loop) -> list[dict[str, Any]]:
        """What each iteration binds, the ones that the loop's own `if` leaves out not included."""
        found = self._evaluation.value(loop.items)
        if not is_list(found) and not is_object(found):
            raise ExpressionError(loop.items.text, f"a loop needs a list or an object, not {type_name(found)}")
        kept: list[dict[str, Any]] = []
        outer = self._evaluation.loops
        for item in found:
            try:
                self._bounds.iterate()
                bound = _bind(loop, item)
            except Trouble as trouble:
                raise ExpressionError(loop.items.text, str(trouble)) from None
            self._evaluation.loops = outer | bound
            if loop.test is None or self._evaluation.value(loop.test):
                kept.append(bound)
        self._evaluation.loops = outer
        return kept


def _bind(loop: Loop, item: Any) -> dict[str, Any]:
    if not loop.unpack:
        return {loop.names[0]: item}
    if not is_list(item) or len(item) != len(loop.names):
        raise Trouble(f"each item has to be a list of {len(loop.names)}, not {type_name(item)}")
    return dict(zip(loop.names, item, strict=True))


def _loop_state(index: int, length: int) -> dict[str, Any]:
    return {
        "index": index + 1,
        "index0": index,
        "revindex": length - index,
        "revindex0": length - index - 1,
        "first": index == 0,
        "last": index == length - 1,
        "length": length,
    }
