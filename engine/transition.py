"""One transaction on one locked run: ending steps, unlocking what waited for them, ending the run.

Used by every transition (submit, claim, complete, cancel ...). The caller holds the run's row lock, which is taken before any
step's, so transitions of one run follow one another and never deadlock. `close` must be the last call.
"""

from dataclasses import dataclass
from typing import Any

from engine.clock import new_id
from engine.definition import Step
from engine.errors import AIGatewayError
from engine.expressions import render
from engine.plan import Graph, lay_out
from engine.scope import scope_of
from engine.states import AttemptStatus, ErrorClass, EventType, RunStatus, StepStatus
from engine.store.database import Row, Tx
from engine.store.events import History
from engine.store.json_text import storable
from engine.store.payloads import pack, unpack
from engine.store.runs import advance_run, end_run
from engine.store.steps import (
    STEP_COLUMNS,
    end_attempt,
    end_step,
    insert_steps,
    one_less,
    open_steps,
    set_ready,
    step_by_key,
    steps_of_run,
)
from engine.webhook_outbox import queue_webhook

MODEL_LIMIT = 200  # characters, as wide as the column

_RUN_EVENT = {
    RunStatus.SUCCEEDED: EventType.RUN_SUCCEEDED,
    RunStatus.FAILED: EventType.RUN_FAILED,
    RunStatus.CANCELLED: EventType.RUN_CANCELLED,
}
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


