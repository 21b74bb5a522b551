"""Queries on workflow definitions: the newest text by name, and every version."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from engine.store.database import Row, Tx
from engine.store.statements import Statement
from engine.store.tables import workflow_versions, workflows

_BY_NAME = Statement(
    select(workflows, workflow_versions.c.version, workflow_versions.c.digest, workflow_versions.c.origin)
    .select_from(workflows.join(workflow_versions, workflow_versions.c.id == workflows.c.version_id))
    .where(workflows.c.name == bindparam("name"))
)
_NEWEST = Statement(
    select(workflow_versions.c.id, workflow_versions.c.version, workflows.c.name)
    .select_from(workflows.join(workflow_versions, workflow_versions.c.id == workflows.c.version_id))
    .where(workflows.c.name == bindparam("name"))
)
_LIST = Statement(
    select(workflows, workflow_versions.c.version, workflow_versions.c.digest, workflow_versions.c.origin)
    .select_from(workflows.join(workflow_versions, workflow_versions.c.id == workflows.c.version_id))
    .order_by(workflows.c.name)
)
_PAGE = Statement(
    select(workflows, workflow_versions.c.version, workflow_versions.c.digest, workflow_versions.c.origin)
    .select_from(workflows.join(workflow_versions, workflow_versions.c.id == workflows.c.version_id))
    .where(or_(bindparam("before") == "", workflows.c.id < bindparam("before")))
    .order_by(workflows.c.id.desc())
    .limit(bindparam("most"))
)
_NAMES = Statement(select(workflows.c.name).order_by(workflows.c.name))
_INSERT = Statement(
    insert(workflows),
    columns=("id", "name", "config_yaml", "version_id", "created_us", "updated_us"),
)
_UPDATE = Statement(
    update(workflows)
    .where(workflows.c.name == bindparam("workflow"))
    .values(config_yaml=bindparam("text"), version_id=bindparam("version"), updated_us=bindparam("now"))
)
_DELETE = Statement(delete(workflows).where(workflows.c.name == bindparam("workflow")))
_VERSION = Statement(select(workflow_versions).where(workflow_versions.c.id == bindparam("version")))
_VERSIONS = Statement(
    select(workflow_versions)
    .where(workflow_versions.c.name == bindparam("name"), workflow_versions.c.version.is_not(None))
    .order_by(workflow_versions.c.version.desc())
)
_NUMBERED = Statement(
    select(workflow_versions).where(
        workflow_versions.c.name == bindparam("name"),
        workflow_versions.c.version == bindparam("number"),
    )
)
_HIGHEST = Statement(
    select(func.max(workflow_versions.c.version).label("version")).where(workflow_versions.c.name == bindparam("name"))
)
_INSERT_VERSION = Statement(insert(workflow_versions), columns=tuple(column.name for column in workflow_versions.c))


class _NewestVersions:
    """As a transaction has found them."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._found: dict[str, Row | None] = {}

    def of(self, name: str) -> Row | None:
        """`newest_version`, asked once."""
        if name not in self._found:
            self._found[name] = newest_version(self._tx, name)
        return self._found[name]


def get_workflow(tx: Tx, name: str) -> Row | None:
    """The newest text of a name, with version, digest and origin."""
    return tx.one(_BY_NAME, {"name": name})


def newest_version(tx: Tx, name: str) -> Row | None:
    """id, version and name of the newest version of a name, without its text."""
    return tx.one(_NEWEST, {"name": name})


def newest_version_for_all(tx: Tx, name: str) -> Row | None:
    """The same, asked once for all who share the commit: they were all there before it began, and are answered when it has ended."""
    return tx.kept(_NewestVersions).of(name)


def list_workflows(tx: Tx) -> list[Row]:
    """All, by name."""
    return tx.all(_LIST)


def page_of_workflows(tx: Tx, before: str | None, most: int) -> list[Row]:
    """Newest first: as their names were first stored."""
    return tx.all(_PAGE, {"before": before or "", "most": most})


def workflow_names(tx: Tx) -> list[str]:
    """All names."""
    return [row["name"] for row in tx.all(_NAMES)]


def insert_workflow(tx: Tx, row: Mapping[str, Any]) -> None:
    """A new name."""
    tx.run(_INSERT, row)


def update_workflow(tx: Tx, name: str, text: str, version_id: str, now: int) -> None:
    """A new text for a name."""
    tx.run(_UPDATE, {"workflow": name, "text": text, "version": version_id, "now": now})


def delete_workflow(tx: Tx, name: str) -> bool:
    """Forget a name; its versions stay for the runs that are pinned to them."""
    return tx.run(_DELETE, {"workflow": name}) == 1


def get_version(tx: Tx, version_id: str) -> Row | None:
    """One version by id."""
    return tx.one(_VERSION, {"version": version_id})


def numbered_version(tx: Tx, name: str, number: int) -> Row | None:
    """One version by name and number."""
    return tx.one(_NUMBERED, {"name": name, "number": number})


def list_versions(tx: Tx, name: str) -> list[Row]:
    """All versions of a name, newest first."""
    return tx.all(_VERSIONS, {"name": name})


def highest_version(tx: Tx, name: str) -> int:
    """The highest number given so far, 0 where there is none."""
    row = tx.one(_HIGHEST, {"name": name})
    return int(row["version"]) if row and row["version"] is not None else 0


def insert_version(tx: Tx, row: Mapping[str, Any]) -> None:
    """A new version."""
    tx.run(_INSERT_VERSION, row)
