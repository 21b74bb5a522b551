"""One transaction on one locked run: ending steps, unlocking what waited for them, ending the run.

Used by every transition (submit, claim, complete, cancel ...). The caller holds the run's row lock. `close` must be the last call.
A failure goes outwards to the first thing that catches it (`engine.plan.catches`); where nothing does, the run fails. Behind the
main steps come `on_failure` and `finally`, each a phase of the run.
"""

from collections.abc import Sequence
from typing import Any

from engine.containers import child_ended, open_branch, open_parts, part_value
from engine.definition import Step
from engine.errors import AIGatewayError, TooLarge
from engine.expressions import render
from engine.places import leave_line
from engine.plan import FINALLY, ON_FAILURE, PARTS, Graph, catches
from engine.run_writer import NOTHING_KEPT, Kept, Ring, RunWriter, StepError, Verdict
from engine.scope import scope_of
from engine.states import ErrorClass, EventType, RunStatus, StepStatus
from engine.store.database import Row, Tx
from engine.store.json_text import storable
from engine.store.payloads import unpack
from engine.store.runs import begin_phase, set_run_output
from engine.store.steps import step_by_key
from engine.webhook_outbox import queue_webhook

__all__ = ["Ring", "StepError", "Transition"]

AT_HAND = (
    4  # steps that wait for one that ends are read with it, in one round trip; where they are many, the rest one by one
)

_RUN_EVENT = {
    RunStatus.SUCCEEDED: EventType.RUN_SUCCEEDED,
    RunStatus.FAILED: EventType.RUN_FAILED,
    RunStatus.CANCELLED: EventType.RUN_CANCELLED,
}


