"""What one transaction changes in one locked run: rows that are made, begin to wait, end or are cancelled, and the history of it.

Knows no rules: what follows from an end is `engine.transition`'s part, what a container does next `engine.containers`'.
The caller holds the run's row lock, which is taken before any step's, so transitions of one run follow one another and never
deadlock. `close` must be the last call.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.clock import new_id
from engine.definition import Step
from engine.plan import PARTS, Graph, NewStep, lay_out
from engine.states import AttemptStatus, ErrorClass, EventType, RunStatus, StepStatus
from engine.store.database import Row, Tx
from engine.store.events import History
from engine.store.json_text import storable
from engine.store.payloads import pack
from engine.store.places import get_place
from engine.store.runs import advance_run, begin_run, end_run, let_run_rest
from engine.store.steps import (
    STEP_COLUMNS,
    delete_step,
    end_attempt,
    end_step,
    insert_steps,
    one_less,
    open_steps,
    open_steps_inside,
    reset_step,
    set_ready,
    step_by_key,
    still_waits,
    wait_step,
)

MODEL_LIMIT = 200  # characters, as wide as the column
Kept = tuple[str | None, str | None]  # a value as rows keep it: its text, or the digest of its payload
NOTHING_KEPT: Kept = (None, None)
CHILDREN, TIMER, CHILD_RUN, SIGNAL = "children", "timer", "run", "signal:"  # what a step waits for

_STEP_EVENT = {
    StepStatus.SUCCEEDED: EventType.STEP_SUCCEEDED,
    StepStatus.FAILED: EventType.STEP_FAILED,
    StepStatus.SKIPPED: EventType.STEP_SKIPPED,
    StepStatus.CANCELLED: EventType.STEP_CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Ring:
    """A step that has become ready and wants its bell rung after the commit."""

    step_id: str
    priority: str


@dataclass(frozen=True, slots=True)
class StepError:
    """Why a step or a run failed."""

    error_class: ErrorClass
    message: str

    def columns(self) -> dict[str, str]:
        """As the tables keep it."""
        return {"error_class": self.error_class.value, "error_message": storable(self.message)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a container ends. `model` is what answered an agent."""

    output: Any = None
    error: StepError | None = None
    model: str | None = None