class Transition:
    """Collects what changes; `ended` tells whether the run came to its end."""

    def __init__(self, tx: Tx, run: Row, graph: Graph, now: int) -> None:
        self.tx = tx
        self.run = run
        self.graph = graph
        self.now = now
        self.history = History(run, now)
        self.rings: list[Ring] = []
        self.ended = False
        self._open: int = run["open_steps"]

    def add_steps(self, steps: tuple[Step, ...], parent_key: str | None, first_position: int) -> None:
        """Store one list of steps; those that wait on nothing are ready."""
        rows: list[dict[str, Any]] = []
        for new in lay_out(steps, parent_key=parent_key, first_position=first_position):
            ready = new.waiting_on == 0
            row: Row = dict.fromkeys(STEP_COLUMNS) | {
                "id": new_id(),
                "run_id": self.run["id"],
                "key": new.key,
                "type": new.type,
                "parent_key": new.parent_key,
                "position": new.position,
                "status": (StepStatus.READY if ready else StepStatus.PENDING).value,
                "priority": self.run["priority"],
                "waiting_on": new.waiting_on,
                "attempt": 0,
                "tries": 0,
                "losses": 0,
                "due_us": self.now if ready else None,
            }
            rows.append(row)
            if ready:
                self.rings.append(Ring(row["id"], row["priority"]))
        insert_steps(self.tx, rows)
        self._open += len(rows)

    def end_step(
        self,
        step: Row,
        status: StepStatus,
        *,
        output: Any = None,
        model: str | None = None,
        error: StepError | None = None,
    ) -> None:
        """Write a step's end and make ready what waited for it; the last end of a list ends its container or the run."""
        self._write_end(step, status, output, model, error)
        if status is StepStatus.FAILED and self.graph.step(step["key"]).on_error == "fail":
            assert error is not None
            self.fail_run(step["key"], error)
            return
        self._unlock(step)

    def fail_run(self, step_key: str | None, error: StepError) -> None:
        """End the run as failed; what is still open is cancelled."""
        self._cancel_open_steps()
        self._end_run(RunStatus.FAILED, step_key=step_key, error=error)

    def cancel_run(self) -> None:
        """End the run as cancelled, with all that is open."""
        self._cancel_open_steps()
        self._end_run(RunStatus.CANCELLED)

    def close(self) -> None:
        """Write the history and the run's counters."""
        self.history.write(self.tx)
        advance_run(self.tx, self.run["id"], self._open, self.history.seq)

    def reopen_steps(self, count: int) -> None:
        """Steps that had ended are open again."""
        self._open += count

    def _write_end(
        self, step: Row, status: StepStatus, output: Any, model: str | None, error: StepError | None
    ) -> None:
        text, digest = pack(self.tx, output, self.now) if output is not None else (None, None)
        end_step(
            self.tx,
            step["id"],
            status,
            self.now,
            output_json=text,
            output_digest=digest,
            model=None if model is None else storable(model)[:MODEL_LIMIT],
            error_class=error.error_class.value if error else None,
            error_message=storable(error.message) if error else None,
        )
        self._open -= 1
        data = {"class": error.error_class.value, "message": error.message} if error else None
        self.history.add(_STEP_EVENT[status], step=step["key"], attempt=step["attempt"] or None, data=data)

    def _unlock(self, step: Row) -> None:
        for key in self.graph.dependents(step["key"]):
            waiting = one_less(self.tx, self.run["id"], key)
            if waiting and waiting["waiting_on"] == 0 and waiting["status"] == StepStatus.PENDING.value:
                set_ready(self.tx, waiting["id"], self.now)
                self.rings.append(Ring(waiting["id"], waiting["priority"]))
        if step["parent_key"] is not None:
            self._child_ended(step["parent_key"])
        elif self._open == 0:
            self._succeed_run()

    def _child_ended(self, parent_key: str) -> None:
        waiting = one_less(self.tx, self.run["id"], parent_key)
        if waiting is None or waiting["waiting_on"] > 0:
            return
        parent = step_by_key(self.tx, self.run["id"], parent_key)
        assert parent is not None
        last = self._last_result(parent)
        self.end_step(parent, StepStatus.SUCCEEDED, output=last)

    def _last_result(self, parent: Row) -> Any:
        """The output of the last step that ran in the container's branch."""
        from_last = [
            row
            for row in reversed(steps_of_run(self.tx, self.run["id"]))
            if row["parent_key"] == parent["key"] and row["status"] == StepStatus.SUCCEEDED.value
        ]
        return unpack(self.tx, from_last[0]["output_json"], from_last[0]["output_digest"]) if from_last else None

    def _cancel_open_steps(self) -> None:
        for step in open_steps(self.tx, self.run["id"]):
            if step["status"] == StepStatus.RUNNING.value:
                end_attempt(self.tx, step["id"], step["attempt"], AttemptStatus.CANCELLED, self.now)
            self._write_end(step, StepStatus.CANCELLED, None, None, None)

    def _succeed_run(self) -> None:
        definition = self.graph.definition
        try:
            if definition.output is None:
                output = self._last_top_level_result()
            else:
                scope = scope_of(self.tx, self.run, self.graph, definition.output_references)
                output = render(definition.output, scope)
        except AIGatewayError as error:
            self._end_run(RunStatus.FAILED, error=StepError(ErrorClass.INVALID_OUTPUT, f"output: {error.message}"))
            return
        self._end_run(RunStatus.SUCCEEDED, output=output)

    def _last_top_level_result(self) -> Any:
        last = step_by_key(self.tx, self.run["id"], self.graph.definition.steps[-1].id)
        return unpack(self.tx, last["output_json"], last["output_digest"]) if last else None

    def _end_run(
        self,
        status: RunStatus,
        *,
        output: Any = None,
        step_key: str | None = None,
        error: StepError | None = None,
    ) -> None:
        text, digest = pack(self.tx, output, self.now) if output is not None else (None, None)
        values = {
            "status": status.value,
            "now": self.now,
            "output_json": text,
            "output_digest": digest,
            "error_step": step_key,
            "error_class": error.error_class.value if error else None,
            "error_message": storable(error.message) if error else None,
        }
        end_run(self.tx, self.run["id"], values)
        data = {"step": step_key, "class": error.error_class.value, "message": error.message} if error else None
        self.history.add(_RUN_EVENT[status], data=data)
        self.ended = True
        self.rings.clear()
        queue_webhook(self.tx, self.run["id"], f"run.{status.value}", self.now)
