"""How the system stands at this moment, for metrics and the dashboard: runs, queue, deliveries, processes."""

from dataclasses import dataclass

from sqlalchemy import bindparam, func, select

from engine.states import RunStatus, StepStatus
from engine.store.database import Row, Tx
from engine.store.runs import count_runs
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
_DELIVERIES = Statement(select(deliveries.c.status, func.count().label("number")).group_by(deliveries.c.status))


@dataclass(frozen=True, slots=True)
class Queue:
    """Steps that a worker may claim now: their number by priority, and since when the oldest has been waiting."""

    depth: dict[str, int]
    oldest_us: int | None


@dataclass(frozen=True, slots=True)
class Gauges:
    """All of it. `runs`: rows of workflow_name, status, number."""

    runs: list[Row]
    steps: dict[str, int]
    queue: Queue
    deliveries: dict[str, int]
    workers: int


def read_queue(tx: Tx, now: int) -> Queue:
    """Steps of a paused run are not in the queue: nobody may claim them."""
    rows = tx.all(_QUEUE, {"now": now})
    depth = {row["priority"]: int(row["number"]) for row in rows}
    return Queue(depth, min((row["oldest_us"] for row in rows), default=None))


def read_gauges(tx: Tx, now: int) -> Gauges:
    """One moment of the database."""
    return Gauges(
        runs=count_runs(tx),
        steps={row["status"]: int(row["number"]) for row in count_open_steps(tx)},
        queue=read_queue(tx, now),
        deliveries={row["status"]: int(row["number"]) for row in tx.all(_DELIVERIES)},
        workers=count_workers(tx, now),
    )
