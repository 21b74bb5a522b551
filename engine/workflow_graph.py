"""A definition as a picture's data: nodes, edges, and Mermaid text that any Markdown viewer draws. Pure; what the API and the
command line show. Nothing here decides what runs (`engine.plan` does).
"""

from collections.abc import Iterator, Sequence
from typing import Any

from engine.definition import Definition, Step
from engine.plan import PHASES

_SHAPES = {"if": ("{", "}"), "switch": ("{", "}"), "wait": ("[/", "/]"), "sleep": ("[/", "/]")}
_BOX = ("[", "]")
_TELLING = ("workflow", "signal", "condition", "items", "duration", "until")  # keys that say what a step is about
_SAID = 60  # characters of what a step is about


def workflow_graph(definition: Definition) -> dict[str, Any]:
    """`nodes` in the order of the text, `edges` between steps of one list (from a step to the one that waits for it), `mermaid`.

    A node's `id` is the step's path; `parent` and `branch` say inside which step and which of its lists it stands, `phase` is
    `on_failure` or `finally` outside the main steps.
    """
    nodes: list[dict[str, Any]] = []
    edges: list[dict[str, str]] = []
    lists = zip(PHASES, (definition.steps, definition.on_failure, definition.finally_), strict=True)
    for phase, steps in lists:
        _enter(nodes, edges, steps, {"parent": None, "branch": None, "phase": phase})
    return {"name": definition.name, "nodes": nodes, "edges": edges, "mermaid": _mermaid(definition)}


def _enter(
    nodes: list[dict[str, Any]], edges: list[dict[str, str]], steps: Sequence[Step], around: dict[str, Any]
) -> None:
    for step in steps:
        nodes.append(
            {
                "id": step.path,
                "type": step.type,
                "detail": detail(step),
                "condition": step.condition,
                "needs": [_sibling(step, need) for need in step.needs],
                **around,
            }
        )
        edges.extend({"from": _sibling(step, need), "to": step.path} for need in step.needs)
        for branch, inner in step.branches.items():
            _enter(nodes, edges, inner, {"parent": step.path, "branch": branch, "phase": around["phase"]})


def _sibling(step: Step, name: str) -> str:
    return step.path[: len(step.path) - len(step.id)] + name


def detail(step: Step) -> str | None:
    """What a step is about, in a word: its model, tool, address, workflow, signal, condition, items or time."""
    fields = step.fields
    match step.type:
        case "llm" | "agent":
            said = fields.get("model")
        case "mcp_tool":
            said = "/".join(str(fields[name]) for name in ("server", "tool") if name in fields)
        case "http":
            said = f"{fields.get('method', 'GET')} {fields['url']}"
        case "switch":
            said = fields["value"]
        case _:
            said = next((fields[name] for name in _TELLING if name in fields), None)
    return None if said is None else str(said)


def _mermaid(definition: Definition) -> str:
    lines = ["flowchart TD"]
    phases = zip(PHASES, (definition.steps, definition.on_failure, definition.finally_), strict=True)
    for phase, steps in phases:
        if phase is None:
            lines += _drawn(steps, "  ")
        elif steps:
            lines += [f'  subgraph {phase}["{phase}"]', *_drawn(steps, "    "), "  end"]
    return "\n".join(lines) + "\n"


def _drawn(steps: Sequence[Step], indent: str) -> Iterator[str]:
    for step in steps:
        if step.branches:
            yield f'{indent}subgraph {_name(step.path)}["{_label(step)}"]'
            for number, (branch, inner) in enumerate(step.branches.items()):
                yield f'{indent}  subgraph {_name(step.path)}_b{number}["{_quoted(branch.partition(".")[2] or branch)}"]'
                yield from _drawn(inner, indent + "    ")
                yield f"{indent}  end"
            yield f"{indent}end"
        else:
            left, right = _SHAPES.get(step.type, _BOX)
            yield f'{indent}{_name(step.path)}{left}"{_label(step)}"{right}'
    for step in steps:
        arrow = "-->" if step.condition is None else f'-->|"if {_quoted(step.condition[:_SAID])}"|'
        for need in step.needs:
            yield f"{indent}{_name(_sibling(step, need))} {arrow} {_name(step.path)}"


def _name(path: str) -> str:
    """A node's name: words such as `end` mean something to Mermaid, so none stands alone, and no two paths share one."""
    return "s_" + path.replace("_", "__").replace(".", "_0")


def _label(step: Step) -> str:
    said = detail(step)
    return f"{step.id}<br/><i>{step.type}{'' if said is None else ' ' + _quoted(said[:_SAID])}</i>"


def _quoted(text: str) -> str:
    escaped = {"&": "&amp;", '"': "&quot;", "<": "&lt;", ">": "&gt;", "\n": " ", "#": "&num;"}
    return "".join(escaped.get(letter, letter) for letter in text)
