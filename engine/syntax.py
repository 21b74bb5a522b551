"""Reads one expression: Jinja2's own lexer and parser give the tree, this module says what of it the language allows.

The check is static and finds every mistake of an expression together with all that it reads, so that a definition can be
refused before it runs. The tree is walked by `engine.evaluator`; no Python code is ever generated from it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from jinja2 import Environment, TemplateError, nodes
from jinja2.parser import Parser

from engine.errors import UserError
from engine.filters import FILTER_SIGNATURES, TEST_SIGNATURES
from engine.nearest import nearest

MAX_EXPRESSION = 10_000
MAX_DEPTH = 80
STEP_FIELDS = ("output", "cost_usd", "tokens", "model", "error")
RUN_FIELDS = ("id", "error")
# What ends a ${…} is found before Jinja sees the text, so its own end marks are set to something that no text holds.
_ENVIRONMENT = Environment(variable_end_string="\x00}", block_end_string="\x00%", autoescape=False)
_OPERATORS = (
    nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Concat, nodes.And, nodes.Or, nodes.Not,
    nodes.Neg, nodes.Pos, nodes.Compare, nodes.Operand,
)  # fmt: skip
_APPLIES: dict[str, tuple[int, str, dict[str, Any]]] = {  # filters that take another's name, and where
    "map": (0, "filter", FILTER_SIGNATURES),
    **dict.fromkeys(("select", "reject"), (0, "test", TEST_SIGNATURES)),
    **dict.fromkeys(("selectattr", "rejectattr"), (1, "test", TEST_SIGNATURES)),
}
_LITERALS = (nodes.Tuple, nodes.List, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.Slice)


class ExpressionError(UserError):
    """An expression is wrong or could not be evaluated; `expression` is its text as it was written."""

    def __init__(self, expression: str, message: str) -> None:
        shown = expression if len(expression) <= 200 else expression[:200] + "…"
        super().__init__("expression_error", f"{shown}: {message}")
        self.expression = expression
        self.reason = message


@dataclass(frozen=True, slots=True)
class Problem:
    """One static mistake in an expression, which `expression` holds as it was written."""

    expression: str
    message: str
    suggestion: str | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """Something that an expression reads: `kind` is name (an output), input, or step."""

    kind: str
    name: str
    expression: str


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression; `node` is None exactly when Jinja could not parse it."""

    text: str  # as written, with its ${}
    node: nodes.Expr | None
    problems: tuple[Problem, ...]
    reads: tuple[Read, ...]

    @property
    def closed(self) -> bool:
        """Whether it uses no name at all, not even `run`: it gives the same wherever it stands."""
        if self.node is None:
            return False
        own = (self.node,) if isinstance(self.node, nodes.Name) else ()  # which find_all leaves out
        return all(name.name in ("null", "range") for name in (*own, *self.node.find_all(nodes.Name)))


def parse_expression(source: str, text: str, bound: frozenset[str] = frozenset()) -> Expression:
    """Reads the inside of a ${…}, which `text` shows as written. `bound` are the names that loops around it give. Never raises."""
    found = parse_with(source, text, Parser.parse_expression)
    if isinstance(found, Problem) and source[:1] == "{" and source[-1:] == "}":
        found = _two_braces(source[1:-1].strip(), found)
    return Expression(text, None, (found,), ()) if isinstance(found, Problem) else inspect(found, text, bound)


def inspect(node: nodes.Expr, text: str, bound: frozenset[str]) -> Expression:
    """Checks a parsed tree and finds what it reads. Never raises."""
    problems, reads = _Inspection(text, bound).run(node)
    return Expression(text, node, problems, reads)


def parse_with(source: str, text: str, rule: Any) -> Any:
    """What a rule of Jinja's parser makes of the whole source, or a Problem."""
    if len(source) > MAX_EXPRESSION:
        return Problem(text, f"an expression may have at most {MAX_EXPRESSION} characters")
    try:
        parser = Parser(_ENVIRONMENT, source, state="variable")
        found = rule(parser)
        if parser.stream.eos:
            return found
        return Problem(text, f"not an expression: unexpected '{parser.stream.current.value}'")
    except TemplateError as error:
        return Problem(text, f"not an expression: {_plain(error.message or '')}")
    except RecursionError:
        return Problem(text, "the expression is nested too deeply")
    except ValueError:  # a number with more digits than Python reads
        return Problem(text, "not an expression: a number is too long")


def _two_braces(inside: str, found: Problem) -> Problem:
    """The mistake of whoever writes expressions as other engines have them."""
    if isinstance(parse_with(inside, inside, Parser.parse_expression), Problem):
        return found
    return Problem(found.expression, "an expression has one pair of braces", f"${{{inside}}}")


def _plain(message: str) -> str:
    message = message.replace("\x00}", "}").replace("end of print statement", "its end")
    return message[:1].lower() + message[1:].rstrip(".")


