"""A run thought through without running it: what each step would send, as far as the input alone tells, and how often.

Pure. Results of models and tools are not known; an expression that reads one stays as it is written. Items of a foreach, the
side that an `if` takes, values of `set` are used where they are known; of a very long list, some items stand for all.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import pairwise
from typing import Any

from engine.definition import Definition, Step
from engine.expressions import ExpressionError, condition, reads, render, render_known
from engine.foreseen import Foreseen, Times, together
from engine.key_kinds import Key, Kind, Rendering
from engine.keys import HANDLERS, STEP_TYPES
from engine.messages import messages_mistake
from engine.plain_values import given_mistake
from engine.syntax import Read
from engine.templates import unwrap
from engine.values import Bounds, is_list, to_text

ASSUMED_ITEMS = 10  # of a foreach whose list is not known yet
MOST_ITEMS = 200  # of a list that are thought through one by one
MOST_VISITS = 5_000  # of steps inside one foreach
ONCE, MAYBE, NEVER = Times(1, 1), Times(0, 1), Times(0, 0)


@dataclass(frozen=True, slots=True)
class _Around:
    """What is known about the place where a list of steps stands."""

    times: Times = ONCE
    item: tuple[Any, ...] = ()  # the item, where it is known
    index: int | None = None
    assumed: bool = False
    sampled: bool = False
    visits: int = 1  # of these steps, for items of lists around them
    failing: bool = False  # run.error may be there


class _Foresight:
    def __init__(self, definition: Definition, value: Mapping[str, Any]) -> None:
        self._steps = {step.path: step for step in definition.walk()}
        self._input = value
        self._known: dict[str, Any] = {}  # results by path
        self.found: list[Foreseen] = []

    def walk(self, steps: Sequence[Step], around: _Around) -> None:
        for step in _in_order(steps):
            self._foresee(step, around)

    def _foresee(self, step: Step, around: _Around) -> None:
        scope, unknown = self._scope(step, around)
        times, mistake = self._guard(step, scope, around.times, unknown)
        fields, whole, problem = self._rendered(step, scope, unknown)
        told = (mistake or problem) if times.high else None
        entry = Foreseen(step, fields, times, frozenset(unknown), told, around.assumed, around.sampled)
        self.found.append(entry)
        self._known.pop(step.path, None)  # of the item before
        inside = replace(around, times=times)
        for branch, inner in step.branches.items():
            if step.type == "foreach" and branch == "steps" and whole and is_list(fields["items"]) and fields["items"]:
                self._walk_items(inner, fields["items"], inside)
            else:
                within = _inside(step, branch, fields, whole, inside)
                self.walk(inner, within)
                if within.times.high and not within.times.low:  # whoever reads it behind the branch cannot tell
                    self._forget(inner)
        if times.high == 0:
            self._known[step.path] = None
        elif step.type == "set" and whole and times == around.times:
            self._known[step.path] = fields["value"]

    def _forget(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self._known.pop(step.path, None)
            for inner in step.branches.values():
                self._forget(inner)

    def _walk_items(self, steps: Sequence[Step], items: Sequence[Any], around: _Around) -> None:
        room = min(MOST_ITEMS, MOST_VISITS // _count(steps)) // around.visits
        count = min(len(items), max(1, room))
        ends = [len(items) * number // count for number in range(count + 1)]
        start = len(self.found)
        for first, end in pairwise(ends):
            inside = replace(around, item=(items[first],), index=first, visits=around.visits * count)
            times = Times(end - first, end - first).inside(around.times)
            self.walk(steps, replace(inside, times=times, sampled=around.sampled or count < len(items)))
        self.found[start:] = together(self.found[start:])

    def _scope(self, step: Step, around: _Around) -> tuple[dict[str, Any], set[str]]:
        run = {"id": "dry-run"} if around.failing else {"id": "dry-run", "error": None}
        scope: dict[str, Any] = {"input": self._input, "run": run, "steps": {}}
        unknown = {path for path in step.reads.references if path not in self._known} | set(step.reads.carried)
        for path in step.reads.references - unknown:
            source, value = self._steps[path], self._known[path]
            scope["steps"][source.id] = {"output": value, "error": None, "model": None, "cost_usd": 0.0, "tokens": 0}
            if source.output is not None and scope.get(source.output) is None:
                scope[source.output] = value
        if around.item:
            scope["item"] = around.item[0]
        if around.index is not None:
            scope["index"] = around.index
        read = {read.name for read in _own_reads(step) if read.kind == "name"}
        unknown |= {name for name in ("item", "index") if name in read and name not in scope}
        if around.failing and _tells_error([step.condition, step.fields]):
            unknown.add("run.error")
        return scope, unknown

    def _guard(self, step: Step, scope: dict[str, Any], times: Times, unknown: set[str]) -> tuple[Times, str | None]:
        """How often the step runs for its `if`."""
        if step.condition is None:
            return times, None
        if self._is_open(step.condition, Rendering.CONDITION, unknown):
            return MAYBE.inside(times), None
        try:
            return (times if condition(step.condition, scope) else NEVER), None
        except ExpressionError as error:
            return MAYBE.inside(times), error.message

    def _is_open(self, value: Any, rendering: Rendering, unknown: set[str]) -> bool:
        """Whether it reads something that is not known, even where `default` would answer for it."""
        steps = [self._steps[path] for path in unknown if path in self._steps]
        ids, names = {step.id for step in steps}, {*(step.output for step in steps), *unknown}
        read = _reads_of(value, rendering)
        found = any(one.name in (ids if one.kind == "step" else names) for one in read if one.kind != "input")
        return found or ("run.error" in unknown and _tells_error(value))

    def _rendered(
        self, step: Step, scope: dict[str, Any], unknown: set[str]
    ) -> tuple[dict[str, Any], bool, str | None]:
        """The step's own keys, whether all of them are known, and the mistake of one that could be and fails."""
        fields, whole, mistake = dict(step.fields), True, None
        for name, value, rendering in _own_fields(step):
            blocks = rendering is Rendering.TEXT
            if self._is_open(value, rendering, unknown):
                whole = False
                fields[name] = value if rendering is Rendering.CONDITION else render_known(value, scope, blocks=blocks)
                continue
            try:
                whether = rendering is Rendering.CONDITION
                fields[name] = condition(value, scope) if whether else render(value, scope, blocks=blocks)
                wrong = _wrong(STEP_TYPES[step.type].keys[name], name, value, fields[name])
                whole, mistake = whole and wrong is None, mistake or wrong
            except ExpressionError as error:
                whole, mistake = False, mistake or error.message
                fields[name] = render_known(value, scope, blocks=blocks)
        return fields, whole, mistake


