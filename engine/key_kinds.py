"""What the tables in `engine.keys` are made of: a key, what it takes, how its expressions are treated, and a step type."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What a key takes; `engine.shapes` has a check for each that is more than its JSON Schema."""

    ANY = "any"
    BOOLEAN = "boolean"
    CASES = "cases"
    CHOICE = "choice"
    CHOICES = "choices"
    CONCURRENCY = "concurrency"
    CONDITION = "condition"
    DURATION = "duration"
    ID = "id"
    INPUTS = "inputs"
    INTEGER = "integer"
    JSON_SCHEMA = "json_schema"
    LIST = "list"
    MESSAGES = "messages"
    NAME = "name"
    NEEDS = "needs"
    NUMBER = "number"
    NUMBERS = "numbers"
    OBJECT = "object"
    ON_ERROR = "on_error"
    PICTURES = "pictures"
    RETRY = "retry"
    SCHEDULE = "schedule"
    SIGNAL = "signal"
    STATUSES = "statuses"
    STEPS = "steps"
    STOP = "stop"
    TEXT = "text"
    TIME = "time"
    TOOLS = "tools"
    URL = "url"


class Rendering(StrEnum):
    """How expressions in a key's value are treated."""

    NONE = "none"  # fixed when the definition is stored
    VALUE = "value"  # ${…} only
    TEXT = "text"  # ${…}, {% if %} and {% for %}
    CONDITION = "condition"  # an expression as a whole


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `minimum` and `maximum` are for numbers (for text, a minimum of 1 means that it may not be empty), `choices` for words."""

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
    not_both: tuple[str, ...] = ()  # at most one of these may be there
    branches: tuple[str, ...] = ()  # the keys that hold steps
    inside: tuple[str, ...] = ()  # keys whose expressions stand inside the steps that it holds
    gives: tuple[str, ...] = ()  # of `item` and `index`, what the steps inside may read
    scoped: bool = False  # whether names inside stay inside
    refused: tuple[str, ...] = ()  # common keys that mean nothing here
