"""What a schedule is made of, and whether its parts go together. Known without a database."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from engine.cron import check_cron, check_zone
from engine.errors import UserError
from engine.states import Priority

MAX_CATCH_UP = 100
DEFAULT_CATCH_UP = 1
MAX_TAGS = 20
MAX_TAG = 100  # characters of a tag's name
MAX_TAG_VALUE = 255


class Overlap(StrEnum):
    """What a firing does that finds the schedule's run before it unfinished."""

    SKIP = "skip"  # nothing; it is counted
    QUEUE = "queue"  # it waits for that run's end


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """When a workflow runs by itself, and with what. `catch_up`: how many missed firings are made up, the newest ones."""

    cron: str
    zone: str = "UTC"
    overlap: Overlap = Overlap.SKIP
    catch_up: int = DEFAULT_CATCH_UP
    input: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    priority: Priority = Priority.NORMAL
    budget_picousd: int | None = None
    enabled: bool = True


def check_schedule(spec: ScheduleSpec) -> None:
    """Whether the line comes due and the zone exists. Raises: UserError that names the part as users write it."""
    for param, check, value in (("cron", check_cron, spec.cron), ("timezone", check_zone, spec.zone)):
        try:
            check(value)
        except ValueError as error:
            raise UserError("invalid_schedule", f"{param}: {error}", param=param) from None
