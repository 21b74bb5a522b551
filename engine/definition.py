"""A checked workflow definition as frozen data: what the loader returns and the planner, the executors and the API read.

Nothing here parses or checks; a `Definition` that exists has passed every check of `engine.checks`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.states import ErrorClass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Attempts in total (the first included) and the pauses between them: initial * factor^n, at most max_s, jittered."""

    max_attempts: int
    initial_s: float = 1.0
    factor: float = 2.0
    max_s: float = 60.0
    jitter: bool = True
    errors: frozenset[ErrorClass] = frozenset()


@dataclass(frozen=True, slots=True)
class Step:
    """One step as written. `fields` holds what belongs to its type alone (prompt, model, params, value ...), unrendered."""

    id: str
    type: str
    needs: tuple[str, ...]  # resolved: a step without `needs` names the step before it in its list
    fields: Mapping[str, Any]
    condition: str | None = None  # the `if` guard, an expression without its ${}
    output: str | None = None
    timeout_s: float | None = None
    deadline_s: float | None = None
    retry: RetryPolicy | None = None
    on_error: str = "fail"  # fail | continue
    branches: Mapping[str, tuple["Step", ...]] = field(default_factory=dict[str, tuple["Step", ...]])
    references: frozenset[str] = frozenset()  # ids of the steps whose results its expressions read
    line: int = 0


@dataclass(frozen=True, slots=True)
class Definition:
    """A whole workflow. `inputs` is None where anything is taken, else a JSON Schema per input."""

    name: str
    steps: tuple[Step, ...]
    description: str = ""
    inputs: Mapping[str, Mapping[str, Any]] | None = None
    output: Any = None  # the unrendered output value; None: the output of the last step
    output_references: frozenset[str] = frozenset()
    budget_picousd: int | None = None
    deadline_s: float | None = None
    source: str = ""  # the YAML text as it was given

    def walk(self) -> Iterator[Step]:
        """Every step, nested ones behind the step that holds them."""
        pending = list(reversed(self.steps))
        while pending:
            step = pending.pop()
            yield step
            for branch in reversed(list(step.branches.values())):
                pending.extend(reversed(branch))

    def step(self, step_id: str) -> Step:
        """The step of that id. Raises: KeyError."""
        for step in self.walk():
            if step.id == step_id:
                return step
        raise KeyError(step_id)
