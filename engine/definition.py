"""A checked workflow definition as frozen data: what the loader returns and the planner, the executors and the API read.

Nothing here parses or checks; a `Definition` that exists has passed every check of `engine.checks`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.errors import Mistake
from engine.schedule_spec import ScheduleSpec
from engine.states import ErrorClass
from engine.yaml12 import Place


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
class Reads:
    """What expressions read: the paths of steps, those of the iteration before in a while (`carried`), `item` and `input`."""

    references: frozenset[str] = frozenset()
    carried: frozenset[str] = frozenset()
    item: bool = False
    input: bool = False


NOTHING = Reads()


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many runs of a workflow are under way at once; with a `key`, an unrendered text, runs are counted apart by it."""

    limit: int
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step as written. `fields` holds what belongs to its type alone (prompt, model, params, value ...), unrendered.

    `path` names it within the whole definition: `each.inner` for a step inside the foreach `each`. Rows have keys, which are
    paths with numbers: `each[3].inner`. References are paths.
    """

    id: str
    path: str
    type: str
    needs: tuple[str, ...]  # resolved: a step without `needs` names the step before it in its list
    fields: Mapping[str, Any]
    condition: str | None = None  # the `if` guard, an expression without its ${}
    output: str | None = None
    timeout_s: float | None = None
    deadline_s: float | None = None
    retry: RetryPolicy | None = None
    on_error: str = "fail"  # fail | continue | steps
    cache_s: float | None = None
    branches: Mapping[str, tuple["Step", ...]] = field(default_factory=dict[str, tuple["Step", ...]])
    reads: Reads = NOTHING  # of its own expressions
    inner_reads: Reads = NOTHING  # of `collect` and of a while's condition, which stand inside it
    place: Place | None = None  # in the text, where the definition came as one

    @property
    def line(self) -> int:
        """Where it begins in the text, from 1; 0 where the definition came as data."""
        return self.place.line if self.place else 0

    @property
    def references(self) -> frozenset[str]:
        """Paths of the steps whose results its expressions read."""
        return self.reads.references


@dataclass(frozen=True, slots=True)
class Definition:
    """A whole workflow. `inputs` is None where anything is taken, else a JSON Schema per input."""

    name: str
    steps: tuple[Step, ...]
    on_failure: tuple[Step, ...] = ()
    finally_: tuple[Step, ...] = ()
    description: str = ""
    inputs: Mapping[str, Mapping[str, Any]] | None = None
    output: Any = None  # the unrendered output value; None: the output of the last step
    output_reads: Reads = NOTHING
    budget_picousd: int | None = None
    deadline_s: float | None = None
    schedules: tuple[ScheduleSpec, ...] = ()
    concurrency: Concurrency | None = None
    source: str = ""  # the YAML text as it was given
    warnings: tuple[Mistake, ...] = field(default=(), compare=False)  # of the text itself

    def walk(self) -> Iterator[Step]:
        """Every step, nested ones behind the step that holds them."""
        pending = [*reversed(self.finally_), *reversed(self.on_failure), *reversed(self.steps)]
        while pending:
            step = pending.pop()
            yield step
            for branch in reversed(list(step.branches.values())):
                pending.extend(reversed(branch))

    @property
    def output_references(self) -> frozenset[str]:
        """Paths of the steps that the run's output reads."""
        return self.output_reads.references
