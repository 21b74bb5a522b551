"""The closed vocabularies: the same words in tables, API, metrics, logs and docs. Holds no logic but membership sets."""

from collections.abc import Mapping
from enum import StrEnum


class RunStatus(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"  # submit puts it here; the first claim moves it to running
    RUNNING = "running"  # claim moves it here
    WAITING = "waiting"  # every open step waits for time or a signal; the next claim moves it to running
    PAUSED = "paused"  # by the user or a budget; resume moves it out
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # retry moves it back to running
    CANCELLED = "cancelled"


class StepStatus(StrEnum):
    """Where a step stands."""

    PENDING = "pending"  # waits for its needs; the completion of the last need moves it to ready
    READY = "ready"  # may be claimed; claim moves it to running
    RUNNING = "running"  # a worker holds it; complete, fail or the sweeper moves it out
    WAITING = "waiting"  # for a retry, a timer or its children
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class AttemptStatus(StrEnum):
    """How one claim of a step by one worker stands or ended."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"  # the worker died or lost its lease; costs no user retry
    RETURNED = "returned"  # handed back by a draining worker or a pause; costs no user retry
    CANCELLED = "cancelled"


class ErrorClass(StrEnum):
    """What went wrong, in words that a retry policy can name."""

    RATE_LIMIT = "rate_limit"
    OVERLOADED = "overloaded"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    SERVER_ERROR = "server_error"
    INVALID_REQUEST = "invalid_request"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    AUTH = "auth"
    QUOTA = "quota"
    BUDGET_EXCEEDED = "budget_exceeded"
    INVALID_OUTPUT = "invalid_output"
    TOOL_ERROR = "tool_error"
    WORKER_LOST = "worker_lost"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class EventType(StrEnum):
    """What a run's history records."""

    RUN_SUBMITTED = "run.submitted"
    RUN_STARTED = "run.started"
    RUN_PAUSED = "run.paused"
    RUN_RESUMED = "run.resumed"
    RUN_SUCCEEDED = "run.succeeded"
    RUN_FAILED = "run.failed"
    RUN_CANCELLED = "run.cancelled"
    STEP_STARTED = "step.started"
    STEP_SUCCEEDED = "step.succeeded"
    STEP_FAILED = "step.failed"
    STEP_SKIPPED = "step.skipped"
    STEP_RETRYING = "step.retrying"
    STEP_LOST = "step.lost"
    STEP_WAITING = "step.waiting"
    STEP_CANCELLED = "step.cancelled"
    SIGNAL_RECEIVED = "signal.received"


class Priority(StrEnum):
    """One queue each."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


RANKS: Mapping[str, int] = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}
"""The lower, the sooner; the most urgent first."""

BUDGET = "budget_exceeded"
"""Why a run is paused: its next call, or that of a run below it, does not fit into a budget."""
RUN_ENDED = frozenset({RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED})
STEP_ENDED = frozenset({StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED})
RETRIED_BY_DEFAULT = frozenset(
    {
        ErrorClass.RATE_LIMIT,
        ErrorClass.OVERLOADED,
        ErrorClass.TIMEOUT,
        ErrorClass.CONNECTION,
        ErrorClass.SERVER_ERROR,
    }
)
