"""A step between text and `Step`: read and checked by itself, its needs and references not yet resolved."""

from dataclasses import dataclass, field
from typing import Any

from engine.definition import RetryPolicy, Step
from engine.shapes import Reading, Spot


@dataclass(slots=True, eq=False)
class Draft:
    """One step. `bit` is its own bit and `inner` those of all steps inside it, for sets of steps as integers."""

    spot: Spot
    id: str
    type: str
    bit: int
    parent: "Draft | None"
    branch: str | None  # the parent's branch that holds it
    output: str | None = None
    condition: str | None = None
    timeout_s: float | None = None
    deadline_s: float | None = None
    retry: RetryPolicy | None = None
    on_error: str = "fail"
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    readings: list[Reading] = field(default_factory=list[Reading])
    branches: dict[str, "list[Draft]"] = field(default_factory=dict[str, "list[Draft]"])
    wanted: list[tuple[str, Spot]] | None = None  # the ids in `needs` as written
    inner: int = 0
    before: int = 0  # the steps that have ended whenever this one starts
    needs: "list[Draft]" = field(default_factory=list["Draft"])
    references: set[str] = field(default_factory=set[str])

    @property
    def named(self) -> bool:
        """Whether the step has a usable id of its own; else `id` is a stand-in that begins with a space."""
        return not self.id.startswith(" ")

    def step(self) -> Step:
        """The finished step."""
        place = self.spot.node.place
        return Step(
            id=self.id,
            type=self.type,
            needs=tuple(need.id for need in self.needs),
            fields=self.fields,
            condition=self.condition,
            output=self.output,
            timeout_s=self.timeout_s,
            deadline_s=self.deadline_s,
            retry=self.retry,
            on_error=self.on_error,
            branches={name: tuple(draft.step() for draft in drafts) for name, drafts in self.branches.items()},
            references=frozenset(self.references),
            line=place.line if place else 0,
        )
