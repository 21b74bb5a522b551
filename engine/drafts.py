"""A step between text and `Step`: read and checked by itself, its needs and references not yet resolved."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from engine.definition import Reads, RetryPolicy, Step
from engine.readings import Reading
from engine.spots import Spot


@dataclass(slots=True, eq=False)
class Scope:
    """A region of the definition with names of its own: the whole, or what stands in a foreach, a while, a branch of parallel.

    `prefix` begins the paths of its steps. `gives` are those of `item` and `index` that it makes known, `repeats` tells
    whether a name has a value from the iteration before.
    """

    prefix: str = ""
    outer: "Scope | None" = None
    gives: tuple[str, ...] = ()
    repeats: bool = False
    steps: dict[str, "Draft"] = field(default_factory=dict[str, "Draft"])
    outputs: dict[str, list["Draft"]] = field(default_factory=dict[str, list["Draft"]])

    def outwards(self) -> "Iterator[Scope]":
        """This one and those around it."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.outer


@dataclass(slots=True)
class Found:
    """What readings were resolved to, see `engine.definition.Reads`."""

    references: set[str] = field(default_factory=set[str])
    carried: set[str] = field(default_factory=set[str])
    item: bool = False
    input: bool = False

    def add(self, other: "Found") -> None:
        """Both together."""
        self.references |= other.references
        self.carried |= other.carried
        self.item = self.item or other.item
        self.input = self.input or other.input

    def reads(self) -> Reads:
        """As the definition keeps it."""
        return Reads(frozenset(self.references), frozenset(self.carried), self.item, self.input)


@dataclass(slots=True, eq=False)
class Draft:
    """One step. `bit` is its own bit and `inner` those of all steps inside it, for sets of steps as integers."""

    spot: Spot
    id: str
    scope: Scope
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
    cache_s: float | None = None
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    readings: list[Reading] = field(default_factory=list[Reading])
    inner_readings: list[Reading] = field(default_factory=list[Reading])
    inner_scope: Scope | None = None
    branches: dict[str, "list[Draft]"] = field(default_factory=dict[str, "list[Draft]"])
    wanted: list[tuple[str, Spot]] | None = None  # the ids in `needs` as written
    inner: int = 0
    before: int = 0  # the steps that have ended whenever this one starts
    needs: "list[Draft]" = field(default_factory=list["Draft"])
    found: Found = field(default_factory=Found)
    inner_found: Found = field(default_factory=Found)

    @property
    def path(self) -> str:
        """Its name within the whole definition."""
        return self.scope.prefix + self.id

    @property
    def named(self) -> bool:
        """Whether the step has a usable id of its own; else `id` is a stand-in that begins with a space."""
        return not self.id.startswith(" ")

    def step(self) -> Step:
        """The finished step."""
        return Step(
            id=self.id,
            path=self.path,
            type=self.type,
            needs=tuple(need.id for need in self.needs),
            fields=self.fields,
            condition=self.condition,
            output=self.output,
            timeout_s=self.timeout_s,
            deadline_s=self.deadline_s,
            retry=self.retry,
            on_error=self.on_error,
            cache_s=self.cache_s,
            branches={name: tuple(draft.step() for draft in drafts) for name, drafts in self.branches.items()},
            reads=self.found.reads(),
            inner_reads=self.inner_found.reads(),
            place=self.spot.node.place,
        )
