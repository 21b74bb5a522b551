"""What a definition says of other workflows: names that nobody has stored, and circles in which runs would wait for each other.

A workflow with `concurrency` that calls itself, directly or through others, needs a place while it holds one: with enough runs at
once each waits for the others. Along calls without such a circle somebody always goes on.
"""

from collections.abc import Iterator

from engine.catalogue import Catalogue
from engine.definition import Definition, Step
from engine.errors import Mistake
from engine.nearest import nearest
from engine.store.database import Tx
from engine.store.definitions import get_workflow, workflow_names

_MOST = 500  # workflows that are looked at


def calling_steps(definition: Definition) -> list[Step]:
    """The steps that start runs of other workflows."""
    return [step for step in definition.walk() if step.type == "workflow"]


def unknown_workflows(tx: Tx, definition: Definition, *, being_stored: bool) -> Iterator[Mistake]:
    """One mistake for each step whose workflow is not stored."""
    for step in calling_steps(definition):
        name = step.fields["workflow"]
        if (being_stored and name == definition.name) or get_workflow(tx, name) is not None:
            continue
        near = nearest(name, workflow_names(tx))
        hint = f", did you mean {near}?" if near else ""
        yield Mistake(
            f"there is no workflow {name!r}{hint}", f"steps.{step.id}.workflow", step.line or None, None, near
        )


def circles(tx: Tx, catalogue: Catalogue, definition: Definition) -> Iterator[Mistake]:
    """One mistake for each step that leads back to a workflow with a limit."""
    known = _closure(tx, catalogue, definition)
    limited = [name for name, each in known.items() if each.concurrency is not None]
    if not limited:
        return
    for step in calling_steps(definition):
        for name in limited:
            way = _way(known, step.fields["workflow"], name)
            circle = way and _way(known, name, name, at_least_one=True)
            if circle:
                shown = " → ".join(circle)
                message = f"'{name}' has a limit of runs and calls itself ({shown}): its runs would wait for each other"
                yield Mistake(message, "concurrency", step.line or None)
                break


def _closure(tx: Tx, catalogue: Catalogue, definition: Definition) -> dict[str, Definition]:
    """The newest versions of all that it calls, directly or not, and itself."""
    known = {definition.name: definition}
    pending = [definition]
    while pending and len(known) < _MOST:
        for step in calling_steps(pending.pop()):
            name = step.fields["workflow"]
            row = None if name in known else get_workflow(tx, name)
            if row is not None:
                known[name] = catalogue.graph(tx, row["version_id"]).definition
                pending.append(known[name])
    return known


def _way(known: dict[str, Definition], start: str, end: str, *, at_least_one: bool = False) -> list[str]:
    """A way along calls from one workflow to another, both included; empty where there is none."""
    ways: list[list[str]] = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        if way[-1] == end and not (at_least_one and len(way) == 1):
            return way
        if way[-1] in known and (way[-1] not in seen):
            seen.add(way[-1])
            ways += [[*way, step.fields["workflow"]] for step in calling_steps(known[way[-1]])]
    return []
