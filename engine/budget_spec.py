"""What a budget is made of, and whether its parts go together. Known without a database, so that settings can be read fast."""

from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from engine.errors import UserError
from engine.periods import Period

WHOLE = 10_000
"""Thresholds are counted in hundredths of a percent: this is all of the limit."""


class Scope(StrEnum):
    """Which calls a budget counts: all, or those of one key, workflow, provider, model or tag."""

    ALL = "all"
    KEY = "key"
    WORKFLOW = "workflow"
    PROVIDER = "provider"
    MODEL = "model"
    TAG = "tag"


class Action(StrEnum):
    """What a budget does to a call that does not fit: refuse it, or nothing but tell."""

    REJECT = "reject"
    ALERT = "alert"


class Origin(StrEnum):
    """Where a budget was set: the configuration file, over HTTP, or with its key."""

    CONFIG = "config"
    HTTP = "http"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class BudgetSpec:
    """A budget as it is set. `subject`: the key's name or id, the workflow, the provider, the model (as it is asked for,
    `provider/model`, or the provider's own name), or `key:value` of a tag; None for scope all.
    """

    name: str
    limit_picousd: int
    period: Period
    scope: Scope = Scope.ALL
    subject: str | None = None
    zone: str = "UTC"
    action: Action = Action.REJECT
    alert_at: tuple[int, ...] = ()

    @property
    def target(self) -> str:
        """By which a call finds it."""
        return "all" if self.scope is Scope.ALL else f"{self.scope.value}:{self.subject}"

    def own_of_key(self, key_id: str) -> "BudgetSpec":
        """The same for one key alone."""
        return replace(self, name=f"key-{key_id}", scope=Scope.KEY, subject=key_id)


def check_budget(spec: BudgetSpec) -> None:
    """Whether the parts of a budget go together. Raises: UserError that names the part as users write it."""
    if (spec.subject is None) != (spec.scope is Scope.ALL):
        needs = "takes no match" if spec.scope is Scope.ALL else "needs match"
        raise UserError("invalid_budget", f"scope {spec.scope.value} {needs}", param="match")
    if spec.scope is Scope.TAG and not all((spec.subject or "").partition(":")):
        raise UserError("invalid_budget", "match of scope tag must be key:value", param="match")
    try:
        ZoneInfo(spec.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UserError(
            "invalid_budget", "zone must be a time zone such as UTC or Europe/Berlin", param="zone"
        ) from None


def to_threshold(share: Decimal) -> int:
    """A share of the limit, such as 0.8, as budgets keep it."""
    return max(1, int(share * WHOLE))
