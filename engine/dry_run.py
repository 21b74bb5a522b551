"""A run thought through without running it: what each step would send, as far as the input alone tells, and how often.

Pure. Results of models and tools are not known; an expression that reads one stays as it is written. Items of a foreach, the
side that an `if` takes, values of `set` are used where they are known; the first item stands for all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.definition import Definition, Step
from engine.expressions import ExpressionError, condition, render, render_known
from engine.keys import HANDLERS, STEP_TYPES, Rendering
from engine.plan import DEFAULT_RETRY
from engine.values import Bounds, is_list, to_text

ASSUMED_ITEMS = 10  # of a foreach whose list is not known yet


@dataclass(frozen=True, slots=True)
class Times:
    """How often at least and at most, retries left aside."""

    low: int
    high: int

    def inside(self, other: "Times") -> "Times":
        """For each of the others' times."""
        return Times(self.low * other.low, self.high * other.high)


ONCE, MAYBE, NEVER = Times(1, 1), Times(0, 1), Times(0, 0)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """One step. `fields` are its own keys, rendered as far as possible; `unknown` names the steps whose results are missing.

    `mistake` says why an expression would fail although all it reads is known. `assumed` tells that `times` rests on ASSUMED_ITEMS.
    """

    step: Step
    fields: Mapping[str, Any]
    times: Times
    unknown: frozenset[str]
    mistake: str | None = None
    assumed: bool = False

    @property
    def attempts(self) -> int:
        """Attempts in total where each but the last fails."""
        return (self.step.retry or DEFAULT_RETRY).max_attempts


@dataclass(frozen=True, slots=True)
class _Around:
    """What is known about the place where a list of steps stands."""

    times: Times = ONCE
    item: tuple[Any, ...] = ()  # the item, where it is known
    index: int | None = None
    assumed: bool = False


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
        fields, whole, problem = _rendered(step, scope, unknown)
        entry = Foreseen(step, fields, times, frozenset(unknown), mistake or problem, around.assumed)
        self.found.append(entry)
        if step.type == "set" and whole:
            self._known[step.path] = fields["value"] if times.low else None
        if times.low == 0 and times.high == 0:
            self._known[step.path] = None
        for branch, inner in step.branches.items():
            self.walk(inner, self._inside(step, branch, fields, whole, replace(around, times=times)))

    def _scope(self, step: Step, around: _Around) -> tuple[dict[str, Any], set[str]]:
        scope: dict[str, Any] = {"input": self._input, "run": {"id": "dry-run", "error": None}, "steps": {}}
        unknown = {path for path in step.reads.references if path not in self._known} | set(step.reads.carried)
        for path in step.reads.references - unknown:
            source, value = self._steps[path], self._known[path]
            scope["steps"][source.id] = {"output": value, "error": None, "model": None, "cost_usd": 0.0, "tokens": 0}
            if source.output is not None and scope.get(source.output) is None:
                scope[source.output] = value
        if around.item:
            scope["item"] = around.item[0]
        elif step.reads.item:
            unknown.add("item")
        if around.index is not None:
            scope["index"] = around.index
        return scope, unknown

    @staticmethod
    def _guard(step: Step, scope: dict[str, Any], times: Times, unknown: set[str]) -> tuple[Times, str | None]:
        """How often the step runs for its `if`."""
        if step.condition is None:
            return times, None
        try:
            return (times if condition(step.condition, scope) else NEVER), None
        except ExpressionError as error:
            return MAYBE.inside(times), None if unknown else error.message

    def _inside(self, step: Step, branch: str, fields: Mapping[str, Any], whole: bool, around: _Around) -> _Around:
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
                return replace(around, times=Times(0, step.fields["max_iterations"]).inside(around.times), index=0)
            case _:
                wanted = True
        times = MAYBE if wanted is None else ONCE if wanted else NEVER
        return replace(around, times=times.inside(around.times))


def foresee(definition: Definition, value: Mapping[str, Any]) -> list[Foreseen]:
    """Every step of a run with this input (checked, defaults filled in), those that it waits for before it."""
    foresight = _Foresight(definition, value)
    foresight.walk(definition.steps, _Around())
    foresight.walk(definition.on_failure, _Around(MAYBE))
    foresight.walk(definition.finally_, _Around())
    return foresight.found


def _in_order(steps: Sequence[Step]) -> Iterable[Step]:
    """Each step after those it needs, else as written."""
    pending, ended = list(steps), set[str]()
    while pending:
        step = next(step for step in pending if ended.issuperset(step.needs))
        pending.remove(step)
        ended.add(step.id)
        yield step


def _each(items: Any, around: _Around) -> _Around:
    if is_list(items):
        times = Times(len(items), len(items)).inside(around.times)
        return replace(around, times=times, item=(items[0],) if items else (None,), index=0)
    return replace(around, times=Times(0, ASSUMED_ITEMS).inside(around.times), item=(), index=0, assumed=True)


def _switched(step: Step, branch: str, value: Any) -> bool:
    chosen = f"cases.{to_text(value, Bounds())}"
    return branch == (chosen if chosen in step.branches else "default")


def _rendered(step: Step, scope: dict[str, Any], unknown: set[str]) -> tuple[dict[str, Any], bool, str | None]:
    """The step's own keys, whether all of them are known, and the mistake of one that could be and fails."""
    keys = STEP_TYPES[step.type].keys
    inside = STEP_TYPES[step.type].inside
    fields: dict[str, Any] = {}
    whole, mistake = True, None
    for name, value in step.fields.items():
        rendering = keys[name].rendering if name in keys and name not in inside else Rendering.NONE
        fields[name] = value
        if rendering is Rendering.NONE:
            continue
        try:
            if rendering is Rendering.CONDITION:
                fields[name] = condition(value, scope)
            else:
                fields[name] = render(value, scope, blocks=rendering is Rendering.TEXT)
        except ExpressionError as error:
            whole = False
            mistake = mistake if unknown else mistake or error.message
            fields[name] = render_known(value, scope, blocks=rendering is Rendering.TEXT)
    return fields, whole, mistake
