"""Reads configuration text into plain values and remembers where each came from, so that a mistake can name file and line.

How YAML is read is `engine.yaml12`'s. Knows nothing about which keys exist: `aigateway.settings` checks that.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from engine import yaml12
from engine.errors import Mistake

KeyPath = tuple[str | int, ...]
"""Where a value stands: `("models", "fast", "targets", 0)`."""


@dataclass(frozen=True, slots=True)
class Place:
    """A file with a line, or an environment variable (no line)."""

    source: str
    line: int | None = None
    column: int | None = None
    names_key: bool = False  # an environment variable says by its own name which key it sets

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(slots=True)
class ConfigTree:
    """Values as read, with the place of every key and list item."""

    source: str
    value: Any = field(default_factory=dict[str, Any])
    places: dict[KeyPath, Place] = field(default_factory=dict[KeyPath, Place])
    mistakes: list[Mistake] = field(default_factory=list[Mistake])

    def place(self, path: KeyPath) -> Place:
        """The place of a value, or of the nearest thing around it that was written down."""
        for length in range(len(path), -1, -1):
            if found := self.places.get(path[:length]):
                return found
        return Place(self.source)

    def mistake(
        self, path: KeyPath, message: str, *, suggestion: str | None = None, place: Place | None = None
    ) -> None:
        """Adds one mistake, worded as `file:line: key: what is wrong`."""
        where = place or self.place(path)
        key = path_text(path)
        parts = [str(where), message] if where.names_key or not key else [str(where), key, message]
        self.mistakes.append(
            Mistake(": ".join(parts), path=key or None, line=where.line, column=where.column, suggestion=suggestion)
        )


def path_text(path: KeyPath) -> str:
    """`("steps", 2, "model")` as `steps[2].model`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def read_yaml(text: str, *, source: str) -> ConfigTree:
    """The values of a YAML mapping; an empty file is an empty mapping. Mistakes are collected, never raised."""
    tree = ConfigTree(source)
    if all(line.strip() == "" or line.lstrip().startswith(("#", "---")) for line in text.splitlines()):
        return tree
    node, found = yaml12.read_yaml(text)
    for mistake in found:
        tree.mistake((), mistake.message, place=Place(source, mistake.line, mistake.column))
    if node is None:
        return tree
    if node.entries is None:
        tree.mistake((), "must be a mapping of keys to values", place=_place(source, node.place))
        return tree
    _note_places(tree, node, ())
    tree.value = node.plain()
    return tree


def read_json(text: str, *, source: str) -> ConfigTree:
    """The values of a JSON object, with the places of its keys. Mistakes are collected, never raised."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        tree = ConfigTree(source)
        tree.mistake((), f"not valid JSON: {error.msg}", place=Place(source, error.lineno, error.colno))
        return tree
    # JSON is YAML, but for tabs: in JSON they can be white space only, so that a blank changes nothing.
    tree = read_yaml(text.replace("\t", " "), source=source)
    if not isinstance(value, dict) and not tree.mistakes:
        tree.mistake((), "must be a JSON object")
    return tree


def read_scalar(text: str) -> Any:
    """A value as an environment variable gives it, read as YAML. Raises: ValueError where it is no YAML."""
    node, mistakes = yaml12.read_yaml(text)
    if node is None or mistakes:
        raise ValueError("not valid YAML")
    return node.plain()


def _place(source: str, place: yaml12.Place | None) -> Place:
    return Place(source, place.line, place.column) if place else Place(source)


def _note_places(tree: ConfigTree, node: yaml12.Node, path: KeyPath) -> None:
    """Notes where every key and list item stands: a key's own line, not that of its value."""
    for key, below in (node.entries or {}).items():
        tree.places[(*path, key)] = _place(tree.source, node.keys[key])
        _note_places(tree, below, (*path, key))
    for index, below in enumerate(node.items or []):
        tree.places[(*path, index)] = _place(tree.source, below.place)
        _note_places(tree, below, (*path, index))
