"""Draws a definition as a tree for a terminal: a line a step, what it is about, what it waits for, and the steps it holds.

Pure: takes the graph as the API gives it. Used by `workflows graph`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]


def workflow_tree(graph: Json) -> str:
    """The whole tree as text, the workflow's name at its top."""
    phases: dict[str | None, list[Json]] = {}
    for node in graph["nodes"]:
        if node["parent"] is None:
            phases.setdefault(node["phase"], []).append(node)
    lines = [graph["name"], *_list(graph["nodes"], phases.pop(None, []), "")]
    for phase, nodes in phases.items():
        lines += ["", f"{phase}:", *_list(graph["nodes"], nodes, "")]
    return "\n".join(lines)


def _list(every: Sequence[Json], nodes: Sequence[Json], indent: str) -> Iterator[str]:
    width = max([len(_id(node)) for node in nodes], default=0)
    for number, node in enumerate(nodes):
        last = number == len(nodes) - 1
        before = nodes[number - 1]["id"] if number else None
        yield f"{indent}{'└─' if last else '├─'} {_id(node):{width}}  {_said(node, before, number)}".rstrip()
        yield from _branches(every, node, indent + ("   " if last else "│  "))


def _branches(every: Sequence[Json], node: Json, indent: str) -> Iterator[str]:
    inside: dict[str, list[Json]] = {}
    for inner in every:
        if inner["parent"] == node["id"]:
            inside.setdefault(inner["branch"], []).append(inner)
    for branch, nodes in inside.items():
        if branch != "steps":
            yield f"{indent}{branch.partition('.')[2] or branch}:"
        yield from _list(every, nodes, indent)


def _id(node: Json) -> str:
    return str(node["id"]).rpartition(".")[2]


def _said(node: Json, before: str | None, number: int) -> str:
    needs: Sequence[str] = node["needs"]
    waits = ""
    if number and not needs:
        waits = "(at once)"
    elif needs and list(needs) != [before]:
        waits = f"(after {', '.join(need.rpartition('.')[2] for need in needs)})"
    condition = "" if node["condition"] is None else f"if {node['condition']}"
    return "  ".join(part for part in (node["type"], node["detail"] or "", condition, waits) if part)
