"""Queries on steps that may be claimed, by workflow. What they cost does not grow with how many are ready."""

from sqlalchemy import bindparam, func, select, text

from engine.states import Priority
from engine.store.database import Row, Tx
from engine.store.partial_index import READY, SUSPECT_LOSSES
from engine.store.statements import Statement, one_of
from engine.store.tables import runs, steps

_CLAIMABLE_RUNS = ["queued", "running", "waiting"]


def _workflows() -> Statement:
    """Jumps from name to name by their index."""
    ready = (text(READY), steps.c.priority == bindparam("priority"))
    name = func.min(steps.c.workflow_name)
    names = select(name.label("name")).where(*ready, steps.c.workflow_name > bindparam("after"))
    found = names.cte("names", recursive=True)
    following = select(name).where(*ready, steps.c.workflow_name > found.c.name).scalar_subquery()
    found = found.union_all(select(following).where(found.c.name.is_not(None)))
    return Statement(select(found.c.name).where(found.c.name.is_not(None)).limit(bindparam("most")))


_WORKFLOWS = _workflows()
_OF_WORKFLOW = Statement(
    select(steps.c.id, steps.c.priority)
    .select_from(steps.join(runs, runs.c.id == steps.c.run_id))
    .where(
        text(READY.replace("status", "steps.status")),
        steps.c.priority == bindparam("priority"),
        steps.c.workflow_name == bindparam("workflow"),
        steps.c.losses < SUSPECT_LOSSES,  # those wait for a process of their own
        one_of(runs.c.status, _CLAIMABLE_RUNS),
    )
    .order_by(steps.c.due_us)
    .limit(bindparam("most"))
)


def workflows_with_ready_steps(tx: Tx, priority: str, after: str, most: int) -> list[str]:
    """Names behind `after`, in their order."""
    return [row["name"] for row in tx.all(_WORKFLOWS, {"priority": priority, "after": after, "most": most})]


def ready_steps_of(tx: Tx, priority: str, workflow: str, most: int) -> list[str]:
    """Ids of a workflow's steps that may be claimed, oldest first."""
    return [row["id"] for row in tx.all(_OF_WORKFLOW, {"priority": priority, "workflow": workflow, "most": most})]


def urgent_steps(tx: Tx, most: int) -> list[Row]:
    """id, priority of steps that may be claimed, of all classes but the last: some of each workflow, its oldest."""
    found: list[Row] = []
    for priority in (Priority.HIGH, Priority.NORMAL):
        names = workflows_with_ready_steps(tx, priority, "", most)
        for name in names:
            found += tx.all(_OF_WORKFLOW, {"priority": priority, "workflow": name, "most": max(1, most // len(names))})
    return found
