"""Reads a text with ${…} in it, and, where blocks are allowed, {% if %} and {% for %}: text to a tree of parts.

One pass: what an expression gives is never read again. `$${` and `{%%` are a literal `${` and `{%`; `{#` and `{{` are plain text.
Never raises for what a text holds: its mistakes are kept in the template, all at once.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from jinja2 import nodes
from jinja2.parser import Parser

from engine.syntax import Expression, Problem, Read, inspect, parse_expression, parse_with
from engine.text_cache import TextCache

MAX_BLOCK_DEPTH = 16
MAX_TOKENS = 5_000  # expressions and statements of one text
_INTERESTING = re.compile(r"\$\$?\{|\{%%?")
_INSIDE = re.compile(r"""["']|[()\[\]{}]|%\}""")
_STRINGS = {mark: re.compile(rf"{mark}[^{mark}\\]*(?:\\.[^{mark}\\]*)*{mark}", re.S) for mark in "\"'"}
_BROKEN = {
    "${": "${ is not closed by }; for plain text write $${",
    "{%": "{% is not closed by %}; for plain text write {%%",
    "many": f"a text may have at most {MAX_TOKENS} expressions",
}
_FIXED_NAMES = {"input", "steps", "run", "loop", "range", "null"}


@dataclass(frozen=True, slots=True)
class Conditional:
    """{% if %}: the first branch whose test holds; a test of None always holds."""

    branches: tuple[tuple[Expression | None, "tuple[Part, ...]"], ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """{% for %}: `body` for each item that passes `test`, `otherwise` where there was none."""

    names: tuple[str, ...]
    unpack: bool
    items: Expression
    test: Expression | None
    body: "tuple[Part, ...]"
    otherwise: "tuple[Part, ...]"


Part = str | Expression | Conditional | Loop


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed text. `whole` is the expression where the text is one ${…} and nothing else."""

    parts: tuple[Part, ...]
    problems: tuple[Problem, ...]
    reads: tuple[Read, ...]

    @property
    def whole(self) -> Expression | None:
        """The single expression whose value keeps its type."""
        only = self.parts[0] if len(self.parts) == 1 else None
        return only if isinstance(only, Expression) else None


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # text, expression, statement, broken
    text: str
    source: str = ""  # what is inside; for broken, which of `_BROKEN`


@dataclass(slots=True)
class _Block:
    """An open {% if %} or {% for %}; `parts` collects what comes until its next tag."""

    word: str
    opening: str
    bound: frozenset[str]
    parts: list[Part] = field(default_factory=list[Part])
    branches: list[tuple[Expression | None, tuple[Part, ...]]] = field(
        default_factory=list[tuple[Expression | None, tuple[Part, ...]]]
    )
    test: Expression | None = None
    loop: Loop | None = None
    in_else: bool = False


_CACHE: TextCache[Template] = TextCache(1_000_000)


def parse_template(text: str, *, blocks: bool = False) -> Template:
    """The parts, mistakes and reads of a text; cached. Never raises."""
    if "${" not in text and "{%" not in text:
        return Template((text,) if text else (), (), ())
    return _CACHE.get(text, blocks, lambda: _Builder().build(_scan(text, blocks)))


def parse_bare(source: str) -> Template:
    """A text that is an expression as a whole, with or without its ${}; cached. Never raises."""
    return _CACHE.get(source, "bare", lambda: _bare(source))


def unwrap(source: str) -> str:
    """The inside of a text that is one ${…}, else the text itself."""
    source = source.strip()
    return source[2:-1].strip() if source.startswith("${") and _end(source, 2, "}") == len(source) else source


def _bare(source: str) -> Template:
    expression = parse_expression(unwrap(source), source.strip())
    return Template((expression,), expression.problems, expression.reads)


def _end(text: str, start: int, closer: str) -> int | None:
    """Where an expression or statement that began before `start` is over: the index behind its closer."""
    depth, position = 0, start
    while found := _INSIDE.search(text, position):
        mark, position = found.group(), found.end()
        if mark in _STRINGS:
            string = _STRINGS[mark].match(text, found.start())
            if string is None:
                return None
            position = string.end()
        elif mark == closer and depth == 0:
            return position
        elif mark == "%}":
            position -= 1  # a modulo before a brace, inside ${…}
        else:
            depth = depth + 1 if mark in "([{" else max(0, depth - 1)
    return None


def _scan(text: str, blocks: bool) -> Iterator[_Token]:
    position = count = 0
    while found := _INTERESTING.search(text, position):
        count += 1
        if count > MAX_TOKENS:
            yield _Token("broken", found.group(), "many")
            return
        if found.start() > position:
            yield _Token("text", text[position : found.start()])
        mark, position = found.group(), found.end()
        if mark in ("$${", "{%%"):
            yield _Token("text", "${" if mark == "$${" else "{%")
        elif mark == "{%" and not blocks:
            yield _Token("text", mark)
        else:
            closer = "}" if mark == "${" else "%}"
            end = _end(text, position, closer)
            if end is None:
                yield _Token("broken", text[found.start() : position + 60].split("\n")[0], mark)
                return
            kind = "expression" if mark == "${" else "statement"
            yield _Token(kind, text[found.start() : end], text[position : end - len(closer)])
            position = end
    if position < len(text):
        yield _Token("text", text[position:])


class _Builder:
    """Turns tokens into parts; keeps a stack of open blocks, the text itself at its bottom."""

    def __init__(self) -> None:
        self._stack = [_Block("", "", frozenset())]
        self._problems: list[Problem] = []
        self._reads: dict[Read, None] = {}
        self._strip_next = False

    def build(self, tokens: Iterator[_Token]) -> Template:
        for token in tokens:
            match token.kind:
                case "text":
                    self._text(token.text)
                case "expression":
                    self._strip_next = False
                    bound = self._stack[-1].bound
                    self._add(self._noted(parse_expression(token.source.strip(), token.text, bound)))
                case "statement":
                    self._statement(token)
                case _:
                    self._problem(token.text, _BROKEN[token.source])
        for block in self._stack[1:]:
            self._problem(block.opening, f"{block.word} is not closed by {{% end{block.word} %}}")
        return Template(tuple(self._stack[0].parts), tuple(self._problems), tuple(self._reads))

    def _problem(self, text: str, message: str) -> None:
        self._problems.append(Problem(text, message))

    def _add(self, part: Part) -> None:
        self._stack[-1].parts.append(part)

    def _noted(self, expression: Expression) -> Expression:
        self._problems.extend(expression.problems)
        self._reads.update(dict.fromkeys(expression.reads))
        return expression

    def _text(self, text: str) -> None:
        text = text.lstrip() if self._strip_next else text
        if text:
            self._strip_next = False
            self._add(text)

    def _strip_before(self) -> None:
        parts = self._stack[-1].parts
        while parts and isinstance(parts[-1], str):
            parts[-1] = parts[-1].rstrip()
            if parts[-1]:
                return
            parts.pop()

    def _statement(self, token: _Token) -> None:
        inside = token.source
        if inside[:1] == "-":
            self._strip_before()
        inside = inside[1:] if inside[:1] in ("-", "+") else inside
        self._strip_next = inside.endswith("-")
        inside = inside[:-1] if inside[-1:] in ("-", "+") else inside
        word, _, rest = inside.strip().replace("\n", " ").partition(" ")
        match word:
            case "if" | "for":
                self._open(word, rest, token.text)
            case "elif" | "else":
                self._next_branch(word, rest, token.text)
            case "endif" | "endfor":
                self._close(word[3:], token.text)
            case _:
                self._problem(token.text, "only if and for blocks are known here; for a plain {% write {%%")

    def _open(self, word: str, rest: str, text: str) -> None:
        if len(self._stack) > MAX_BLOCK_DEPTH:
            self._problem(text, f"blocks are nested more than {MAX_BLOCK_DEPTH} deep")
        bound = self._stack[-1].bound
        block = _Block(word, text, bound)
        if word == "if":
            block.test = self._noted(parse_expression(rest, text, bound))
        else:
            block.loop = self._loop_header(rest, text, bound)
            block.bound = bound | {"loop", *block.loop.names}
        self._stack.append(block)

    def _loop_header(self, rest: str, text: str, bound: frozenset[str]) -> Loop:
        found = parse_with(f"for {rest}", text, _for_header)
        if isinstance(found, Problem):
            self._problems.append(found)
            return Loop((), False, Expression(text, None, (found,), ()), None, (), ())
        names, unpack, items, test = found
        if set(names) & _FIXED_NAMES:
            self._problem(text, "a loop cannot give its items this name")
        inner = bound | {"loop", *names}
        tested = None if test is None else self._noted(inspect(test, text, inner))
        return Loop(names, unpack, self._noted(inspect(items, text, bound)), tested, (), ())

    def _next_branch(self, word: str, rest: str, text: str) -> None:
        block = self._stack[-1]
        if block.in_else or block.word == "" or (block.word == "for" and word == "elif"):
            self._problem(text, f"{word} does not belong here")
            return
        block.branches.append((block.test, tuple(block.parts)))
        block.parts, block.test = [], None
        if block.word == "for":
            block.bound = self._stack[-2].bound
        if word == "elif":
            block.test = self._noted(parse_expression(rest, text, block.bound))
        else:
            block.in_else = True

    def _close(self, word: str, text: str) -> None:
        block = self._stack[-1]
        if block.word != word:
            self._problem(text, f"end{word} closes nothing here")
            return
        self._stack.pop()
        block.branches.append((block.test, tuple(block.parts)))
        if block.loop is None:
            self._add(Conditional(tuple(block.branches)))
        else:
            otherwise = block.branches[1][1] if block.in_else else ()
            self._add(replace(block.loop, body=block.branches[0][1], otherwise=otherwise))


def _for_header(parser: Parser) -> tuple[tuple[str, ...], bool, nodes.Expr, nodes.Expr | None]:
    parser.stream.expect("name:for")
    target = parser.parse_assign_target(extra_end_rules=("name:in",))
    parser.stream.expect("name:in")
    items = parser.parse_tuple(with_condexpr=False)
    test = parser.parse_expression() if parser.stream.skip_if("name:if") else None
    found = target.items if isinstance(target, nodes.Tuple) else [target]
    names = tuple(item.name for item in found if isinstance(item, nodes.Name))
    if len(names) != len(found):
        parser.fail("a loop gives its items to plain names")
    return names, isinstance(target, nodes.Tuple), items, test