class _Inspection:
    """One walk over an expression's tree."""

    def __init__(self, text: str, bound: frozenset[str]) -> None:
        self._text = text
        self._bound = bound
        self._problems: dict[Problem, None] = {}
        self._reads: dict[Read, None] = {}

    def run(self, root: nodes.Expr) -> tuple[tuple[Problem, ...], tuple[Read, ...]]:
        pending: list[tuple[nodes.Node, int]] = [(root, 0)]
        while pending:
            node, depth = pending.pop()
            if depth > MAX_DEPTH:
                self._problem("the expression is nested too deeply")
                break
            pending.extend((child, depth + 1) for child in self._visit(node))
        return tuple(self._problems), tuple(self._reads)

    def _problem(self, message: str, suggestion: str | None = None) -> None:
        self._problems[Problem(self._text, message, suggestion)] = None

    def _visit(self, node: nodes.Node) -> Iterator[nodes.Node]:
        """Checks one node and gives the children that are still to be looked at."""
        match node:
            case nodes.Getattr() | nodes.Getitem() if self._is_root(node.node):
                yield from self._root_lookup(node, cast(nodes.Name, node.node).name)
            case nodes.Getattr(node=nodes.Getattr(node=inner)) if self._is_root(inner):
                self._step_field(node, cast(nodes.Name, inner).name)
                yield node.node
            case nodes.Name():
                self._name(node.name)
            case nodes.Call():
                yield from self._call(node)
            case nodes.Filter():
                self._known("filter", node, FILTER_SIGNATURES)
                yield from node.iter_child_nodes()
            case nodes.Test():
                self._known("test", node, TEST_SIGNATURES)
                yield from node.iter_child_nodes()
            case _:
                self._plain_node(node)
                yield from node.iter_child_nodes()

    def _plain_node(self, node: nodes.Node) -> None:
        if isinstance(node, nodes.Const):
            self._literal(node.value)
        elif isinstance(node, nodes.CondExpr):
            if node.expr2 is None:
                self._problem("an inline `if` needs an `else`")
        elif isinstance(node, nodes.Pow):
            self._problem("the operator ** is not allowed")
        elif not isinstance(node, (*_OPERATORS, *_LITERALS, nodes.Getattr, nodes.Getitem)):
            self._problem(f"{type(node).__name__} is not allowed")

    def _is_root(self, node: nodes.Node) -> bool:
        return isinstance(node, nodes.Name) and node.name in ("input", "steps", "run") and node.name not in self._bound

    def _root_lookup(self, node: nodes.Getattr | nodes.Getitem, root: str) -> Iterator[nodes.Node]:
        key = _fixed_key(node)
        if root == "input":
            self._reads[Read("input", key, self._text) if key is not None else Read("name", "input", self._text)] = None
        elif key is None:
            self._problem("`steps` needs a fixed id, as in steps.search.output" if root == "steps" else "no such key")
        elif root == "steps":
            self._reads[Read("step", key, self._text)] = None
        elif key not in RUN_FIELDS:
            self._problem(f"`run` has no '{key}'", nearest(key, RUN_FIELDS))
        if isinstance(node, nodes.Getitem):
            yield node.arg

    def _step_field(self, node: nodes.Getattr, root: str) -> None:
        if root == "steps" and node.attr not in STEP_FIELDS:
            self._problem(f"a step's result has no '{node.attr}'", nearest(node.attr, STEP_FIELDS))

    def _name(self, name: str) -> None:
        if name in self._bound or name == "null":
            return
        if name == "steps":
            self._problem("`steps` needs a fixed id, as in steps.search.output")
        elif name == "range":
            self._problem("`range` has to be called, as in range(10)")
        else:
            self._reads[Read("name", name, self._text)] = None

    def _call(self, node: nodes.Call) -> Iterator[nodes.Node]:
        called = node.node
        plain = not (node.kwargs or node.dyn_args or node.dyn_kwargs)
        if isinstance(called, nodes.Name) and called.name == "range" and called.name not in self._bound:
            if not plain or not 1 <= len(node.args) <= 3:
                self._problem("range takes one to three whole numbers")
            yield from node.args
            return
        method = called.attr if isinstance(called, nodes.Getattr) else None
        hint = f"; write `| {method}`" if method in FILTER_SIGNATURES else "" if method is None else "; use filters"
        self._problem(f"nothing but range can be called{hint}")
        yield from node.iter_child_nodes()

    def _known(self, kind: str, node: nodes.Filter | nodes.Test, table: dict[str, Any]) -> None:
        if node.name not in table:
            self._problem(f"there is no {kind} '{node.name}'", nearest(node.name, table))
        elif node.dyn_args or node.dyn_kwargs:
            self._problem(f"the {kind} {node.name} takes no * or ** arguments")
        else:
            leading = 2 if kind == "filter" else 1  # bounds and the value itself
            try:
                named: dict[str, None] = {str(pair.key): None for pair in node.kwargs}
                table[node.name].bind(*[None] * (leading + len(node.args)), **named)
            except TypeError as error:
                self._problem(f"the {kind} {node.name} has {str(error)[:100]}")
            self._applied(node)

    def _applied(self, node: nodes.Filter | nodes.Test) -> None:
        """Notes a filter or test that another filter applies to items and that there is not."""
        if node.name not in _APPLIES or len(node.args) <= _APPLIES[node.name][0]:
            return
        place, kind, table = _APPLIES[node.name]
        named = node.args[place]
        if isinstance(named, nodes.Const) and isinstance(named.value, str) and named.value not in table:
            hint = " (for a key of each item write map(attribute='…'))" if node.name == "map" else ""
            self._problem(f"there is no {kind} '{named.value[:60]}'{hint}", nearest(named.value, table))

    def _literal(self, value: object) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            self._problem("a number is too large")
        elif isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                self._problem("a text holds half of a surrogate pair")


def _fixed_key(node: nodes.Getattr | nodes.Getitem) -> str | None:
    if isinstance(node, nodes.Getattr):
        return node.attr
    value = node.arg.value if isinstance(node.arg, nodes.Const) else None
    return value if isinstance(value, str) else None
