"""What follows from what: pure functions of a definition. No I/O, no clock, no randomness.

A step waits on its needs; it becomes ready when the last of them has ended, whatever the end (skipped and, unless `on_error`
says fail, failed count). A container waits on the steps inside it; what comes when the last of them has ended is its rule's to
say (`engine.containers`).

A row's key is its step's path with numbers for what repeats: `each[3].inner`. Between a foreach and the steps of an item stands
a row for the item, `each[3]`; likewise `loop[2]` in a while, `par.left` in parallel and `research[2]` for a turn of an agent.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.agent_steps import AGENT, CALL, INSIDE, agent_key, step_inside
from engine.definition import Definition, RetryPolicy, Step
from engine.keys import HANDLERS
from engine.states import RETRIED_BY_DEFAULT, ErrorClass

DEFAULT_RETRY = RetryPolicy(max_attempts=3, errors=RETRIED_BY_DEFAULT)

LONGEST_RETRY_AFTER_S = 86_400.0  # an upstream may ask for more; nobody waits that long

ON_FAILURE, FINALLY = "on_failure", "finally"
PHASES = (None, ON_FAILURE, FINALLY)  # of a run, in their order; None: the main steps
ITEM, BRANCH, ITERATION = "item", "branch", "iteration"
PARTS = frozenset({ITEM, BRANCH, ITERATION})  # types of rows between a container and the steps inside it
_NUMBER = re.compile(r"\[(-?\d+)\]")


@dataclass(frozen=True, slots=True)
class NewStep:
    """A step about to be stored; ready at once where it waits on nothing. `value` is what its row holds, such as an agent's call."""

    key: str
    type: str
    parent_key: str | None
    position: int
    waiting_on: int
    value: Any = None


class Graph:
    """A definition with its edges turned round: who waits for whom. `problem`: why it could not be loaded and has no steps."""

    def __init__(self, definition: Definition, problem: str | None = None) -> None:
        self.definition = definition
        self.problem = problem
        self._steps: dict[str, Step] = {}
        self._siblings: dict[str, tuple[Step, ...]] = {}
        self._dependents: dict[str, list[str]] = {}
        self._phases: dict[str, str] = {}
        self._parts: dict[str, Step] = {}  # of branches of parallel, whose keys are no step's path
        for phase, siblings in _lists(definition):
            self._enter(phase, siblings)

    def _enter(self, phase: str | None, siblings: tuple[Step, ...]) -> None:
        for step in siblings:
            self._steps[step.path] = step
            if phase is not None:
                self._phases[step.path] = phase
            self._siblings[step.path] = siblings
            for branch in step.branches if step.type == "parallel" else ():
                self._parts[f"{step.path}.{branch.removeprefix('branches.')}"] = step
            prefix = prefix_of(step.path)
            for need in step.needs:
                self._dependents.setdefault(prefix + need, []).append(step.id)

    def is_handler(self, container_key: str, key: str, kind: str) -> bool:
        """Whether a row right inside a container is a step of its `on_error`, and not of what that handles."""
        handlers = self.step(container_key).branches.get("on_error", ())
        return kind not in PARTS and any(step.id == self.step(key).id for step in handlers)

    def step(self, key: str) -> Step:
        """The step of that key; of a part's key, the container; inside an agent, what it stands for. Raises: KeyError."""
        path = path_of(key)
        found = self._steps.get(path) or self._parts.get(path)
        if found is not None:
            return found
        around, _, name = path.rpartition(".")
        agent = self._steps[around]
        if agent.type != AGENT:
            raise KeyError(key)
        return step_inside(agent, name)

    def reads_from(self, key: str) -> str:
        """The key from where the step's expressions read: its own, or inside an agent the agent's."""
        return agent_key(key) if self.step(key).type in INSIDE else key

    def phase(self, key: str) -> str | None:
        """In which phase of a run the step runs; None for the main steps."""
        return self._phases.get(self.step(key).path)

    def paths(self) -> Sequence[str]:
        """The paths of all steps."""
        return list(self._steps)

    def dependents(self, key: str) -> Sequence[str]:
        """Keys of the steps that wait for this one."""
        ids = self._dependents.get(path_of(key), ())
        return [prefix_of(key) + each for each in ids] if "." in key else ids

    def siblings(self, key: str) -> tuple[Step, ...]:
        """The list that the step stands in, itself included."""
        return self._siblings[path_of(key)]