class RunWriter:
    """Collects what changes. `start_us`: no step is ready before."""

    def __init__(self, tx: Tx, run: Row, graph: Graph, now: int) -> None:
        self.tx = tx
        self.run: Row = run
        self.graph = graph
        self.now = now
        self.history = History(run, now)
        self.rings: list[Ring] = []
        self.rings_elsewhere: list[Ring] = []  # of other runs
        self.ended = False
        self.at_hand: dict[str, Row] = {}  # rows by key, read under the lock, of what this transition may unlock
        self._unlocked: list[Row] = []  # ready as soon as it is written
        self.last_end: tuple[str, Kept] | None = None  # the row that ended last, and its result
        self.stored = run["open_steps"], run["event_seq"]  # as the run's row has them
        self._begins = False
        self._end: Row | None = None
        self.open_count: int = run["open_steps"]
        self._quieter = False  # whether something stopped being active
        self._held_back: bool | None = None

    @property
    def held_back(self) -> bool:
        """Whether the run waits for its place: none of its steps becomes ready before it has one (`engine.places`)."""
        if self._held_back is None:
            limited = self.graph.definition.concurrency is not None
            self._held_back = limited and not self._has_place()
        return self._held_back

    def _has_place(self) -> bool:
        place = get_place(self.tx, self.run["id"])
        return place is not None and place["since_us"] is not None

    def all_rings(self) -> list[Ring]:
        """The bells to ring after the commit, those of other runs included."""
        return [*self.rings, *self.rings_elsewhere]

    def add_steps(self, steps: Sequence[Step], *, prefix: str, parent_key: str | None, first_position: int) -> None:
        """Store one list of steps; those that wait on nothing are ready, or wait for the run's start."""
        self.add_rows(lay_out(steps, prefix=prefix, parent_key=parent_key, first_position=first_position))

    def add_rows(self, laid_out: Iterable[NewStep]) -> None:
        """Store rows that have been laid out. In a run that was retried they may be there, and begin anew."""
        rows: list[Row] = []
        for new in laid_out:
            ready = new.waiting_on == 0 and new.type not in PARTS and not self.held_back
            later = ready and (self.run["start_us"] or 0) > self.now
            status = StepStatus.WAITING if later else StepStatus.READY if ready else StepStatus.PENDING
            row = self._blank(new) | {
                "status": status.value,
                "due_us": self.run["start_us"] if later else self.now if ready else None,
            }
            if new.value is not None:
                row["input_json"], row["input_digest"] = pack(self.tx, new.value, self.now)
            rows.append(row)
        self.store(rows)
        self.rings += [Ring(row["id"], row["priority"]) for row in rows if row["status"] == StepStatus.READY.value]

    def store(self, rows: Sequence[Row]) -> None:
        """Store new rows of what has not ended."""
        self.open_count += len(rows)
        if self.run["retries"]:
            rows = [row for row in rows if not self._began_anew(row)]
        if rows:
            insert_steps(self.tx, rows)

    def part(self, container: Row, key: str, kind: str, position: int, **values: Any) -> Row:
        """A row between a container and the steps inside it, not yet stored."""
        new = NewStep(key, kind, container["key"], position, 0)
        return self._blank(new) | {"status": StepStatus.PENDING.value, **values}

    def _blank(self, new: NewStep) -> Row:
        return dict.fromkeys(STEP_COLUMNS) | {
            "id": new_id(),
            "run_id": self.run["id"],
            "key": new.key,
            "type": new.type,
            "parent_key": new.parent_key,
            "position": new.position,
            "workflow_name": self.run["workflow_name"],
            "priority": self.run["priority"],
            "waiting_on": new.waiting_on,
            "attempt": 0,
            "tries": 0,
            "losses": 0,
        }

    def _began_anew(self, row: Row) -> bool:
        """Whether the step was there from before a retry, and is now as if it had never run; parts make room instead."""
        known = step_by_key(self.tx, self.run["id"], row["key"])
        if known is None:
            return False
        if known["type"] in PARTS:
            delete_step(self.tx, known["id"])
            return False
        row["id"] = known["id"]
        reset_step(self.tx, row)
        return True

    def one_less(self, key: str) -> Row | None:
        """One of the things a step waits on has ended; the row as it is then, which is written where it waits on."""
        row = self.at_hand.pop(key, None)
        if row is None:
            return one_less(self.tx, self.run["id"], key)
        row["waiting_on"] -= 1
        if row["waiting_on"] > 0 or self.held_back:
            still_waits(self.tx, row)
        return row

    def make_ready(self, row: Row) -> None:
        """The step may be claimed from now on, or as soon as the run has its place."""
        if self.held_back:
            return
        self._unlocked.append(row)
        self.rings.append(Ring(row["id"], row["priority"]))

    def take_unlocked(self) -> Row | None:
        """The one step that has become ready, for a worker that goes on with it at once: nobody else is told, nor is it written."""
        if len(self._unlocked) != 1 or len(self.rings) != 1 or self._unlocked[0]["id"] != self.rings[0].step_id:
            return None
        self.rings.clear()
        return self._unlocked.pop()

    def _write_unlocked(self) -> None:
        for row in self._unlocked:
            set_ready(self.tx, row, self.now)
        self._unlocked.clear()

    def wait(self, row: Row, waits_for: str, **values: Any) -> None:
        """Let a step wait; values as in `wait_step`. Its due time, where there is one, is a time limit or a timer."""
        wait_step(self.tx, row["id"], waits_for, **values)
        self._quieter = True

    def stays_active(self) -> None:
        """A worker has taken a step: the run does not wait, whatever else has stopped."""
        self._quieter = False

    def retry_later(self) -> None:
        """A step waits for its next attempt."""
        self._quieter = True

    def keep(self, output: Any) -> Kept:
        """Store a result. Raises: TooLarge."""
        return NOTHING_KEPT if output is None else pack(self.tx, output, self.now)

    def write_end(
        self,
        row: Row,
        status: StepStatus,
        *,
        kept: Kept = NOTHING_KEPT,
        model: str | None = None,
        error: StepError | None = None,
    ) -> None:
        """Write a row's end, with its result as `keep` gave it, and tell the history of it where it is a step."""
        self.last_end = row["key"], kept
        values = {"output_json": kept[0], "output_digest": kept[1]}
        name = None if model is None else storable(model)[:MODEL_LIMIT]
        end_step(
            self.tx, row["id"], status, self.now, model=name, **values, **(error.columns() if error else {})
        )  # fmt: skip
        self.open_count -= 1
        self._quieter = True
        if row["type"] not in PARTS:
            data = {"class": error.error_class.value, "message": error.message} if error else None
            self.history.add(_STEP_EVENT[status], step=row["key"], attempt=row["attempt"] or None, data=data)

    def cancel_open(self) -> None:
        """End all that is open in the run."""
        self._write_unlocked()
        for row in open_steps(self.tx, self.run["id"]):
            self._cancel(row)

    def cancel_inside(self, key: str) -> None:
        """End all that is open inside a container."""
        self._write_unlocked()
        pending = [key]
        while pending:
            for row in open_steps_inside(self.tx, self.run["id"], pending.pop()):
                self._cancel(row)
                pending.append(row["key"])

    def _cancel(self, row: Row) -> None:
        if row["status"] == StepStatus.RUNNING.value:
            end_attempt(self.tx, row["id"], row["attempt"], AttemptStatus.CANCELLED, self.now)
        handled = row["branch"] == "on_error" and row["error_class"] is not None
        error = StepError(ErrorClass(row["error_class"]), row["error_message"] or "") if handled else None
        self.write_end(row, StepStatus.CANCELLED, error=error)

    def begin_run(self) -> None:
        """The run is under way."""
        self._begins = True

    def end_run(self, values: Row) -> None:
        """The run is over; values as in `engine.store.runs.end_run`."""
        self._end = values
        self.ended = True
        self.rings.clear()

    def close(self) -> None:
        """Write the history and the run's own row; a run in which every open step waits is waiting."""
        self._write_unlocked()
        self.history.write(self.tx)
        run_id, counters = self.run["id"], (self.open_count, self.history.seq)
        if self._end is not None:
            end_run(self.tx, run_id, self._end, *counters)
        elif self._begins:
            begin_run(self.tx, run_id, self.now, *counters)
        elif counters != self.stored or self._may_rest():
            advance_run(self.tx, run_id, *counters, may_rest=self._may_rest())

    def _may_rest(self) -> bool:
        return self._quieter and not self.rings and self.run["status"] == RunStatus.RUNNING.value

    def settle_status(self) -> None:
        """Waiting where no step is held or to be taken."""
        let_run_rest(self.tx, self.run["id"])
