"""Whose turn it is when a worker process has no slot free: a flood of one workflow does not hold up the others.

Bells are answered in the order in which they were rung, so the steps of a workflow that a few thousand runs were submitted before
would wait behind all of those. A full process therefore looks (each sweep) for workflows that have ready steps and hold less than
their share of its slots, which is the slots divided by the workflows that have something to do; these get the next slots that
become free. Within the highest priority that has ready steps: priorities stay what they are. A slot that holds something of a
lower priority is nobody's share: its run would go on from step to step in it, and what is more urgent gets it at the next end.

Priorities are strict but for one thing: what has been ready for a minute gets a turn now and then, the oldest first. Under a load that
never ends the last class would else wait for ever, and a run that was accepted ends.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain, zip_longest

from engine.states import RANKS, Priority
from engine.store.database import Tx
from engine.store.ready_steps import ready_steps_of, workflows_with_ready_steps
from engine.store.steps import unclaimed_steps

MOST_WORKFLOWS = 50  # that one look takes in; the next goes on behind them
AGED_US = 60_000_000
"""A step that has been ready for so long is taken whatever its priority, one in AGED_EVERY_US by each full process."""
AGED_EVERY_US = 10_000_000


@dataclass(frozen=True, slots=True)
class Turns:
    """Steps to be taken before any bell is answered, workflow by workflow; `after`: where the next look begins. `aged_us`: when
    something was last taken for its age.
    """

    step_ids: tuple[str, ...] = ()
    after: str = ""
    aged_us: int = 0


def owed_turns(tx: Tx, held: Mapping[tuple[str, str], int], slots: int, after: str) -> Turns:
    """What a full process owes. `held`: its slots by priority and workflow."""
    counted: Counter[str] = Counter()
    for priority in map(Priority, RANKS):
        own = {workflow: number for (rank, workflow), number in held.items() if rank == priority.value}
        counted.update(own)
        names = workflows_with_ready_steps(tx, priority.value, after, MOST_WORKFLOWS)
        if not names and after:
            names = workflows_with_ready_steps(tx, priority.value, "", MOST_WORKFLOWS)
        owed = _owed(tx, priority, names, counted, slots) if names else ()
        if owed or any(name in counted for name in names):
            following = names[-1] if len(names) == MOST_WORKFLOWS else ""
            return Turns(owed, following)  # else all that is ready there is of runs that are paused
    return Turns()


def with_aged(tx: Tx, turns: Turns, now: int, last_us: int) -> Turns:
    """What is owed, and before it what has waited for too long, where it is time for that: `last_us` is when it last was."""
    aged = unclaimed_steps(tx, now - AGED_US, 1) if now >= last_us + AGED_EVERY_US else []
    if not aged:
        return replace(turns, aged_us=last_us)
    return replace(turns, step_ids=(aged[0]["id"], *turns.step_ids), aged_us=now)


def _owed(tx: Tx, priority: Priority, names: list[str], held: Mapping[str, int], slots: int) -> tuple[str, ...]:
    share = max(1, slots // len({*names, *held}))
    missing = {name: share - held.get(name, 0) for name in names}
    found = [
        ready_steps_of(tx, priority.value, name, number)
        for name, number in sorted(missing.items(), key=lambda each: -each[1])
        if number > 0
    ]
    return tuple(step_id for step_id in chain.from_iterable(zip_longest(*found)) if step_id is not None)
