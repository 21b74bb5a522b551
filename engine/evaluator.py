"""Walks the tree of an expression over a scope of JSON data: this is the sandbox.

There is no way from here to a Python object: a dot and a bracket look up keys and indexes of data, nothing but `range` can be
called, filters and tests come from an explicit list, and every node visited is paid for out of `Bounds`. (Jinja's own sandbox
runs generated Python with attribute access and has no bound on work; its parser is used, its runtime is not.)
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

from jinja2 import nodes

from engine.filters import FILTERS, TESTS
from engine.syntax import Expression, ExpressionError
from engine.values import (
    MAX_INTEGER,
    MAX_ITERATIONS,
    Bounds,
    Missing,
    Trouble,
    equal,
    is_list,
    is_number,
    is_object,
    measure,
    to_text,
    type_name,
)

_ARITHMETIC: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "Add": ("+", operator.add),
    "Sub": ("-", operator.sub),
    "Mul": ("*", operator.mul),
    "Div": ("/", lambda left, right: left / right),
    "FloorDiv": ("//", lambda left, right: left // right),
    "Mod": ("%", operator.mod),
}
_ORDER: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "lt": ("<", operator.lt),
    "lteq": ("<=", operator.le),
    "gt": (">", operator.gt),
    "gteq": (">=", operator.ge),
}
_CHAINS = (nodes.Name, nodes.Getattr, nodes.Getitem)
_CAN_MISS = ("first", "last", "min", "max")


class Evaluation:
    """Expressions over one scope. `loops` holds the names that loops around an expression give."""

    def __init__(self, scope: Mapping[str, Any], bounds: Bounds) -> None:
        self._scope = scope
        self.bounds = bounds
        self.loops: dict[str, Any] = {}

    def value(self, expression: Expression) -> Any:
        """The expression's value. Raises: ExpressionError, and nothing else."""
        if expression.node is None or expression.problems:
            raise ExpressionError(expression.text, expression.problems[0].message)
        try:
            return self._eval(expression.node)
        except Trouble as trouble:
            raise ExpressionError(expression.text, str(trouble)) from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ExpressionError(expression.text, f"cannot be evaluated: {str(error)[:200]}") from None
        except (RecursionError, MemoryError):
            raise ExpressionError(expression.text, "is nested too deeply or makes too much") from None

    def _eval(self, node: nodes.Node) -> Any:
        self.bounds.spend()
        return self._visitors[type(node)](self, node)

    def _name(self, node: nodes.Name) -> Any:
        if node.name in self.loops:
            return self.loops[node.name]
        if node.name in self._scope:
            return self._scope[node.name]
        if node.name == "null":
            return None
        raise Missing(f"there is no '{node.name}'")

    def _const(self, node: nodes.Const) -> Any:
        return node.value

    def _getattr(self, node: nodes.Getattr) -> Any:
        return _look_up(self._eval(node.node), node.attr)

    def _getitem(self, node: nodes.Getitem) -> Any:
        value = self._eval(node.node)
        if isinstance(node.arg, nodes.Slice):
            return self._slice(value, node.arg)
        return _look_up(value, self._eval(node.arg))

    def _slice(self, value: Any, node: nodes.Slice) -> Any:
        if not isinstance(value, str) and not is_list(value):
            raise Trouble(f"a slice needs text or a list, not {type_name(value)}")
        ends = [None if end is None else self._eval(end) for end in (node.start, node.stop, node.step)]
        part = value[slice(*ends)]
        self.bounds.handle(part)
        return part

    def _list(self, node: nodes.List | nodes.Tuple) -> list[Any]:
        return [self._eval(item) for item in node.items]

    def _dict(self, node: nodes.Dict) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for pair in node.items:
            key = self._eval(pair.key)
            if not isinstance(key, str):
                raise Trouble(f"the keys of an object are text, not {type_name(key)}")
            made[key] = self._eval(pair.value)
        return made

    def _choice(self, node: nodes.CondExpr) -> Any:
        return self._eval(node.expr1 if self._eval(node.test) else cast(nodes.Node, node.expr2))

    def _and(self, node: nodes.And) -> Any:
        return self._eval(node.left) and self._eval(node.right)

    def _or(self, node: nodes.Or) -> Any:
        return self._eval(node.left) or self._eval(node.right)

    def _not(self, node: nodes.Not) -> bool:
        return not self._eval(node.node)

    def _sign(self, node: nodes.Neg | nodes.Pos) -> Any:
        value = self._eval(node.node)
        if not is_number(value):
            raise Trouble(f"a sign needs a number, not {type_name(value)}")
        return -value if isinstance(node, nodes.Neg) else value

    def _arithmetic(self, node: nodes.BinExpr) -> Any:
        left, right = self._eval(node.left), self._eval(node.right)
        sign, operate = _ARITHMETIC[type(node).__name__]
        if is_number(left) and is_number(right):
            return _bounded_number(operate(left, right))
        if sign == "+" and isinstance(left, str) and isinstance(right, str):
            self._joins(left, right)
            return left + right
        if sign == "+" and is_list(left) and is_list(right):
            self._joins(left, right)
            return [*left, *right]
        raise Trouble(f"{sign} cannot take {type_name(left)} and {type_name(right)}")

    def _joins(self, left: Sequence[Any], right: Sequence[Any]) -> None:
        self.bounds.check_size(len(left) + len(right))
        self.bounds.handle(left)
        self.bounds.handle(right)

    def _concat(self, node: nodes.Concat) -> str:
        texts: list[str] = []
        size = 0
        for item in node.nodes:
            texts.append(to_text(self._eval(item), self.bounds))
            self.bounds.handle(texts[-1])
            size += len(texts[-1])
            self.bounds.check_size(size)
        return "".join(texts)

    def _compare(self, node: nodes.Compare) -> bool:
        left = self._eval(node.expr)
        for operand in node.ops:
            right = self._eval(operand.expr)
            if not self._compared(operand.op, left, right):
                return False
            left = right
        return True

    def _compared(self, op: str, left: Any, right: Any) -> bool:
        if op in ("eq", "ne"):
            return self._same(left, right) == (op == "eq")
        if op in ("in", "notin"):
            return self._within(left, right) == (op == "in")
        sign, compare = _ORDER[op]
        if isinstance(left, str) and isinstance(right, str):
            self.bounds.handle(min(left, right, key=len))
            return compare(left, right)
        if is_number(left) and is_number(right):
            return compare(left, right)
        raise Trouble(f"{sign} cannot compare {type_name(left)} and {type_name(right)}")

    def _same(self, left: Any, right: Any) -> bool:
        """Equality as JSON has it: true is not 1. Containers are measured first, so that sharing cannot make it endless."""
        if (is_list(left) and is_list(right)) or (is_object(left) and is_object(right)):
            measure(left, self.bounds)
            return equal(left, right)
        if isinstance(left, str) and isinstance(right, str):
            self.bounds.handle(min(left, right, key=len))
        return isinstance(left, bool) == isinstance(right, bool) and left == right

    def _within(self, item: Any, container: Any) -> bool:
        self.bounds.handle(container)
        if isinstance(container, str):
            if isinstance(item, str):
                return item in container
            raise Trouble(f"only text can be in text, not {type_name(item)}")
        if is_object(container):
            return isinstance(item, str) and item in container
        if is_list(container):
            self.bounds.spend(len(container) // 2)
            return any(self._same(item, entry) for entry in container)
        raise Trouble(f"`in` needs a list, an object or text, not {type_name(container)}")

    def _filter(self, node: nodes.Filter) -> Any:
        source = cast(nodes.Expr, node.node)
        try:
            value = self._eval(source)
        except Missing:
            if node.name != "default" or not _can_miss(source):
                raise
            given = [*(self._eval(item) for item in node.args), *(self._eval(pair.value) for pair in node.kwargs)]
            return given[0] if given else ""
        arguments = [self._eval(item) for item in node.args]
        named: dict[str, Any] = {str(pair.key): self._eval(pair.value) for pair in node.kwargs}
        self.bounds.handle(value)
        made = FILTERS[node.name](self.bounds, value, *arguments, **named)
        self.bounds.handle(made)
        return _bounded_number(made) if is_number(made) else made

    def _test(self, node: nodes.Test) -> bool:
        try:
            value = self._eval(node.node)
        except Missing:
            if node.name not in ("defined", "undefined") or not _can_miss(node.node):
                raise
            return node.name == "undefined"
        arguments = [self._eval(item) for item in node.args]
        for compared in (value, *arguments) if arguments else ():
            measure(compared, self.bounds)
        return TESTS[node.name](value, *arguments)

    def _range(self, node: nodes.Call) -> list[int]:
        numbers = [self._eval(item) for item in node.args]
        if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
            raise Trouble("range takes whole numbers")
        made = range(*numbers)
        if len(made) > MAX_ITERATIONS:
            raise Trouble(f"range makes more than {MAX_ITERATIONS} numbers")
        found = list(made)
        self.bounds.handle(found)
        return found

    _visitors: ClassVar[dict[type[nodes.Node], Callable[..., Any]]] = {
        nodes.Name: _name,
        nodes.Const: _const,
        nodes.Getattr: _getattr,
        nodes.Getitem: _getitem,
        nodes.List: _list,
        nodes.Tuple: _list,
        nodes.Dict: _dict,
        nodes.CondExpr: _choice,
        nodes.And: _and,
        nodes.Or: _or,
        nodes.Not: _not,
        nodes.Neg: _sign,
        nodes.Pos: _sign,
        nodes.Add: _arithmetic,
        nodes.Sub: _arithmetic,
        nodes.Mul: _arithmetic,
        nodes.Div: _arithmetic,
        nodes.FloorDiv: _arithmetic,
        nodes.Mod: _arithmetic,
        nodes.Concat: _concat,
        nodes.Compare: _compare,
        nodes.Filter: _filter,
        nodes.Test: _test,
        nodes.Call: _range,
    }


def _can_miss(node: nodes.Node) -> bool:
    """Whether `default` and `is defined` answer for it: a look-up, or the first, last, least or greatest of something."""
    return isinstance(node, _CHAINS) or (isinstance(node, nodes.Filter) and node.name in _CAN_MISS)


def _look_up(value: Any, key: Any) -> Any:
    if is_object(value):
        if isinstance(key, str) and key in value:
            return value[key]
        raise Missing(f"there is no key '{key}'" if isinstance(key, str) else f"a key is text, not {type_name(key)}")
    if isinstance(key, int) and not isinstance(key, bool) and (isinstance(value, str) or is_list(value)):
        if -len(value) <= key < len(value):
            return value[key]
        raise Missing(f"there is no index {key} in a {type_name(value)} of {len(value)}")
    hint = f"; write `| {key}`" if isinstance(key, str) and key in FILTERS else ""
    raise Missing(f"{type_name(value)} has no {'key' if isinstance(key, str) else 'index'} '{str(key)[:60]}'{hint}")


def _bounded_number(value: Any) -> Any:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Trouble("a number became too large")
    elif not -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
        raise Trouble("a whole number became larger than 64 bits")
    return value