class Transition(RunWriter):
    """Collects what changes; `ended` tells whether the run came to its end."""

    def __init__(self, tx: Tx, run: Row, graph: Graph, now: int) -> None:
        super().__init__(tx, dict(run), graph, now)
        self._told: str | None = None  # to whom the run's submission names, of its end

    def begin(self) -> None:
        """The first steps of a new run."""
        self.add_steps(self.graph.definition.steps, prefix="", parent_key=None, first_position=0)

    def end_step(
        self,
        step: Row,
        status: StepStatus,
        *,
        output: Any = None,
        kept: Kept | None = None,
        model: str | None = None,
        error: StepError | None = None,
    ) -> None:
        """Write a step's end and make ready what waited for it; the last end of a list ends its container or the run.

        `kept` is the output where it is stored already. One that is too large to be stored fails the step.
        """
        if status is StepStatus.FAILED:
            assert error is not None
            self._fail(step, error)
            return
        kept = self._kept(step, output) if kept is None else kept
        if kept is not None:
            self.write_end(step, status, kept=kept, model=model)
            self._unlock(step)

    def _kept(self, row: Row, output: Any) -> Kept | None:
        """The stored result; None where it is too large, and the row has failed with that."""
        try:
            return self.keep(output)
        except TooLarge as error:
            self.cancel_inside(row["key"])
            self._fail(row, StepError(ErrorClass.INVALID_OUTPUT, error.message))
            return None

    def branch(self, row: Row, step: Step, branch: str | None, due_us: int | None = None) -> None:
        """A step runs the steps of one of its branches; None: of none, and succeeds with null."""
        verdict = Verdict() if branch is None else open_branch(self, row, step, branch, due=due_us)
        self._judge(row, verdict)

    def open(self, row: Row, step: Step, items: list[Any] | None, due_us: int | None) -> None:
        """A foreach, a parallel, a while or an agent begins."""
        try:
            verdict = open_parts(self, row, step, items, due_us)
        except TooLarge as error:
            verdict = Verdict(error=StepError(ErrorClass.INVALID_OUTPUT, error.message))
        self._judge(row, verdict)

    def fail_unloadable(self) -> bool:
        """End a run whose definition this release cannot load, with that reason; tells whether it is one."""
        if self.graph.problem is None:
            return False
        self.fail_run(None, StepError(ErrorClass.INTERNAL, self.graph.problem))
        return True

    def fail_run(self, step_key: str | None, error: StepError) -> None:
        """What is still open is cancelled; then come `on_failure` and `finally`, where there are any, and the end."""
        self.cancel_open()
        self.rings.clear()
        if self.run["error_class"] is None:
            self.run |= {"error_step": step_key, **error.columns()}
        definition = self.graph.definition
        if self.held_back:
            self._end_run(RunStatus.FAILED)  # it never had its place: nothing of it may run
        elif self.run["phase"] is None and definition.on_failure:
            self._begin_phase(ON_FAILURE, definition.on_failure)
        elif self.run["phase"] != FINALLY and definition.finally_:
            self._begin_phase(FINALLY, definition.finally_)
        else:
            self._end_run(RunStatus.FAILED)

    def cancel_run(self) -> None:
        """End the run as cancelled, with all that is open."""
        self.cancel_open()
        self.run |= dict.fromkeys(("error_step", "error_class", "error_message"))
        self._end_run(RunStatus.CANCELLED)

    def reopen_steps(self, count: int) -> None:
        """Steps that had ended are open again."""
        self.open_count += count

    def recheck(self, rows: Sequence[Row]) -> None:
        """Containers that wait for nothing any more, the innermost first: what comes next in them is asked again."""
        for row in sorted(rows, key=lambda each: -each["key"].count(".")):
            if row["waiting_on"] == 0 and not self.ended:
                self._next_in(row)

    def close(self) -> None:
        """See RunWriter; what tells of the run's end shows it as it then is."""
        super().close()
        if self._told is not None:
            queue_webhook(self.tx, self.run, self._told, self.now)

    def _fail(self, row: Row, error: StepError) -> None:
        """End what catches the failure; everything between it and the failed step is cancelled."""
        failed_key = row["key"]
        catcher: Row | None = row
        while catcher is not None:
            step = self.graph.step(catcher["key"])
            if catches(step, catcher["type"], catcher["branch"]):
                break
            parent = catcher["parent_key"]
            catcher = None if parent is None else step_by_key(self.tx, self.run["id"], parent)
        if catcher is not row and row["type"] not in PARTS:
            self.write_end(row, StepStatus.FAILED, error=error)
        if catcher is None:
            self.fail_run(failed_key, error)
            return
        self._catch(catcher, error)

    def _catch(self, row: Row, error: StepError) -> None:
        self.cancel_inside(row["key"])
        step = self.graph.step(row["key"])
        if row["type"] not in PARTS and step.on_error == "steps":
            self._tell_waiting(row, error)
            self._judge(row, open_branch(self, row, step, "on_error", **error.columns()))
            return
        self.write_end(row, StepStatus.FAILED, error=error)
        self._unlock(row)

    def _tell_waiting(self, row: Row, error: StepError) -> None:
        data = {"class": error.error_class.value, "message": error.message, "branch": "on_error"}
        self.history.add(EventType.STEP_WAITING, step=row["key"], attempt=row["attempt"] or None, data=data)

    def _judge(self, row: Row, verdict: Verdict | None) -> None:
        """End a container as its rule says."""
        if verdict is None:
            return
        if verdict.error is not None:
            self.cancel_inside(row["key"])
            self._fail(row, verdict.error)
        elif row["branch"] == "on_error" and row["type"] not in PARTS:
            error = StepError(ErrorClass(row["error_class"]), row["error_message"])
            kept = self._kept(row, verdict.output)
            if kept is not None:
                self.write_end(row, StepStatus.FAILED, kept=kept, error=error)
                self._unlock(row)
        else:
            self.end_step(row, StepStatus.SUCCEEDED, output=verdict.output, model=verdict.model)

    def _unlock(self, step: Row) -> None:
        for key in () if step["type"] in PARTS else self.graph.dependents(step["key"]):
            waiting = self.one_less(key)
            if waiting and waiting["waiting_on"] == 0 and waiting["status"] == StepStatus.PENDING.value:
                self.make_ready(waiting)
        if step["parent_key"] is not None:
            self._child_ended(step["parent_key"])
        elif self.open_count == 0:
            self._phase_ended()

    def _child_ended(self, parent_key: str) -> None:
        parent = self.one_less(parent_key)
        if parent is not None:
            self._next_in(parent)

    def _next_in(self, row: Row) -> None:
        step = self.graph.step(row["key"])
        if row["type"] not in PARTS:
            self._judge(row, child_ended(self, row, step))
        elif row["waiting_on"] == 0:
            self._judge(row, part_value(self, row, step))

    def _phase_ended(self) -> None:
        definition = self.graph.definition
        if self.run["phase"] is None and not self._keep_output():
            return
        if self.run["phase"] != FINALLY and definition.finally_:
            self._begin_phase(FINALLY, definition.finally_)
        else:
            self._end_run(RunStatus.SUCCEEDED if self.run["error_class"] is None else RunStatus.FAILED)

    def _keep_output(self) -> bool:
        """The main steps have succeeded: render the output. False where that failed, and the run with it."""
        definition = self.graph.definition
        try:
            text, digest = self._last_top_level_result() if definition.output is None else self._rendered_output()
        except AIGatewayError as error:
            self.fail_run(None, StepError(ErrorClass.INVALID_OUTPUT, f"output: {error.message}"))
            return False
        self.run |= {"output_json": text, "output_digest": digest}
        return True

    def _rendered_output(self) -> Kept:
        definition = self.graph.definition
        return self.keep(render(definition.output, scope_of(self.tx, self.run, self.graph, definition.output_reads)))

    def _last_top_level_result(self) -> Kept:
        key = self.graph.definition.steps[-1].id
        if self.last_end is not None and self.last_end[0] == key:
            return self.last_end[1]  # it is what ended just now
        last = step_by_key(self.tx, self.run["id"], key)
        return self.keep(unpack(self.tx, last["output_json"], last["output_digest"])) if last else NOTHING_KEPT

    def _begin_phase(self, phase: str, steps: tuple[Step, ...]) -> None:
        self.run["phase"] = phase
        begin_phase(self.tx, self.run, phase)
        set_run_output(self.tx, self.run["id"], self.run["output_json"], self.run["output_digest"])
        position = sum(len(each) for each in (self.graph.definition.steps, self.graph.definition.on_failure))
        self.add_steps(steps, prefix="", parent_key=None, first_position=position)

    def _end_run(self, status: RunStatus) -> None:
        run = self.run
        kept = status is RunStatus.SUCCEEDED
        values = {
            "status": status.value,
            "now": self.now,
            "output_json": run["output_json"] if kept else None,
            "output_digest": run["output_digest"] if kept else None,
            **{name: run[name] for name in ("error_step", "error_class", "error_message")},
        }
        self.end_run(values)
        if self.graph.definition.concurrency is not None or self.graph.problem is not None:
            self.rings_elsewhere += leave_line(self.tx, run["id"], self.now)
        data = None
        if run["error_class"] is not None:
            data = {"step": run["error_step"], "class": run["error_class"], "message": storable(run["error_message"])}
        self.history.add(_RUN_EVENT[status], data=data)
        self._told = f"run.{status.value}"
