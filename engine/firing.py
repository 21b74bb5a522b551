"""When schedules come due: each firing is one run, however many sweepers look, whatever dies, and however late it is.

A firing is one transaction that locks the schedule's row, starts the run and moves the schedule on; the run's row holds schedule
and due time under a unique index. What the clock does: due times are taken from the schedule's own next one, so time that is gone
back over fires nothing twice, and time that is jumped over is handled like time that nobody was there for.
"""

from dataclasses import dataclass
from itertools import islice
from typing import Any

from engine.catalogue import Catalogue
from engine.clock import iso
from engine.cron import due_times
from engine.errors import UserError
from engine.schedule_spec import Overlap
from engine.states import Priority
from engine.store.api_keys import get_key
from engine.store.database import Row, Tx
from engine.store.json_text import dumps, loads
from engine.store.schedules import due_schedules, has_open_run, lock_schedule, move_schedule
from engine.submission import Firing, Submission, submit
from engine.transition import Ring
from engine.workflows import find

ON_TIME_US = 60_000_000
"""A firing that is later than this was missed. Cron lines count in minutes, so at most one firing is on time."""
SLICE = 500  # due times that one transaction looks at: a minute's schedule that nobody swept for a year has 525,600
_BATCH = 200


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done with what has come due. `more`: this was one slice of it, and nothing is to be started yet."""

    fire_us: int | None
    backlog: tuple[int, ...]
    next_us: int | None
    skipped: int = 0
    missed: int = 0
    more: bool = False


@dataclass(frozen=True, slots=True)
class Fired:
    """Bells to ring; `more`: look at this schedule again at once."""

    rings: tuple[Ring, ...] = ()
    more: bool = False


def decide(schedule: Row, *, busy: bool, now: int) -> Decision:
    """Which firing starts a run now, which wait, which are left out. Raises: ValueError where the zone is not known any more.

    Of missed firings the newest `catch_up` wait, and start one behind the end of the other; a firing on time that finds a run
    under way is skipped, or with `queue` waits too. At most `catch_up` wait (with `queue` at least one);
    beyond that the oldest are left out.
    """
    due, following = _due(schedule, now)
    more = following is not None and following <= now
    late = [at for at in due if more or at <= now - ON_TIME_US]
    waiting: list[int] = loads(schedule["backlog_json"]) if schedule["backlog_json"] else []
    queues = schedule["overlap"] == Overlap.QUEUE
    room = max(schedule["catch_up"], 1 if queues else 0)
    waiting += late[len(late) - min(schedule["catch_up"], len(late)) :]
    skipped = 0
    for at in due[len(late) :]:
        if queues or not busy:
            waiting.append(at)
            room = max(room, 1)
        else:
            skipped += 1
    kept = waiting[max(0, len(waiting) - room) :]
    missed = len(waiting) - len(kept) + max(0, len(late) - schedule["catch_up"])
    starts = bool(kept) and not busy and not more
    return Decision(kept[0] if starts else None, tuple(kept[starts:]), following, skipped, missed, more)


def due_now(tx: Tx, now: int) -> list[str]:
    """Ids of schedules for which `fire` has something to do."""
    return due_schedules(tx, now, _BATCH)


def fire(tx: Tx, catalogue: Catalogue, schedule_id: str, now: int) -> Fired:
    """Start the run that a schedule is due for, if it still is. A run that cannot be started is told on the schedule."""
    tx.point("fire_schedule")
    row = lock_schedule(tx, schedule_id)
    if row is None:
        return Fired()
    try:
        decision = decide(row, busy=has_open_run(tx, schedule_id), now=now)
    except ValueError as error:  # its zone is gone: it comes due no more, until it is set anew
        move_schedule(tx, row | {"next_us": None, "backlog_json": None} | _failure(row, str(error), now))
        return Fired()
    moved = row | {
        "next_us": decision.next_us,
        "backlog_json": dumps(decision.backlog) if decision.backlog else None,
        "skipped": row["skipped"] + decision.skipped,
        "missed": row["missed"] + decision.missed,
    }
    rings: tuple[Ring, ...] = ()
    if decision.fire_us is not None:
        outcome, rings = _start(tx, catalogue, row, decision.fire_us, now)
        moved |= outcome
    move_schedule(tx, moved)
    return Fired(rings, decision.more)


def _due(schedule: Row, now: int) -> tuple[list[int], int | None]:
    """One slice of the due times up to now, and the one behind it."""
    first: int | None = schedule["next_us"]
    if first is None or first > now:
        return [], first
    due = [first]
    for at in islice(due_times(schedule["cron"], schedule["zone"], first), SLICE):
        if at > now or len(due) == SLICE:
            return due, at
        due.append(at)
    return due, None


def _start(tx: Tx, catalogue: Catalogue, row: Row, due_us: int, now: int) -> tuple[dict[str, Any], tuple[Ring, ...]]:
    """What the firing makes of the schedule's row, and the run's bells. Nothing is written before all is known to be well."""
    try:
        version = find(tx, row["workflow_name"])
        key = None if row["key_id"] is None else get_key(tx, row["key_id"])
        if key is not None and key["revoked_us"] is not None:
            raise UserError("key_revoked", f"the API key {key['name']!r} that this schedule was made with is revoked")
        definition = catalogue.graph(tx, version["id"]).definition
        asked = Submission(
            definition=definition,
            version=version,
            input=loads(row["input_json"]),
            budget_picousd=row["budget_picousd"],
            priority=Priority(row["priority"]),
            tags=loads(row["tags_json"]),
            key_id=row["key_id"],
            firing=Firing(row["id"], row["name"], due_us),
        )
        started = submit(tx, catalogue, asked, now)
    except UserError as error:
        return _failure(row, f"the firing of {iso(due_us)} started no run: {error.message}", now), ()
    return {
        "last_due_us": due_us,
        "last_run_id": started.run["id"],
        "fired": row["fired"] + 1,
        "error_message": None,
        "error_us": None,
    }, started.rings


def _failure(row: Row, message: str, now: int) -> dict[str, Any]:
    return {"failed": row["failed"] + 1, "error_message": message, "error_us": now}
