"""Resolves what steps wait for and what their expressions read: needs, cycles, names, and whether a result can be there yet.

A set of steps is an integer with one bit for each, so that a plain list of thousands of steps stays cheap.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.drafts import Draft, Found, Scope
from engine.keys import HANDLERS, TAKEN_NAMES
from engine.readings import Reading

MAX_MAKERS = 100  # of one output name; keeps the pairs to compare and the references of its readers few
_ROOTS = ("input", "run")
_MAY = {*HANDLERS}  # branches that may run beside another one


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
        for branch, inner in draft.branches.items():
            resolve_needs(inner, draft.before | (draft.bit if branch in HANDLERS else 0))


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


def everything(drafts: Sequence[Draft]) -> int:
    """All steps of a list with all inside them."""
    bits = 0
    for draft in drafts:
        bits |= draft.bit | draft.inner
    return bits


def check_outputs(drafts: Sequence[Draft]) -> None:
    """Enters output names into their scopes; notes those that two steps may both set in one run."""
    for draft in drafts:
        if draft.output is None:
            continue
        makers = draft.scope.outputs.setdefault(draft.output, [])
        clash = next((other for other in makers if not _exclusive(other, draft)), None)
        if len(makers) == MAX_MAKERS:
            draft.spot.entry("output").mistake(f"at most {MAX_MAKERS} steps may set the same output")
            continue
        if clash is not None:
            message = f"the output '{draft.output}' is already set by the step '{clash.id}'"
            draft.spot.entry("output").mistake(message)
        makers.append(draft)


class Names:
    """Resolves what expressions read, from the scope that they stand in outwards."""

    def __init__(self, inputs: Mapping[str, Any] | None, never: int) -> None:
        """`never` are the steps that no run reaches."""
        self._inputs = inputs
        self._never = never

    def resolve(self, draft: Draft) -> None:
        """Checks everything that a step reads and sets what it found."""
        for reading in draft.readings:
            draft.found.add(self.sources(reading, draft.scope, draft.before, draft))
        inner = draft.inner_scope
        if inner is not None:
            for reading in draft.inner_readings:
                draft.inner_found.add(self.sources(reading, inner, draft.before | draft.inner, draft))

    def sources(self, reading: Reading, scope: Scope, before: int, reader: Draft | None) -> Found:
        """The steps that a reading takes its value from; notes a reading that cannot work."""
        name, kind = reading.read.name, reading.read.kind
        if kind == "input":
            self._check_input(reading)
            return Found(input=True)
        if kind == "name" and name in ("item", "index"):
            if not any(name in around.gives for around in scope.outwards()):
                _note(reading, f"`{name}` is known only inside {'foreach' if name == 'item' else 'foreach and while'}")
            return Found(item=name == "item")
        if kind == "name" and name in _ROOTS:
            return Found(input=name == "input")
        for around in scope.outwards():
            makers = _makers(around, kind, name)
            if makers:
                self._note_null(reading, makers, reader)
                return _choose(reading, around, makers, before, reader)
        self._unknown(reading, scope)
        return Found()

    def _note_null(self, reading: Reading, makers: list[Draft], reader: Draft | None) -> None:
        if all(maker.bit & self._never for maker in makers) and (reader is None or not reader.bit & self._never):
            spot = reading.spot
            place = spot.findings.within(reading.read.expression, spot.node.place)
            spot.findings.warn(f"the step '{makers[0].id}' never runs: this is always null", spot.path, place)

    def _check_input(self, reading: Reading) -> None:
        name = reading.read.name
        if self._inputs is not None and name not in self._inputs:
            _note(reading, f"there is no input '{name[:60]}'", reading.spot.nearest(name, self._inputs))

    def _unknown(self, reading: Reading, scope: Scope) -> None:
        name = reading.read.name
        steps = {key: draft for around in scope.outwards() for key, draft in around.steps.items()}
        if reading.read.kind == "step":
            _note(reading, f"there is no step '{name[:60]}'", reading.spot.nearest(name, steps))
        elif name in (self._inputs or {}):
            _note(reading, f"there is no '{name}'", f"input.{name}")
        elif name in steps:
            output = steps[name].output
            _note(reading, f"'{name}' is a step, not an output", output or f"steps.{name}.output")
        else:
            given = {word for around in scope.outwards() for word in around.gives}
            outputs = [output for around in scope.outwards() for output in around.outputs]
            known = [*outputs, *(TAKEN_NAMES - {"item", "index"}), *given]
            _note(reading, f"there is no output '{name[:60]}'", reading.spot.nearest(name, known))


def _makers(scope: Scope, kind: str, name: str) -> list[Draft]:
    if kind == "step":
        return [scope.steps[name]] if name in scope.steps else []
    return scope.outputs.get(name, [])


def _choose(reading: Reading, scope: Scope, makers: list[Draft], before: int, reader: Draft | None) -> Found:
    """Of the makers those that have ended before the reader; in a while the others of the iteration before."""
    found = {maker.path for maker in makers if maker.bit & before}
    if found:
        return Found(found)
    if scope.repeats:
        return Found(carried={maker.path for maker in makers})
    _note(reading, _why_not(makers[0], reader))
    return Found()


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
    """Whether never both run: they stand in different branches of the same step, of which it takes one."""
    sides = {draft.parent: draft.branch for draft in _chain(one)}
    return any(
        draft.parent in sides and sides[draft.parent] != draft.branch and not {draft.branch, sides[draft.parent]} & _MAY
        for draft in _chain(other)
        if draft.parent is not None
    )


def _chain(draft: Draft) -> Iterable[Draft]:
    yield draft
    yield from _enclosing(draft)
