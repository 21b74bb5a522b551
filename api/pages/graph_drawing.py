"""Lays a workflow out as boxes and lines: steps in rows below those they wait for, containers around the steps that they hold.

Pure: takes the graph's nodes (engine.workflow_graph) and gives pixels; drawing them is the template's part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Node = Mapping[str, Any]

WIDTH, HEIGHT = 196, 46  # of a plain step's box
GAP_X, GAP_Y = 24, 34
PAD, HEAD = 14, 26  # around what a container holds, and for a line of text above it


@dataclass(slots=True)
class Box:
    """A step, or one of a container's lists (`node` is None). `x` and `y` are of its upper left corner."""

    node: Node | None
    title: str
    width: float = WIDTH
    height: float = HEIGHT
    x: float = 0
    y: float = 0
    inside: list["Box"] = field(default_factory=list["Box"])

    def shift(self, x: float, y: float) -> None:
        """Moves the box with all that is in it."""
        self.x += x
        self.y += y
        for box in self.inside:
            box.shift(x, y)

    def boxes(self) -> list["Box"]:
        """The box and all inside it, outer ones first."""
        return [self, *(inner for box in self.inside for inner in box.boxes())]


@dataclass(frozen=True, slots=True)
class Drawing:
    """Everything with its place. `lines` go from (x1, y1) to (x2, y2)."""

    width: float
    height: float
    boxes: Sequence[Box]
    lines: Sequence[tuple[float, float, float, float]]


def draw(nodes: Sequence[Node]) -> Drawing:
    """The whole graph; the lists of `on_failure` and `finally` stand below the main steps."""
    top: list[Box] = []
    height = 0.0
    phases = dict.fromkeys(node["phase"] for node in nodes)
    for phase in phases:
        listed = [node for node in nodes if node["parent"] is None and node["phase"] == phase]
        box = _list(nodes, listed, phase or "")
        box.shift(0, height)
        height += box.height + GAP_Y
        top.append(box)
    every = [box for outer in top for box in outer.boxes()]
    width = max((box.x + box.width for box in top), default=0)
    return Drawing(width, max(0.0, height - GAP_Y), every, _lines(every))


def _list(nodes: Sequence[Node], listed: Sequence[Node], title: str) -> Box:
    """One list of steps, in rows: each step below all that it waits for."""
    rows: list[list[Box]] = []
    depth: dict[str, int] = {}
    pending = list(listed)
    while pending:
        node = next(one for one in pending if all(need in depth for need in one["needs"]))
        pending.remove(node)
        row = depth[node["id"]] = max((depth[need] + 1 for need in node["needs"]), default=0)
        while len(rows) <= row:
            rows.append([])
        rows[row].append(_step(nodes, node))
    return _stacked(rows, title)


def _stacked(rows: Sequence[Sequence[Box]], title: str) -> Box:
    head = HEAD if title else 0
    widths = [sum(box.width for box in row) + GAP_X * (len(row) - 1) for row in rows]
    around = Box(None, title, width=max([*widths, 0]) + 2 * PAD)
    y = PAD + head
    for row, width in zip(rows, widths, strict=True):
        x = (around.width - width) / 2
        for box in row:
            box.shift(x, y)
            x += box.width + GAP_X
            around.inside.append(box)
        y += max(box.height for box in row) + GAP_Y
    around.height = max(0.0, y - GAP_Y) + PAD
    return around


def _step(nodes: Sequence[Node], node: Node) -> Box:
    """A plain box, or one around the step's lists, which stand side by side."""
    branches: dict[str, list[Node]] = {}
    for inner in nodes:
        if inner["parent"] == node["id"]:
            branches.setdefault(inner["branch"], []).append(inner)
    box = Box(node, node["id"].rpartition(".")[2])
    if not branches:
        return box
    x = float(PAD)
    for branch, listed in branches.items():
        inside = _list(nodes, listed, "" if branch == "steps" else branch.partition(".")[2] or branch)
        inside.shift(x, HEIGHT)
        x += inside.width + GAP_X
        box.inside.append(inside)
    box.width = max(WIDTH, x - GAP_X + PAD)
    box.height = HEIGHT + max(inner.height for inner in box.inside) + PAD
    return box


def _lines(boxes: Sequence[Box]) -> list[tuple[float, float, float, float]]:
    by_id = {box.node["id"]: box for box in boxes if box.node is not None}
    return [
        (_middle(by_id[need]), by_id[need].y + by_id[need].height, _middle(box), box.y)
        for box in boxes
        if box.node is not None
        for need in box.node["needs"]
    ]


def _middle(box: Box) -> float:
    return box.x + box.width / 2
