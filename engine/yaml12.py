"""Reads YAML 1.2 (core schema) into nodes that know their place in the text; plain data takes the same form without places.

libyaml only splits the text into events. What a scalar means, aliases, duplicate keys and all bounds are decided here: `on`, `yes`
and `no` are text, tags are refused, keys are text, and what aliases expand to is counted before anybody walks it.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from engine.errors import Mistake

MAX_CHARACTERS = 524_288
MAX_DEPTH = 60
MAX_WEIGHT = 250_000  # nodes, and sixteenths of a character of text, aliases expanded
MAX_KEY = 200
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class Place(NamedTuple):
    """Where something stands: line and column from 1, and the index of its first and behind its last character."""

    line: int
    column: int
    start: int
    end: int


@dataclass(slots=True)
class Node:
    """A value with its place (None where it did not come from text). The values of lists and objects are nodes again."""

    value: Any  # None, bool, int, float, str, list[Node] or dict[str, Node]
    place: Place | None = None
    keys: dict[str, Place] = field(default_factory=dict[str, Place])
    weight: int = 1

    @property
    def entries(self) -> dict[str, "Node"] | None:
        """The entries of an object, else None."""
        value: object = self.value
        return cast("dict[str, Node]", value) if isinstance(value, dict) else None

    @property
    def items(self) -> list["Node"] | None:
        """The items of a list, else None."""
        value: object = self.value
        return cast("list[Node]", value) if isinstance(value, list) else None

    def plain(self) -> Any:
        """The value as plain JSON data."""
        if self.entries is not None:
            return {key: node.plain() for key, node in self.entries.items()}
        return self.value if self.items is None else [node.plain() for node in self.items]


class Unreadable(Exception):
    """The text cannot be read any further."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(mistake.message)
        self.mistake = mistake


def read_yaml(text: str) -> tuple[Node | None, list[Mistake]]:
    """The root node and all mistakes of the text itself; no node where it cannot be read as YAML at all. Never raises."""
    text = text.removeprefix("\ufeff")
    builder = _Builder()
    try:
        if len(text) > MAX_CHARACTERS:
            line = text.count("\n", 0, MAX_CHARACTERS) + 1
            column = MAX_CHARACTERS - text.rfind("\n", 0, MAX_CHARACTERS)
            raise Unreadable(Mistake(f"the text is longer than {MAX_CHARACTERS} characters", None, line, column))
        for event in yaml.parse(text, Loader=yaml.CBaseLoader):
            builder.take(event)
    except Unreadable as error:
        return None, [*builder.mistakes, error.mistake]
    except yaml.MarkedYAMLError as error:
        return None, [*builder.mistakes, _syntax_mistake(error, text)]
    except yaml.reader.ReaderError as error:
        before = text.encode()[: error.position].decode(errors="ignore")
        column = len(before) - (before.rfind("\n") + 1) + 1
        return None, [
            Mistake("the text holds a character that YAML does not allow", None, before.count("\n") + 1, column)
        ]
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        return None, [Mistake("the text holds half of a surrogate pair", None, line, 1)]
    if builder.root is None:
        return None, [Mistake("the text is empty", None, 1, 1)]
    return builder.root, builder.mistakes


def read_data(data: object) -> tuple[Node | None, list[Mistake]]:
    """The same for plain data, as JSON gives it. Never raises."""
    builder = _DataReader()
    try:
        return builder.node(data, "", 0), builder.mistakes
    except Unreadable as error:
        return None, [*builder.mistakes, error.mistake]


def _syntax_mistake(error: yaml.MarkedYAMLError, text: str) -> Mistake:
    mark = error.problem_mark or error.context_mark
    message = f"not YAML: {error.problem or error.context}"
    line = mark.line + 1 if mark else 1
    written = text.split("\n")[line - 1 : line]
    if written and "${" in written[0]:
        message += "; put quotes around text that holds ${…} with `: `, ` #`, or inside { } or [ ]"
    elif written and "\t" in written[0]:
        message += "; indent with spaces, not tabs"
    return Mistake(message, None, line, mark.column + 1 if mark else 1)


