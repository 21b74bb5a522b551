"""What the engine asks of the rooms above it, as small Protocols, and the data that crosses the border."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from engine.definition import Definition, Step
from engine.ledger import Book, CallScope
from engine.states import ErrorClass


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The step's result: any JSON value. `model` names what answered an llm step, as `provider/model`."""

    output: Any
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The step did not work. Whether it is tried again is its retry policy's to say, unless `final`."""

    error_class: ErrorClass
    message: str
    retry_after_s: float | None = None
    final: bool = False


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model asks an agent for. `tool` is `server/tool`, None where the agent has none of that name.

    `arguments` is the object that the model gave, or its text where that is none.
    """

    id: str
    name: str
    tool: str | None
    arguments: dict[str, Any] | str


@dataclass(frozen=True, slots=True)
class AskedForTools:
    """The model of an agent answered with calls: its message is this step's result, and each call becomes a step of its own."""

    message: dict[str, Any]
    calls: tuple[ToolCall, ...]
    model: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """The step's `if` was false."""


@dataclass(frozen=True, slots=True)
class Branched:
    """A container chose which of its `branches` runs; None: no branch, the step succeeds with null."""

    branch: str | None


@dataclass(frozen=True, slots=True)
class Opened:
    """A foreach (with its items), an agent (with its tools), a parallel or a while begins."""

    items: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Sleeping:
    """The step waits for some seconds, or until a time in microseconds since 1970, and then succeeds with null."""

    seconds: float | None = None
    until_us: int = 0


@dataclass(frozen=True, slots=True)
class Listening:
    """The step waits for a signal of that name."""

    signal: str


@dataclass(frozen=True, slots=True)
class Calling:
    """The step waits for a run of another workflow, to be started with this input."""

    workflow: str
    input: Any
    trace_context: str | None = None  # of the step that calls


@dataclass(frozen=True, slots=True)
class OverBudget:
    """The call's worst case does not fit into the run's budget or another one: the run pauses, the step goes back uncounted."""

    message: str


@dataclass(frozen=True, slots=True)
class Throttled:
    """The run's key has used up what it may use for the moment: the step goes back uncounted and waits."""

    message: str
    retry_after_s: float


GoesOn = Branched | Opened | Sleeping | Listening | Calling
Outcome = Succeeded | AskedForTools | Failed | Skipped | GoesOn | OverBudget | Throttled


@dataclass(frozen=True, slots=True)
class Conversation:
    """What an agent has so far: its tools, and what was said behind its prompt, as messages in OpenAI's form.

    A tool is `{"name", "server", "tool", "description", "parameters"}`; `name` is what the model calls it by.
    """

    tools: list[dict[str, Any]]
    messages: list[dict[str, Any]]


class AgentMemory(Protocol):
    """What the steps inside an agent have to know of each other, read from their rows."""

    async def conversation(self) -> Conversation:
        """All turns before this one."""
        ...

    async def left_picousd(self) -> int | None:
        """What is left of the agent's `max_cost_usd`, every open call at its worst case; None: no limit."""
        ...

    async def call(self) -> tuple[ToolCall, bool]:
        """The call that this step makes, and whether it has been approved."""
        ...


class StepLedger(Book, Protocol):
    """Where a step books its calls."""

    async def remaining_picousd(self) -> int | None:
        """What is left for the next call in all budgets that count it, None without one."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed step with all that its executor needs. `scope` holds the names its expressions may use."""

    run_id: str
    step_id: str  # the row's id
    key: str  # the step's key within its run, such as `report`
    attempt: int
    definition: Definition
    step: Step
    scope: Mapping[str, Any]
    call_scope: CallScope
    book: StepLedger
    agent: AgentMemory | None = None  # inside an agent


class StepExecutor(Protocol):
    """Runs one type of step. May raise anything: the worker turns it into Failed(internal)."""

    async def execute(self, job: Job) -> Outcome:
        """The step's outcome; cancelled from outside when the step is cancelled or times out."""
        ...


class Doorbell(Protocol):
    """Tells workers that a step is ready. May lose or double what it is told: the database is the truth."""

    def ring(self, step_id: str, priority: str) -> None:
        """Never raises and never blocks for long."""
        ...

    def ended(self, run_id: str) -> None:
        """Tell whoever waits for a run that it has ended, where somebody can hear it. Never raises and never blocks."""
        ...
