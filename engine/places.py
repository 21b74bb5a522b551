"""Places of workflows with `concurrency`: a run has one from its start to its end, waiting and paused included.

A row of `places` is a run in line, or (`since_us`) one under way; the run's end deletes it in the same transaction, so there is
no counter to drift. Until it has its place none of a run's steps is ready (`RunWriter.held_back`). Nobody ever waits here: of two
transactions that would fill the same line at once one leaves it to the other, and a run that somebody has locked is left to the
sweeper (`fill`). That makes it safe to call under the locks of any runs.
"""

from engine.concurrency_key import line_name
from engine.definition import Definition
from engine.run_writer import Ring
from engine.states import RANKS
from engine.store.database import Row, Tx
from engine.store.locks import try_lock_name
from engine.store.payloads import unpack
from engine.store.places import (
    delete_place,
    insert_place,
    lines_with_room,
    next_in_line,
    step_out,
    take_place,
    under_way,
)
from engine.store.runs import lock_run_if_free
from engine.store.steps import release_steps

_BATCH = 200


def enter_line(tx: Tx, run: Row, definition: Definition, now: int) -> list[Ring]:
    """Stand in line, and start where there is room; nothing for a workflow without a limit.

    Raises: UserError where the key gives no plain value.
    """
    if definition.concurrency is None:
        return []
    given = unpack(tx, run["input_json"], run["input_digest"])
    line = line_name(definition.name, definition.concurrency, given)
    insert_place(
        tx,
        {
            "run_id": run["id"],
            "line": line,
            "rank": RANKS[run["priority"]],
            "most": definition.concurrency.limit,
            "from_us": max(now, run["start_us"] or 0),
            "since_us": None,
        },
    )
    return _start_next(tx, line, now)


def leave_line(tx: Tx, run_id: str, now: int) -> list[Ring]:
    """The run has ended: whoever is next may start."""
    line = delete_place(tx, run_id)
    return [] if line is None else _start_next(tx, line, now)


def pause_in_line(tx: Tx, run: Row, definition: Definition) -> None:
    """A paused run does not wait for a place; one that has its place keeps it."""
    if definition.concurrency is not None:
        step_out(tx, run["id"])


def lines_to_fill(tx: Tx, now: int) -> list[str]:
    """Lines in which a run waits although there is room."""
    return lines_with_room(tx, now, _BATCH)


def fill(tx: Tx, line: str, now: int) -> list[Ring]:
    """Start the runs of a line for which there is room."""
    tx.point("fill")
    return _start_next(tx, line, now)


def _start_next(tx: Tx, line: str, now: int) -> list[Ring]:
    if not try_lock_name(tx, f"line:{line}"):
        return []
    rings: list[Ring] = []
    taken = under_way(tx, line)
    while (head := next_in_line(tx, line, now)) is not None and taken < head["most"]:
        if lock_run_if_free(tx, head["run_id"]) is None or not take_place(tx, head["run_id"], now):
            break
        rings += [Ring(step["id"], step["priority"]) for step in release_steps(tx, head["run_id"], now)]
        taken += 1
    return rings
