"""Rows of schedules, made and changed: what is asked for, and what starts anew when that changes."""

from typing import Any

from engine.clock import new_id
from engine.cron import next_due
from engine.schedule_spec import ScheduleSpec
from engine.store.database import Row, Tx
from engine.store.json_text import dumps
from engine.store.schedules import define_schedule, insert_schedule

HTTP, DEFINITION = "http", "definition"
_WHEN = ("cron", "zone", "enabled")


def facts_of(spec: ScheduleSpec, key_id: str | None) -> dict[str, Any]:
    """The columns that say what was asked for."""
    return {
        "cron": spec.cron,
        "zone": spec.zone,
        "overlap": spec.overlap.value,
        "catch_up": spec.catch_up,
        "input_json": dumps(dict(spec.input)),
        "tags_json": dumps(dict(spec.tags)),
        "priority": spec.priority.value,
        "budget_picousd": spec.budget_picousd,
        "key_id": key_id,
        "enabled": spec.enabled,
    }


def add_schedule(tx: Tx, names: tuple[str, str, str], facts: dict[str, Any], now: int) -> Row:
    """Store a new schedule. `names`: its own, its workflow's, and where it comes from."""
    name, workflow, origin = names
    row: Row = {
        "id": new_id(),
        "name": name,
        "workflow_name": workflow,
        "origin": origin,
        **facts,
        "next_us": _first({**facts, "paused_us": None}, now),
        **dict.fromkeys(("paused_us", "backlog_json", "last_due_us", "last_run_id", "error_message", "error_us")),
        **dict.fromkeys(("fired", "skipped", "missed", "failed"), 0),
        "created_us": now,
        "updated_us": now,
    }
    insert_schedule(tx, row)
    return row


def change_schedule(tx: Tx, row: Row, facts: dict[str, Any], now: int) -> None:
    """Make a stored, locked schedule what is asked for. Only where that changes its times does it begin to wait anew."""
    if all(row[name] == value for name, value in facts.items()):
        return
    changed = {**row, **facts, "updated_us": now}
    if any(row[name] != facts[name] for name in _WHEN) or row["next_us"] is None:
        changed |= {"next_us": _first(changed, now), "backlog_json": None}
    define_schedule(tx, changed)


def set_paused(tx: Tx, row: Row, paused_us: int | None, now: int) -> Row:
    """Pause a locked schedule, or let it go on with its next time from now: what it came due for meanwhile is not made up."""
    if (row["paused_us"] is None) is (paused_us is None):
        return row
    changed = {**row, "paused_us": paused_us, "backlog_json": None, "updated_us": now}
    changed["next_us"] = _first(changed, now)
    define_schedule(tx, changed)
    return changed


def _first(facts: dict[str, Any], now: int) -> int | None:
    if not facts["enabled"] or facts["paused_us"] is not None:
        return None
    return next_due(facts["cron"], facts["zone"], now)
