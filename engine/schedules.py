"""Schedules that are set by name, and all of them as users see them."""

from difflib import get_close_matches
from itertools import islice
from typing import Any

from engine.catalogue import Catalogue
from engine.clock import iso
from engine.cron import due_times
from engine.errors import Conflict, NotFound
from engine.money import to_usd
from engine.schedule_rows import DEFINITION, HTTP, add_schedule, facts_of, set_paused
from engine.schedule_spec import ScheduleSpec, check_schedule
from engine.store.database import Row, Tx
from engine.store.json_text import loads
from engine.store.locks import lock_name
from engine.store.schedules import delete_schedule, get_schedule, list_schedules, lock_schedule
from engine.submission import check_submitted
from engine.workflows import find

_UPCOMING = 5
_MOST_NAMES = 1000


def create_schedule(
    tx: Tx, catalogue: Catalogue, names: tuple[str, str], spec: ScheduleSpec, *, key_id: str | None, now: int
) -> tuple[Row, bool]:
    """Store a schedule. `names`: its own and its workflow's. The same again under the same name changes nothing.

    Returns the row and whether it is new. Raises: NotFound for the workflow, UserError for a line, a zone or an input that does
    not fit, Conflict where the name is another schedule's.
    """
    tx.point("create_schedule")
    name, workflow = names
    check_schedule(spec)
    check_submitted(catalogue.graph(tx, find(tx, workflow)["id"]).definition, dict(spec.input))
    lock_name(tx, f"schedule:{name}")
    facts = facts_of(spec, key_id)
    known = get_schedule(tx, name)
    if known is None:
        return add_schedule(tx, (name, workflow, HTTP), facts, now), True
    if known["workflow_name"] == workflow and all(known[part] == value for part, value in facts.items()):
        return known, False
    raise Conflict(
        "schedule_exists", f"there is another schedule {name!r}; delete it first, or choose another name", param="name"
    )


def find_schedule(tx: Tx, told: str) -> Row:
    """The schedule of that id or name. Raises: NotFound with the nearest names."""
    row = get_schedule(tx, told)
    if row is None:
        names = [each["name"] for each in list_schedules(tx, None, _MOST_NAMES)]
        near = get_close_matches(told, names, n=3, cutoff=0.5)
        hint = f", did you mean {' or '.join(near)}?" if near else ""
        raise NotFound("schedule_not_found", f"there is no schedule {told!r}{hint}", param="schedule")
    return row


def pause_schedule(tx: Tx, told: str, *, paused: bool, now: int) -> Row:
    """Pause a schedule, its definition's too, or let it go on; the same again changes nothing. Raises: NotFound."""
    tx.point("pause_schedule")
    row = _locked(tx, told)
    return set_paused(tx, row, now if paused else None, now)


def remove_schedule(tx: Tx, told: str) -> Row:
    """Forget a schedule; its runs go on. Raises: NotFound; Conflict for one that a definition asks for."""
    tx.point("remove_schedule")
    row = _locked(tx, told)
    if row["origin"] == DEFINITION:
        message = f"the schedule {row['name']!r} is part of the workflow {row['workflow_name']!r}"
        raise Conflict("schedule_of_definition", f"{message}: take `schedule` out of its definition", param="schedule")
    delete_schedule(tx, row["id"])
    return row


def _locked(tx: Tx, told: str) -> Row:
    row = lock_schedule(tx, find_schedule(tx, told)["id"])
    if row is None:
        raise NotFound("schedule_not_found", f"there is no schedule {told!r}", param="schedule")
    return row


def schedule_view(row: Row, *, upcoming_from: int | None = None) -> dict[str, Any]:
    """A schedule as users see it; with the due times behind `upcoming_from`, where that is given."""
    view: dict[str, Any] = {
        "id": row["id"],
        "name": row["name"],
        "workflow": row["workflow_name"],
        "origin": row["origin"],
        "cron": row["cron"],
        "timezone": row["zone"],
        "overlap": row["overlap"],
        "catch_up": row["catch_up"],
        "input": loads(row["input_json"]),
        "tags": loads(row["tags_json"]),
        "priority": row["priority"],
        "budget_usd": None if row["budget_picousd"] is None else to_usd(row["budget_picousd"]),
        "enabled": bool(row["enabled"]),
        "paused_at": _iso(row["paused_us"]),
        "next_at": _iso(row["next_us"]),
        "last_at": _iso(row["last_due_us"]),
        "last_run_id": row["last_run_id"],
        "waiting": len(loads(row["backlog_json"])) if row["backlog_json"] else 0,
        "fired": row["fired"],
        "skipped": row["skipped"],
        "missed": row["missed"],
        "failed": row["failed"],
        "error": None if row["error_us"] is None else {"message": row["error_message"], "at": iso(row["error_us"])},
        "created_at": iso(row["created_us"]),
        "updated_at": iso(row["updated_us"]),
    }
    return view if upcoming_from is None else view | {"upcoming": _upcoming(row, upcoming_from)}


def _upcoming(row: Row, now: int) -> list[str]:
    if row["next_us"] is None:
        return []
    behind = due_times(row["cron"], row["zone"], max(row["next_us"], now))
    return [iso(at) for at in (row["next_us"], *islice(behind, _UPCOMING - 1))]


def _iso(at_us: int | None) -> str | None:
    return None if at_us is None else iso(at_us)
