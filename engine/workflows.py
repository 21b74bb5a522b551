"""Stored definitions: every change is a new version, and a run keeps the version that it started with."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from engine.clock import new_id
from engine.definition import Definition
from engine.definition_schedules import follow_definition, forget_schedules
from engine.errors import NotFound, UserError
from engine.loader import load
from engine.store.database import Row, Tx
from engine.store.definitions import (
    delete_workflow,
    get_version,
    get_workflow,
    highest_version,
    insert_version,
    insert_workflow,
    list_versions,
    update_workflow,
    workflow_names,
)
from engine.store.locks import lock_name


@dataclass(frozen=True, slots=True)
class Stored:
    """What `put` did: `created` for a new name, `changed` for a new version."""

    row: Row
    created: bool
    changed: bool


def put(tx: Tx, definition: Definition, origin: str, now: int, *, key_id: str | None = None) -> Stored:
    """Store a definition; the same text again changes nothing. Its schedules run under the API key that stores it."""
    tx.point("put_workflow")
    lock_name(tx, f"workflow:{definition.name}")
    digest = hashlib.sha256(definition.source.encode()).hexdigest()
    known = get_workflow(tx, definition.name)
    if known is not None and known["digest"] == digest:
        return Stored(known, created=False, changed=False)
    version: Row = {
        "id": new_id(),
        "name": definition.name,
        "version": highest_version(tx, definition.name) + 1,
        "digest": digest,
        "origin": origin,
        "config_yaml": definition.source,
        "created_us": now,
    }
    insert_version(tx, version)
    if known is not None:
        update_workflow(tx, definition.name, definition.source, version["id"], now)
    else:
        insert_workflow(
            tx,
            {
                "id": new_id(),
                "name": definition.name,
                "config_yaml": definition.source,
                "version_id": version["id"],
                "created_us": now,
                "updated_us": now,
            },
        )
    follow_definition(tx, definition, key_id, now)
    row = get_workflow(tx, definition.name)
    assert row is not None
    return Stored(row, created=known is None, changed=True)


def take_up(tx: Tx, definition: Definition, origin: str, now: int) -> bool:
    """Store a definition found in a folder unless its text was taken up before: what users did since then stands.

    A shipped example never replaces a workflow of the user's. Returns whether something was stored.
    """
    lock_name(tx, f"workflow:{definition.name}")
    digest = hashlib.sha256(definition.source.encode()).hexdigest()
    versions = list_versions(tx, definition.name)
    last = next((row for row in versions if row["origin"] == origin), None)
    if last is not None and last["digest"] == digest:
        return False
    if origin == "shipped" and any(row["origin"] != "shipped" for row in versions):
        return False
    return put(tx, definition, origin, now).changed


def find(tx: Tx, name: str) -> Row:
    """The newest version of a name. Raises: NotFound with the nearest names."""
    row = get_workflow(tx, name)
    if row is None:
        near = get_close_matches(name, workflow_names(tx), n=3, cutoff=0.5)
        hint = f", did you mean {' or '.join(near)}?" if near else ""
        raise NotFound("workflow_not_found", f"there is no workflow {name!r}{hint}", param="workflow")
    version = get_version(tx, row["version_id"])
    assert version is not None
    return row | {"id": version["id"], "workflow_id": row["id"]}


def remove(tx: Tx, name: str) -> None:
    """Forget a name and the schedules of its definition; runs that are pinned to its versions go on. Raises: NotFound."""
    tx.point("remove_workflow")
    lock_name(tx, f"workflow:{name}")
    find(tx, name)
    delete_workflow(tx, name)
    forget_schedules(tx, name)


def read_folder(folder: Path) -> tuple[dict[str, Definition], Mapping[str, UserError]]:
    """The definitions in a folder by file name, and the errors of the files that have mistakes."""
    definitions: dict[str, Definition] = {}
    errors: dict[str, UserError] = {}
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            definitions[path.name] = load(path.read_text(encoding="utf-8"), origin=str(path))
        except UserError as error:
            errors[path.name] = error
        except (OSError, UnicodeDecodeError) as error:
            errors[path.name] = UserError("invalid_workflow", f"{path}: cannot be read: {error}")
    return definitions, errors