def foresee(definition: Definition, value: Mapping[str, Any]) -> list[Foreseen]:
    """Every step of a run with this input (checked, defaults filled in), those that it waits for before it."""
    foresight = _Foresight(definition, value)
    foresight.walk(definition.steps, _Around())
    foresight.walk(definition.on_failure, _Around(MAYBE, failing=True))
    foresight.walk(definition.finally_, _Around(failing=True))
    return foresight.found


def _wrong(key: Key, name: str, written: Any, value: Any) -> str | None:
    """Why the step would refuse what its expressions gave."""
    if key.kind is Kind.MESSAGES:
        return messages_mistake(written, value)
    return given_mistake(name, key, written, value) if key.rendering is Rendering.VALUE else None


def _own_fields(step: Step) -> Iterator[tuple[str, Any, Rendering]]:
    """The keys that are rendered where the step stands."""
    keys, inside = STEP_TYPES[step.type].keys, STEP_TYPES[step.type].inside
    for name, value in step.fields.items():
        if name in keys and name not in inside and keys[name].rendering is not Rendering.NONE:
            yield name, value, keys[name].rendering


def _own_reads(step: Step) -> list[Read]:
    found = [read for _, value, rendering in _own_fields(step) for read in _reads_of(value, rendering)]
    return found if step.condition is None else [*found, *_reads_of(step.condition, Rendering.CONDITION)]


def _reads_of(value: Any, rendering: Rendering) -> tuple[Read, ...]:
    if rendering is Rendering.CONDITION:
        return reads(f"${{{unwrap(str(value))}}}", blocks=False)
    return reads(value, blocks=rendering is Rendering.TEXT)


def _tells_error(value: Any) -> bool:
    return "run.error" in str(value)


def _count(steps: Iterable[Step]) -> int:
    return sum(1 + sum(_count(inner) for inner in step.branches.values()) for step in steps)


def _in_order(steps: Sequence[Step]) -> Iterable[Step]:
    """Each step after those it needs, else as written."""
    waiting = {step.id: len(step.needs) for step in steps}
    followers: dict[str, list[int]] = {step.id: [] for step in steps}
    for place, step in enumerate(steps):
        for need in step.needs:
            followers[need].append(place)
    ready = [place for place, step in enumerate(steps) if not step.needs]  # a heap: sorted
    while ready:
        step = steps[heappop(ready)]
        yield step
        for place in followers[step.id]:
            waiting[steps[place].id] -= 1
            if waiting[steps[place].id] == 0:
                heappush(ready, place)


def _inside(step: Step, branch: str, fields: Mapping[str, Any], whole: bool, around: _Around) -> _Around:
    if branch in HANDLERS:
        return replace(around, times=MAYBE.inside(around.times))
    match step.type:
        case "if":
            taken = fields["condition"]
            wanted = taken is (branch == "then") if isinstance(taken, bool) else None
        case "switch":
            wanted = _switched(step, branch, fields["value"]) if whole else None
        case "foreach":
            return _each(fields["items"], around)
        case "while":
            times = Times(0, step.fields["max_iterations"]).inside(around.times)
            return replace(around, times=times, index=None)
        case _:
            wanted = True
    times = MAYBE if wanted is None else ONCE if wanted else NEVER
    return replace(around, times=times.inside(around.times))


def _each(items: Any, around: _Around) -> _Around:
    """Of a list whose items are not known, or that has none."""
    if is_list(items):
        times = Times(len(items), len(items)).inside(around.times)
        return replace(around, times=times, item=(), index=None)
    return replace(around, times=Times(0, ASSUMED_ITEMS).inside(around.times), item=(), index=None, assumed=True)


def _switched(step: Step, branch: str, value: Any) -> bool:
    chosen = f"cases.{to_text(value, Bounds())}"
    return branch == (chosen if chosen in step.branches else "default")
