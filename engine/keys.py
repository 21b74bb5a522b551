"""The words of the workflow language as tables: every key, what it takes and what it means.

`engine.shapes` checks definitions against these tables and `engine.schema` makes the JSON Schema from them, so that the two
cannot drift apart. A new step type is an entry here plus its executor.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from engine.states import ErrorClass

ID_PATTERN = r"^[a-z][a-z0-9_]*$"
WORKFLOW_NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]*$"
TAKEN_NAMES = frozenset({"input", "steps", "run", "item", "index"})
# Words that an expression reads as something else, so that an output of that name could never be read.
EXPRESSION_WORDS = frozenset(
    {"and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "null", "loop", "range"}
)
MAX_STEPS = 5_000
MAX_NAME = 100


class Kind(StrEnum):
    """What a key takes; `engine.shapes` has a check for each that is more than its JSON Schema."""

    ANY = "any"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    CHOICES = "choices"
    CONDITION = "condition"
    DURATION = "duration"
    ID = "id"
    INPUTS = "inputs"
    INTEGER = "integer"
    JSON_SCHEMA = "json_schema"
    MESSAGES = "messages"
    NAME = "name"
    NEEDS = "needs"
    NUMBER = "number"
    OBJECT = "object"
    ON_ERROR = "on_error"
    RETRY = "retry"
    STEPS = "steps"
    STOP = "stop"
    TEXT = "text"


class Rendering(StrEnum):
    """How expressions in a key's value are treated."""

    NONE = "none"  # fixed when the definition is stored
    VALUE = "value"  # ${…} only
    TEXT = "text"  # ${…}, {% if %} and {% for %}
    CONDITION = "condition"  # an expression as a whole


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `minimum` and `maximum` are for numbers, `choices` for words."""

    kind: Kind
    description: str
    rendering: Rendering = Rendering.NONE
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    examples: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class StepType:
    """One step type: what it does, its own keys, and which of them exclude or require each other."""

    description: str
    keys: dict[str, Key]
    one_of: tuple[str, ...] = ()  # exactly one of these has to be there
    branches: tuple[str, ...] = field(default=())  # the keys that hold steps


def _sampling(kind: Kind, description: str, minimum: float | None = None, maximum: float | None = None) -> Key:
    return Key(kind, description, Rendering.VALUE, minimum=minimum, maximum=maximum)


ERROR_CLASSES = tuple(sorted(ErrorClass))

RETRY_KEYS: dict[str, Key] = {
    "max_attempts": Key(Kind.INTEGER, "Attempts in total, the first included (default 3).", minimum=1, maximum=100),
    "initial": Key(Kind.DURATION, "Pause before the second attempt (default 1s).", examples=("1s",)),
    "factor": Key(Kind.NUMBER, "What each further pause is multiplied by (default 2).", minimum=1, maximum=100),
    "max": Key(Kind.DURATION, "The longest pause (default 60s).", examples=("60s",)),
    "jitter": Key(
        Kind.BOOLEAN, "Whether pauses are spread at random, so that many steps do not return at once (default true)."
    ),
    "errors": Key(
        Kind.CHOICES,
        "The classes of errors that are tried again (default rate_limit, overloaded, timeout, connection, server_error).",
        choices=ERROR_CLASSES,
    ),
}

STEP_KEYS: dict[str, Key] = {
    "id": Key(Kind.ID, "The step's name, unique in the whole workflow.", required=True),
    "type": Key(Kind.CHOICE, "What the step does.", required=True),
    "if": Key(Kind.CONDITION, "The step is skipped unless this expression is true.", Rendering.CONDITION),
    "needs": Key(
        Kind.NEEDS, "Ids of the steps of the same list to wait for. Left out: the step before. Empty: starts at once."
    ),
    "output": Key(Kind.ID, "The name under which later expressions read the step's result."),
    "timeout": Key(Kind.DURATION, "The longest that one attempt may take.", examples=("30s", "5m")),
    "deadline": Key(Kind.DURATION, "The longest that all attempts together may take.", examples=("10m",)),
    "retry": Key(Kind.RETRY, "How failed attempts are tried again."),
    "on_error": Key(
        Kind.ON_ERROR,
        "What follows when the step has failed for good: `fail` ends the run, `continue` goes on with null as the result.",
        choices=("fail", "continue"),
    ),
}

LLM = StepType(
    "Asks a model. The result is its text, or data where `schema` is given.",
    {
        "prompt": Key(Kind.TEXT, "What the user says to the model; {% if %} and {% for %} work.", Rendering.TEXT),
        "messages": Key(
            Kind.MESSAGES, "The whole conversation, as a list or as one expression that gives a list.", Rendering.TEXT
        ),
        "system": Key(Kind.TEXT, "The system prompt; {% if %} and {% for %} work.", Rendering.TEXT),
        "model": Key(
            Kind.TEXT, "A configured name, provider/model, or a provider.", Rendering.VALUE, required=True,
            examples=("local", "anthropic/claude-sonnet-4-5"),
        ),
        "schema": Key(Kind.JSON_SCHEMA, "JSON Schema that the answer has to follow; the result is then data."),
        "temperature": _sampling(Kind.NUMBER, "Sampling temperature.", 0, 2),
        "top_p": _sampling(Kind.NUMBER, "Nucleus sampling: the probability mass to choose from.", 0, 1),
        "top_k": _sampling(Kind.INTEGER, "How many of the likeliest tokens to choose from.", 0),
        "min_p": _sampling(Kind.NUMBER, "The least probability relative to the likeliest token.", 0, 1),
        "max_tokens": _sampling(Kind.INTEGER, "The most tokens of the answer (default 4096).", 1),
        "stop": _sampling(Kind.STOP, "A text, or a list of texts, at which the answer ends."),
        "seed": _sampling(Kind.INTEGER, "Asks for the same answer to the same request, where the model can do that."),
        "frequency_penalty": _sampling(Kind.NUMBER, "Lowers tokens by how often they came already.", -2, 2),
        "presence_penalty": _sampling(Kind.NUMBER, "Lowers tokens that came already.", -2, 2),
        "reasoning_effort": _sampling(Kind.TEXT, "How much a reasoning model thinks, in its provider's words."),
    },
    one_of=("prompt", "messages"),
)  # fmt: skip

MCP_TOOL = StepType(
    "Calls a tool of an MCP server. The result is its structured content, else its text.",
    {
        "tool": Key(Kind.NAME, "The tool's name.", required=True),
        "server": Key(Kind.NAME, "The MCP server's name. Left out: any connected server that has the tool."),
        "params": Key(Kind.OBJECT, "The tool's arguments.", Rendering.VALUE),
    },
)

SET = StepType(
    "Makes a value. The result is that value.",
    {"value": Key(Kind.ANY, "Any value; expressions in it are evaluated.", Rendering.VALUE, required=True)},
)

IF = StepType(
    "Chooses between two lists of steps. The result is the output of the last step that ran.",
    {
        "condition": Key(Kind.CONDITION, "An expression that gives a boolean.", Rendering.CONDITION, required=True),
        "then": Key(Kind.STEPS, "The steps to run when it is true.", required=True),
        "else": Key(Kind.STEPS, "The steps to run when it is false."),
    },
    branches=("then", "else"),
)

STEP_TYPES: dict[str, StepType] = {"llm": LLM, "mcp_tool": MCP_TOOL, "set": SET, "if": IF}

TOP_KEYS: dict[str, Key] = {
    "name": Key(Kind.NAME, "The workflow's name."),
    "description": Key(Kind.TEXT, "What the workflow is for."),
    "inputs": Key(Kind.INPUTS, "A JSON Schema for each input. Required unless it has a `default`; others are refused."),
    "budget_usd": Key(Kind.NUMBER, "The most that a run may cost, in USD.", minimum=0, maximum=1_000_000),
    "deadline": Key(Kind.DURATION, "The longest that a run may take.", examples=("1h",)),
    "steps": Key(Kind.STEPS, "What the workflow does, in order unless `needs` says otherwise.", required=True),
    "output": Key(Kind.ANY, "The run's result. Left out: the output of the last step.", Rendering.VALUE),
}

MESSAGE_ROLES = ("system", "developer", "user", "assistant")

LATER_STEP_TYPES = ("agent", "http", "switch", "foreach", "parallel", "while", "workflow", "sleep", "wait")
LATER_STEP_KEYS = ("cache", "concurrency")
LATER_TOP_KEYS = ("on_failure", "finally", "concurrency", "schedule", "cache")
