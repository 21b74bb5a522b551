"""The schedules that a workflow's own definition asks for: they follow each new version, and go with the workflow.

The first one of `daily-digest` is named `daily-digest:1`. A new version keeps what has become of each, and when it comes next
unless its times changed.
"""

from engine.definition import Definition
from engine.schedule_rows import DEFINITION, add_schedule, change_schedule, facts_of
from engine.store.database import Tx
from engine.store.schedules import delete_schedule, lock_schedules_of_definition


def follow_definition(tx: Tx, definition: Definition, key_id: str | None, now: int) -> None:
    """Make the workflow's schedules those of this definition; in the transaction that stores it."""
    stored = {row["name"]: row for row in lock_schedules_of_definition(tx, definition.name)}
    for number, spec in enumerate(definition.schedules, 1):
        name = f"{definition.name}:{number}"
        facts = facts_of(spec, key_id)
        row = stored.pop(name, None)
        if row is None:
            add_schedule(tx, (name, definition.name, DEFINITION), facts, now)
        else:
            change_schedule(tx, row, facts, now)
    for row in stored.values():
        delete_schedule(tx, row["id"])


def forget_schedules(tx: Tx, workflow: str) -> None:
    """The workflow is gone, and with it the schedules of its definition."""
    for row in lock_schedules_of_definition(tx, workflow):
        delete_schedule(tx, row["id"])
