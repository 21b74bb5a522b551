"""What a definition says of other workflows: names that nobody has stored, inputs that they do not take, and circles.

A workflow with `concurrency` that calls itself, directly or through others, needs a place while it holds one: with enough runs at
once each waits for the others. One that calls itself in every run never ends. Along calls without such circles somebody always
goes on.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from engine.catalogue import Catalogue
from engine.constants import constant_condition
from engine.definition import Definition, Step
from engine.errors import Mistake
from engine.nearest import nearest
from engine.schema_validator import checked_together
from engine.store.database import Tx
from engine.store.definitions import newest_version, workflow_names
from engine.tool_params import wrong_inputs
from engine.values import is_object

_MOST = 500  # workflows that are looked at


class Library(Protocol):
    """Where workflows are looked up by name."""

    def names(self) -> list[str]:
        """All that there are."""
        ...

    def definition(self, name: str) -> Definition | None:
        """The newest version of one."""
        ...


@dataclass(slots=True)
class StoredLibrary:
    """The workflows of the database, each looked up once. `instead`: definitions that stand for those of their names, or are added."""

    tx: Tx
    catalogue: Catalogue
    instead: Mapping[str, Definition] = field(default_factory=dict[str, Definition])
    _seen: dict[str, Definition | None] = field(default_factory=dict[str, Definition | None])

    def names(self) -> list[str]:
        """All that are stored, and those that are added."""
        return sorted({*workflow_names(self.tx), *self.instead})

    def definition(self, name: str) -> Definition | None:
        """The newest version of one."""
        if name in self.instead:
            return self.instead[name]
        if name not in self._seen:
            row = newest_version(self.tx, name)
            self._seen[name] = None if row is None else self.catalogue.graph(self.tx, row["id"]).definition
        return self._seen[name]


def calling_steps(definition: Definition) -> list[Step]:
    """The steps that start runs of other workflows."""
    return [step for step in definition.walk() if step.type == "workflow"]


def call_mistakes(library: Library, definition: Definition) -> list[Mistake]:
    """Everything that is wrong with the calls of a definition; circles only where every workflow is there."""
    unknown = list(unknown_workflows(library, definition))
    found = [*unknown, *_wrong_inputs(library, definition)]
    return found if unknown else [*found, *(list(circles(library, definition)) or endless(library, definition))]


def unknown_workflows(library: Library, definition: Definition) -> Iterator[Mistake]:
    """One mistake for each step whose workflow is not there."""
    for step in calling_steps(definition):
        name = step.fields["workflow"]
        if library.definition(name) is None:
            near = nearest(name, library.names())
            hint = f", did you mean {near}?" if near else ""
            yield Mistake(f"there is no workflow {name!r}{hint}", f"steps.{step.path}.workflow", suggestion=near)


def _wrong_inputs(library: Library, definition: Definition) -> list[Mistake]:
    """What the called workflows do not take, as far as that can be said before expressions are evaluated."""
    found: list[Mistake] = []
    with checked_together():
        for step in calling_steps(definition):
            called = library.definition(step.fields["workflow"])
            given = step.fields.get("input", {})
            if called is None or called.inputs is None or not is_object(given):
                continue
            for where, message in wrong_inputs(given, called.inputs):
                found.append(Mistake(f"{called.name}, {where}: {message}", f"steps.{step.path}.input.{where}"))
    return found


def circles(library: Library, definition: Definition) -> Iterator[Mistake]:
    """One mistake for each step that leads back to a workflow with a limit."""
    known = _closure(library, definition)
    limited = [name for name, each in known.items() if each.concurrency is not None]
    if not limited:
        return
    calls = {name: [step.fields["workflow"] for step in calling_steps(each)] for name, each in known.items()}
    for step in calling_steps(definition):
        circle = _circle_behind(calls, step, limited)
        if circle:
            shown = " → ".join(circle)
            message = (
                f"'{circle[0]}' has a limit of runs and calls itself ({shown}): its runs would wait for each other"
            )
            yield Mistake(message, "concurrency")


def endless(library: Library, definition: Definition) -> list[Mistake]:
    """A mistake for each step behind which every run would start another one, without end."""
    known = _closure(library, definition)
    always = {name: [step.fields["workflow"] for step in _always(each.steps)] for name, each in known.items()}
    found: list[Mistake] = []
    for step in _always(definition.steps):
        circle = _circle_behind(always, step, known)
        if circle:
            shown = " → ".join(circle)
            message = f"'{circle[0]}' calls itself in every run ({shown}): it would never end; put an `if` on that step"
            found.append(Mistake(message, f"steps.{step.path}"))
    return found


def _always(steps: tuple[Step, ...]) -> Iterator[Step]:
    """The calls that every run makes, and whose failure ends it."""
    for step in steps:
        if step.on_error != "fail" or (step.condition is not None and constant_condition(step.condition) is not True):
            continue
        if step.type == "workflow":
            yield step
        elif step.type == "parallel":
            for inner in step.branches.values():
                yield from _always(inner)


def _closure(library: Library, definition: Definition) -> dict[str, Definition]:
    """The newest versions of all that it calls, directly or not, and itself."""
    known = {definition.name: definition}
    pending = [definition]
    while pending and len(known) < _MOST:
        for step in calling_steps(pending.pop()):
            name = step.fields["workflow"]
            called = None if name in known else library.definition(name)
            if called is not None:
                known[name] = called
                pending.append(called)
    return known


def _circle_behind(calls: Mapping[str, list[str]], step: Step, names: Iterable[str]) -> list[str]:
    """The calls by which the first of these workflows that a step leads to comes back to itself; empty where none does."""
    for name in names:
        circle = _way(calls, step.fields["workflow"], name) and _way(calls, name, name, at_least_one=True)
        if circle:
            return circle
    return []


def _way(calls: Mapping[str, list[str]], start: str, end: str, *, at_least_one: bool = False) -> list[str]:
    """A way along calls from one workflow to another, both included; empty where there is none."""
    ways: list[list[str]] = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        if way[-1] == end and not (at_least_one and len(way) == 1):
            return way
        if way[-1] in calls and way[-1] not in seen:
            seen.add(way[-1])
            ways += [[*way, called] for called in calls[way[-1]]]
    return []