def _place(event: Event) -> Place:
    start, end = event.start_mark, event.end_mark
    assert start is not None and end is not None  # libyaml always sets both
    return Place(start.line + 1, start.column + 1, start.index, end.index)


@dataclass(slots=True)
class _Open:
    """A list or object that is still being read; `key` is the key that waits for its value."""

    node: Node
    path: str
    anchor: str | None
    key: str | None = None
    key_place: Place | None = None
    skip: bool = False  # a duplicate or wrong key: its value is read and dropped
    merge: bool = False  # the key is a merge key: its value is put in, so that nothing seems to be missing


class _Builder:
    """Builds nodes from events, without recursion."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.mistakes: list[Mistake] = []
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}  # None: still being read
        self._documents = 0

    def take(self, event: Event) -> None:
        match event:
            case DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self._stop("only one document may be in the text", _place(event))
            case AliasEvent():
                self._alias(event)
            case ScalarEvent():
                self._scalar(event)
            case SequenceStartEvent() | MappingStartEvent():
                self._open(event)
            case SequenceEndEvent() | MappingEndEvent():
                self._close(event)
            case _:
                pass

    def _stop(self, message: str, place: Place) -> None:
        raise Unreadable(Mistake(message, self._path() or None, place.line, place.column))

    def _note(self, message: str, place: Place) -> None:
        if len(self.mistakes) < 200:
            self.mistakes.append(Mistake(message, self._path() or None, place.line, place.column))

    def _path(self) -> str:
        if not self._stack:
            return ""
        top = self._stack[-1]
        if top.node.items is not None:
            return f"{top.path}[{len(top.node.items)}]"
        return join_path(top.path, top.key)

    def _wants_key(self) -> bool:
        return bool(self._stack) and self._stack[-1].node.entries is not None and self._stack[-1].key is None

    def _alias(self, event: AliasEvent) -> None:
        place, name = _place(event), event.anchor or ""
        if name not in self._anchors:
            self._stop(f"the alias *{name[:60]} has no anchor; quote text that begins with *", place)
        node = self._anchors[name]
        if node is None:
            self._stop(f"the anchor &{name[:60]} holds itself", place)
        elif self._wants_key():
            self._stop("a key cannot be an alias", place)
        else:
            self._put(node)

    def _scalar(self, event: ScalarEvent) -> None:
        place = _place(event)
        self._check_tag(event.tag, place)
        if self._wants_key():
            self._key(event, place)
            return
        value: Any = event.value
        if event.implicit[0]:
            try:
                value = resolve(event.value)
            except ValueError as error:
                self._note(str(error), place)
        node = Node(value, place, weight=1 + len(event.value) // 16)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._put(node)

    def _check_tag(self, tag: str | None, place: Place) -> None:
        if tag is not None:
            self._note(f"tags are not allowed: {tag[:60]}; quote text that begins with !", place)

    def _key(self, event: ScalarEvent, place: Place) -> None:
        top = self._stack[-1]
        key = event.value
        top.skip, top.key, top.key_place = False, key, place
        top.merge = event.implicit[0] and key == "<<"
        if top.merge:
            self._note("YAML 1.2 has no merge key `<<`: write the keys out here", place)
        elif event.implicit[0] and not _is_text(key):
            self._note(f"a key has to be text: put quotes around {key[:60] or 'it'}", place)
        elif key in top.node.keys:
            first = top.node.keys[key].line
            self._note(f"the key '{key[:60]}' is given twice, first in line {first}", place)
            top.skip = True
        elif len(key) > MAX_KEY:
            self._note(f"a key may have at most {MAX_KEY} characters", place)

    def _open(self, event: SequenceStartEvent | MappingStartEvent) -> None:
        place = _place(event)
        self._check_tag(event.tag, place)
        if len(self._stack) >= MAX_DEPTH:
            self._stop(f"the text is nested more than {MAX_DEPTH} deep", place)
        if self._wants_key():
            self._stop("a key has to be text, not a list or an object", place)
        anchor = event.anchor
        if anchor is not None:
            self._anchors[anchor] = None
        empty: Any = [] if isinstance(event, SequenceStartEvent) else {}
        self._stack.append(_Open(Node(empty, place), self._path(), anchor))

    def _close(self, event: Event) -> None:
        done = self._stack.pop()
        begun, over = done.node.place, _place(event)
        if begun is not None:
            done.node.place = Place(begun.line, begun.column, begun.start, over.end)
        if done.anchor is not None:
            self._anchors[done.anchor] = done.node
        self._put(done.node)

    def _put(self, node: Node) -> None:
        if not self._stack:
            self.root = node
            return
        top = self._stack[-1]
        top.node.weight += node.weight
        if top.node.weight > MAX_WEIGHT:
            self._stop("the text is too large once its aliases are expanded", node.place or Place(1, 1, 0, 0))
        items, entries = top.node.items, top.node.entries
        if items is not None:
            items.append(node)
            return
        if top.merge and entries is not None:
            for each in node.items or [node]:
                for key, value in (each.entries or {}).items():
                    entries.setdefault(key, value)
        elif entries is not None and not top.skip and top.key is not None and top.key_place is not None:
            entries[top.key] = node
            top.node.keys[top.key] = top.key_place
        top.key = None


class _DataReader:
    """Turns plain data into nodes without places."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self._left = MAX_WEIGHT

    def node(self, value: object, path: str, depth: int) -> Node:
        self._left -= 1 + (len(value) // 16 if isinstance(value, str) else 0)
        if self._left < 0 or depth > MAX_DEPTH:
            raise Unreadable(Mistake("the definition is too large or nested too deeply", path or None))
        if isinstance(value, Mapping):
            return Node(dict(self._entries(cast(Mapping[object, object], value), path, depth)))
        if isinstance(value, list | tuple):
            items = cast(list[object], value)
            return Node([self.node(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(items)])
        if not _is_plain(value):
            self.mistakes.append(Mistake(f"not a JSON value: {type(value).__name__}", path or None))
            return Node(None)
        return Node(value)

    def _entries(self, value: Mapping[object, object], path: str, depth: int) -> Iterator[tuple[str, Node]]:
        for key, item in value.items():
            if isinstance(key, str) and len(key) <= MAX_KEY and _is_plain(key):
                yield key, self.node(item, join_path(path, key), depth + 1)
            else:
                self.mistakes.append(Mistake(f"a key has to be text of at most {MAX_KEY} characters", path or None))


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return value.isascii() or not re.search("[\ud800-\udfff]", value)
    if isinstance(value, int | float):
        return math.isfinite(value) and -(2**63) <= value < 2**64
    return value is None


def join_path(path: str, key: str | None) -> str:
    """A path such as `steps[1].prompt`; keys that are no plain words are quoted."""
    if key is None:
        return path
    if re.fullmatch(r"[\w-]+", key):
        return f"{path}.{key}" if path else key
    return f'{path}["{key[:60]}"]'


def resolve(text: str) -> Any:
    """What a plain scalar means in the core schema of YAML 1.2. Raises: ValueError for a number that JSON cannot hold."""
    if text in _WORDS:
        return _WORDS[text]
    if not text[0].isascii() or text[0].isalpha():
        return text
    if _NOT_FINITE.fullmatch(text):
        raise ValueError("a number has to be finite")
    if _BASED.fullmatch(text):
        return _bounded(int(text.replace("0o", "0", 1), 8) if text[1] == "o" else int(text, 16), text)
    if _INTEGER.fullmatch(text):
        return _bounded(int(text), text) if len(text) < 100 else _bounded(math.inf, text)
    return _bounded(float(text), text) if _FLOAT.fullmatch(text) else text


def _bounded(number: float, text: str) -> float:
    if math.isfinite(number) and -(2**63) <= number < 2**64:
        return number
    if math.isfinite(number) and isinstance(number, float):
        return number
    raise ValueError(f"the number {text[:40]} is too large")


def _is_text(text: str) -> bool:
    try:
        return isinstance(resolve(text), str)
    except ValueError:
        return False
