"""Finds the places in a definition's text that mistakes mean which were found once it was loaded: of models, servers, workflows.

Such a mistake names its place as `steps.each.inner.model`: the step's path, then its key and what lies deeper.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from engine.definition import Definition
from engine.errors import Mistake
from engine.yaml12 import Node, Place, read_yaml

_PART = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_STEPS = "steps."


def located(definition: Definition, mistakes: Iterable[Mistake]) -> list[Mistake]:
    """The mistakes with line and column, in the order of the text; those of a definition that came as data, and others without a place, as they are."""
    found = list(mistakes)
    if not found or not any(step.place for step in definition.steps):
        return found
    root, _ = read_yaml(definition.source)
    if root is not None:
        objects = _objects(root)
        steps = {step.path: objects.get(step.place) for step in definition.walk() if step.place is not None}
        found = [_placed(mistake, root, steps) for mistake in found]
    return sorted(found, key=lambda mistake: (mistake.line or 0, mistake.column or 0))


def _placed(mistake: Mistake, root: Node, steps: Mapping[str, Node | None]) -> Mistake:
    path = mistake.path or ""
    if not path.startswith((_STEPS, "concurrency")) or mistake.line is not None:
        return mistake
    place = _place(path, root, steps)
    return mistake if place is None else replace(mistake, line=place.line, column=place.column)


def _place(path: str, root: Node, steps: Mapping[str, Node | None]) -> Place | None:
    if not path.startswith(_STEPS):
        return _inside(root, path)
    names = path.removeprefix(_STEPS).split(".")
    for count in range(len(names), 0, -1):
        node = steps.get(".".join(names[:count]))
        if node is not None:
            return _inside(node, ".".join(names[count:]))
    return None


def _inside(node: Node, rest: str) -> Place | None:
    """The value that the rest of a path leads to, or as far as there is one."""
    for index, key in _PART.findall(rest):
        entries, items = node.entries, node.items
        if key and entries is not None and key in entries:
            node = entries[key]
        elif index and items is not None and int(index) < len(items):
            node = items[int(index)]
        else:
            break
    return node.place


def _objects(root: Node) -> dict[Place, Node]:
    """All objects by their places; what aliases repeat is one object."""
    found: dict[Place, Node] = {}
    pending, seen = [root], {id(root)}
    while pending:
        node = pending.pop()
        if node.entries is not None and node.place is not None:
            found[node.place] = node
        inside = [one for one in [*(node.entries or {}).values(), *(node.items or [])] if id(one) not in seen]
        seen.update(map(id, inside))
        pending += inside
    return found
