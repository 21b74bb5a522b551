"""How the system stands at this moment, for metrics and the dashboard: runs, queue, deliveries, processes."""

from dataclasses import dataclass

from sqlalchemy import bindparam, func, select

from engine.states import RunStatus, StepStatus
from engine.store.database import Tx
from engine.store.statements import Statement, one_of
from engine.store.steps import count_open_steps
from engine.store.tables import deliveries, runs, steps
from engine.store.workers import count_workers

_GOING_ON = [status.value for status in (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING)]
_QUEUE = Statement(
    select(steps.c.priority, func.count().label("number"), func.min(steps.c.due_us).label("oldest_us"))
    .select_from(steps.join(runs, runs.c.id == steps.c.run_id))
    .where(
        steps.c.status == StepStatus.READY.value, steps.c.due_us <= bindparam("now"), one_of(runs.c.status, _GOING_ON)
    )
    .group_by(steps.c.priority)
)
# Counting by workflow and status reads every row of a large table. Both of these are answered from an index, but for the
# runs that did not succeed, of which there are few: those that did are the difference.
_RUNS = Statement(select(runs.c.workflow_name, func.count().label("number")).group_by(runs.c.workflow_name))
_NOT_SUCCEEDED = Statement(
    select(runs.c.workflow_name, runs.c.status, func.count().label("number"))
    .where(one_of(runs.c.status, [status.value for status in RunStatus if status != RunStatus.SUCCEEDED]))
    .group_by(runs.c.workflow_name, runs.c.status)
)
_DELIVERIES = Statement(select(deliveries.c.status, func.count().label("number")).group_by(deliveries.c.status))


@dataclass(frozen=True, slots=True)
class Queue:
    """Steps that a worker may claim now: their number by priority, and since when the oldest has been waiting."""

    depth: dict[str, int]
    oldest_us: int | None


@dataclass(frozen=True, slots=True)
class Gauges:
    """All of it. `runs` by workflow and status."""

    runs: dict[tuple[str, str], int]
    steps: dict[str, int]
    queue: Queue
    deliveries: dict[str, int]
    workers: int


def runs_by_status(tx: Tx) -> dict[tuple[str, str], int]:
    """Number of runs by workflow and status; tx must see one moment of the database, as every reading one does."""
    counts = {(row["workflow_name"], row["status"]): int(row["number"]) for row in tx.all(_NOT_SUCCEEDED)}
    others: dict[str, int] = {}
    for (workflow, _), number in counts.items():
        others[workflow] = others.get(workflow, 0) + number
    for row in tx.all(_RUNS):
        succeeded = int(row["number"]) - others.get(row["workflow_name"], 0)
        if succeeded:
            counts[row["workflow_name"], RunStatus.SUCCEEDED.value] = succeeded
    return counts


def read_queue(tx: Tx, now: int) -> Queue:
    """Steps of a paused run are not in the queue: nobody may claim them."""
    rows = tx.all(_QUEUE, {"now": now})
    depth = {row["priority"]: int(row["number"]) for row in rows}
    return Queue(depth, min((row["oldest_us"] for row in rows), default=None))


def read_gauges(tx: Tx, now: int) -> Gauges:
    """One moment of the database."""
    return Gauges(
        runs=runs_by_status(tx),
        steps={row["status"]: int(row["number"]) for row in count_open_steps(tx)},
        queue=read_queue(tx, now),
        deliveries={row["status"]: int(row["number"]) for row in tx.all(_DELIVERIES)},
        workers=count_workers(tx, now),
    )
