"""A place in a definition while it is checked: the node, the path to it, and where what is found there goes."""

from collections.abc import Iterable
from dataclasses import dataclass

from engine.mistakes import Findings
from engine.nearest import nearest
from engine.plain_values import not_of_type
from engine.yaml12 import Node, join_path


@dataclass(frozen=True, slots=True)
class Spot:
    """A node, the path to it, and where findings about it go."""

    node: Node
    path: str
    findings: Findings

    def mistake(self, message: str, suggestion: str | None = None) -> None:
        """Notes a mistake at this node."""
        self.findings.add(message, self.path, self.node.place, suggestion)

    def warning(self, message: str, suggestion: str | None = None) -> None:
        """Notes a warning at this node."""
        self.findings.warn(message, self.path, self.node.place, suggestion)

    def nearest(self, word: str, known: Iterable[str]) -> str | None:
        """The known name that is most like the word, as long as anybody will see it."""
        return None if self.findings.full else nearest(word, known)

    def entry(self, key: str) -> "Spot":
        """The value of a key that is there."""
        return Spot((self.node.entries or {})[key], join_path(self.path, key), self.findings)

    def item(self, index: int) -> "Spot":
        """An item of the list."""
        return Spot((self.node.items or [])[index], f"{self.path}[{index}]", self.findings)

    def key_mistake(self, key: str, message: str, suggestion: str | None = None) -> None:
        """Notes a mistake at a key itself."""
        self.findings.add(message, join_path(self.path, key), self.node.keys.get(key, self.node.place), suggestion)

    def key_warning(self, key: str, message: str) -> None:
        """Notes a warning at a key itself."""
        self.findings.warn(message, join_path(self.path, key), self.node.keys.get(key, self.node.place))


def wrong_type(spot: Spot, wanted: str) -> None:
    """Notes that the node is of another type than wanted."""
    value = spot.node.value
    spot.mistake(not_of_type(wanted, value))
