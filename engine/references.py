"""Resolves what steps wait for and what their expressions read: needs, cycles, names, and whether a result can be there yet.

A set of steps is an integer with one bit for each, so that a plain list of thousands of steps stays cheap.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.drafts import Draft
from engine.keys import TAKEN_NAMES
from engine.shapes import Reading

MAX_MAKERS = 100  # of one output name; keeps the pairs to compare and the references of its readers few
_ROOTS = ("input", "run")


def resolve_needs(drafts: Sequence[Draft], base: int) -> None:
    """Sets `needs` and `before` of a list of steps and of all lists inside it. `base` has ended before the list starts."""
    by_id = {draft.id: draft for draft in drafts if draft.named}
    for index, draft in enumerate(drafts):
        if draft.wanted is None:
            draft.needs = [drafts[index - 1]] if index else []
        else:
            draft.needs = [by_id[name] for name in _known_needs(draft, by_id)]
    for draft in _in_order(drafts):
        draft.before = base
        for need in draft.needs:
            draft.before |= need.before | need.bit | need.inner
        for inner in draft.branches.values():
            resolve_needs(inner, draft.before)


def _known_needs(draft: Draft, by_id: Mapping[str, Draft]) -> list[str]:
    known: dict[str, None] = {}
    for name, spot in draft.wanted or ():
        if name == draft.id:
            spot.mistake("a step cannot wait for itself")
        elif name in known:
            spot.mistake(f"'{name}' is named twice")
        elif name in by_id:
            known[name] = None
        else:
            spot.mistake(f"there is no step '{name[:60]}' in this list of steps", spot.nearest(name, by_id))
    return list(known)


def _in_order(drafts: Sequence[Draft]) -> list[Draft]:
    """Each step after those it needs. Steps that wait for each other are noted and lose their needs."""
    waiting = {draft: len(draft.needs) for draft in drafts}
    followers: dict[Draft, list[Draft]] = {draft: [] for draft in drafts}
    for draft in drafts:
        for need in draft.needs:
            followers[need].append(draft)
    ordered = [draft for draft in drafts if not draft.needs]
    for draft in ordered:  # grows while it is walked
        for follower in followers[draft]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                ordered.append(follower)
    reached = set(ordered)
    stuck = [draft for draft in drafts if draft not in reached]
    if stuck:
        _note_cycle(stuck)
        for draft in stuck:
            draft.needs = []
    return ordered + stuck


def _note_cycle(stuck: Sequence[Draft]) -> None:
    """Names one circle: every stuck step waits for another stuck one, so going back along needs has to meet itself."""
    inside = set(stuck)
    trail: dict[Draft, None] = {}
    draft = stuck[0]
    while draft not in trail:
        trail[draft] = None
        draft = next(need for need in draft.needs if need in inside)
    names = [step.id for step in trail]
    circle = names[names.index(draft.id) :]
    shown = " → ".join([*circle[:6], *(["…"] if len(circle) > 6 else []), circle[0]])
    draft.spot.mistake(f"these steps wait for each other: {shown}")


class Names:
    """What can be read in one definition: inputs, step ids, output names."""

    def __init__(self, drafts: Sequence[Draft], inputs: Mapping[str, Any] | None) -> None:
        self._inputs = inputs
        self._steps = {draft.id: draft for draft in drafts if draft.named}
        self._outputs: dict[str, list[Draft]] = {}
        for draft in drafts:
            if draft.output is not None:
                self._outputs.setdefault(draft.output, []).append(draft)

    def check_outputs(self) -> None:
        """Notes output names that two steps may both set in one run."""
        for name, makers in self._outputs.items():
            if len(makers) > MAX_MAKERS:
                makers[MAX_MAKERS].spot.entry("output").mistake(f"at most {MAX_MAKERS} steps may set the same output")
            for index, maker in enumerate(makers[:MAX_MAKERS]):
                clash = next((other for other in makers[:index] if not _exclusive(other, maker)), None)
                if clash is not None:
                    spot = maker.spot.entry("output")
                    spot.mistake(f"the output '{name}' is already set by the step '{clash.id}'")
                    break

    def resolve(self, draft: Draft) -> None:
        """Checks everything that a step reads and sets its `references`."""
        for reading in draft.readings:
            draft.references |= self.sources(reading, draft.before, draft)

    def sources(self, reading: Reading, before: int, reader: Draft | None) -> set[str]:
        """The ids of the steps that a reading takes its value from; notes a reading that cannot work."""
        name = reading.read.name
        match reading.read.kind:
            case "input":
                self._check_input(reading)
                return set()
            case "step":
                makers = [self._steps[name]] if name in self._steps else []
            case _:
                if name in _ROOTS:
                    return set()
                makers = self._outputs.get(name, [])
        if not makers:
            self._unknown(reading)
            return set()
        found = {maker.id for maker in makers if maker.bit & before}
        if not found:
            _note(reading, _why_not(makers[0], reader))
        return found

    def _check_input(self, reading: Reading) -> None:
        name = reading.read.name
        if self._inputs is not None and name not in self._inputs:
            _note(reading, f"there is no input '{name[:60]}'", reading.spot.nearest(name, self._inputs))

    def _unknown(self, reading: Reading) -> None:
        name = reading.read.name
        if reading.read.kind == "step":
            _note(reading, f"there is no step '{name[:60]}'", reading.spot.nearest(name, self._steps))
        elif name in ("item", "index"):
            _note(reading, f"`{name}` is known only inside foreach")
        elif name in (self._inputs or {}):
            _note(reading, f"there is no '{name}'", f"input.{name}")
        elif name in self._steps:
            output = self._steps[name].output
            _note(reading, f"'{name}' is a step, not an output", output or f"steps.{name}.output")
        else:
            known = [*self._outputs, *(TAKEN_NAMES - {"item", "index"})]
            _note(reading, f"there is no output '{name[:60]}'", reading.spot.nearest(name, known))


def _note(reading: Reading, message: str, suggestion: str | None = None) -> None:
    spot = reading.spot
    place = spot.findings.within(reading.read.expression, spot.node.place)
    spot.findings.add(message, spot.path, place, suggestion)


def _why_not(maker: Draft, reader: Draft | None) -> str:
    if maker is reader:
        return "a step cannot read its own result"
    if reader is not None and maker in _enclosing(reader):
        return f"the step '{maker.id}' holds this one and has not ended yet"
    hint = (
        "; name it in `needs`"
        if reader is not None and maker.parent is reader.parent and maker.branch == reader.branch
        else ""
    )
    return f"the step '{maker.id}' may not have run before this one{hint}"


def _enclosing(draft: Draft) -> Iterable[Draft]:
    while draft.parent is not None:
        draft = draft.parent
        yield draft


def _exclusive(one: Draft, other: Draft) -> bool:
    """Whether never both run: they stand in different branches of the same step."""
    sides = {draft.parent: draft.branch for draft in _chain(one)}
    return any(draft.parent in sides and sides[draft.parent] != draft.branch for draft in _chain(other))


def _chain(draft: Draft) -> Iterable[Draft]:
    yield draft
    yield from _enclosing(draft)