def _lists(definition: Definition) -> Iterator[tuple[str | None, tuple[Step, ...]]]:
    pending = list(zip(PHASES, (definition.steps, definition.on_failure, definition.finally_), strict=True))
    while pending:
        phase, siblings = pending.pop()
        yield phase, siblings
        for step in siblings:
            pending.extend((phase, inner) for inner in step.branches.values())


def path_of(key: str) -> str:
    """A key without its numbers."""
    return _NUMBER.sub("", key) if "[" in key else key


def prefix_of(key: str) -> str:
    """What the keys of a step's list begin with: `each[3].` for `each[3].inner`."""
    return key[: key.rfind(".") + 1]


def numbered(key: str, number: int) -> str:
    """The key of a container's item or iteration."""
    return f"{key}[{number}]"


def address(prefix: str, path: str, *, back: int = 0) -> str | None:
    """The key of the row that a step whose key begins with `prefix` means by a path, `back` iterations ago; None before the first."""
    depth = path.count(".")
    if depth == 0:
        return path
    around = prefix.split(".")[:depth]
    if back:
        found = _NUMBER.search(around[-1])
        assert found is not None, "only what repeats is carried from iteration to iteration"
        number = int(found[1]) - back
        if number < 0:
            return None
        around[-1] = numbered(around[-1][: found.start()], number)
    return ".".join((*around, path[path.rfind(".") + 1 :]))


def index_of(prefix: str) -> int | None:
    """The number of the innermost item or iteration."""
    found = _NUMBER.findall(prefix)
    return int(found[-1]) if found else None


def item_key_of(prefix: str, graph: Graph) -> str | None:
    """The key of the innermost foreach item that a prefix lies in."""
    parts = prefix.split(".")
    for end in range(len(parts), 0, -1):
        if parts[end - 1].endswith("]"):
            key = ".".join(parts[:end])
            if graph.step(key).type == "foreach":
                return key
    return None


def lay_out(steps: Sequence[Step], *, prefix: str, parent_key: str | None, first_position: int) -> list[NewStep]:
    """The rows of one list of steps."""
    return [
        NewStep(
            key=prefix + step.id,
            type=step.type,
            parent_key=parent_key,
            position=first_position + number,
            waiting_on=len(step.needs),
        )
        for number, step in enumerate(steps)
    ]


def limit_of(step: Step, kind: str, now: int) -> int | None:
    """Until when a step that waits for others may wait, begun now. `kind` is the row's type: parts have no limit.

    An agent's timeout is that of each of its calls; a call waits for its approval alone.
    """
    told = (step.fields.get("approve_timeout"),) if step.type == CALL else (step.timeout_s, step.deadline_s)
    told = (step.deadline_s,) if step.type == AGENT else told
    limits = [limit for limit in told if limit is not None]
    return now + int(min(limits) * 1_000_000) if limits and kind not in PARTS else None


def catches(step: Step, kind: str, branch: str | None) -> bool:
    """Whether the failure of something inside a row of this step ends there and not the run. `kind` is the row's type."""
    if kind == ITEM:
        return step.fields.get("on_item_error") == "continue"
    return kind not in PARTS and step.on_error != "fail" and branch != HANDLERS[0]


def retry_pause_s(
    policy: RetryPolicy,
    *,
    failures: int,
    error_class: ErrorClass,
    retry_after_s: float | None,
    chance: float,
) -> float | None:
    """Seconds until the next attempt after `failures` failures, None where there is none. `chance` in [0, 1) is the jitter.

    Full-range jitter around the exponential pause (half to one and a half of it); a longer Retry-After wins.
    """
    if failures >= policy.max_attempts or error_class not in (policy.errors or RETRIED_BY_DEFAULT):
        return None
    pause = min(policy.initial_s * policy.factor ** (failures - 1), policy.max_s)
    if policy.jitter:
        pause *= 0.5 + chance
    return max(pause, min(retry_after_s or 0.0, LONGEST_RETRY_AFTER_S))
