"""Errors of the engine, named by who has to act. The API turns `code` into an HTTP status in one table.

AIGatewayError
├── UserError            the caller mends the request, the file or the configuration
│   ├── NotFound         the named thing does not exist
│   ├── TooLarge         a value is larger than what is stored of one
│   ├── Conflict         the thing exists but is not in a state that allows this
│   ├── Forbidden        this caller may not do that
│   └── BudgetExceeded   the call's worst case does not fit into what is left
│       └── CapExceeded  … of what the step itself may cost
├── RetryableError       trying again later can help
│   └── LimitExceeded    the key has used up what it may use in a minute, or at once
└── FatalError           trying again cannot help and the caller cannot mend it
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a file or a request body; `line` and `column` count from 1, `path` is like `steps[2].model`."""

    message: str
    path: str | None = None
    line: int | None = None
    column: int | None = None
    suggestion: str | None = None


class AIGatewayError(Exception):
    """Root of all errors that are meant to be shown: `message` is one plain sentence."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        details: Sequence[Mistake] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.details = tuple(details)


class UserError(AIGatewayError):
    """The request, the file or the configuration has to change."""


class NotFound(UserError):
    """The named thing does not exist."""


class TooLarge(UserError):
    """A value is larger than what is stored of one."""


class Conflict(UserError):
    """The thing exists but is not in a state that allows this."""


class Forbidden(UserError):
    """The caller is known and may not do that."""


class BudgetExceeded(UserError):
    """The worst case of a call does not fit into the budget that is left."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__("budget_exceeded", message, param=param)


class CapExceeded(BudgetExceeded):
    """The worst case of a call does not fit into what is left of the step's own `max_cost_usd`: the step fails."""


class RetryableError(AIGatewayError):
    """Trying again can help, not before `retry_after_s` seconds where it is known."""

    def __init__(self, code: str, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(code, message)
        self.retry_after_s = retry_after_s


class LimitExceeded(RetryableError):
    """A key's limit is used up for the moment. `limit` and `remaining` count what `unit` names: requests, tokens or parallel."""

    def __init__(self, message: str, *, retry_after_s: float, unit: str, limit: int, remaining: int) -> None:
        super().__init__("rate_limit_exceeded", message, retry_after_s=retry_after_s)
        self.unit = unit
        self.limit = limit
        self.remaining = remaining


class FatalError(AIGatewayError):
    """Neither time nor the caller can mend this."""
