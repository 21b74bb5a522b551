"""Signals: what people and other systems send to a run by name, and the `wait` steps that take them.

A signal that nobody waits for yet is kept. Each is taken by one step, the one that has waited longest.
"""

from typing import Any

from engine.agent_steps import APPROVE
from engine.approvals import asks_for_approval, chosen, decide
from engine.catalogue import Catalogue
from engine.clock import iso, new_id
from engine.definition import Step
from engine.errors import Conflict, Mistake, NotFound, UserError
from engine.json_schemas import violations
from engine.nearest import nearest
from engine.plan import Graph
from engine.run_writer import SIGNAL
from engine.schema_validator import checked_together
from engine.states import RUN_ENDED, EventType, StepStatus
from engine.store.database import Row, Tx
from engine.store.payloads import pack, unpack
from engine.store.runs import get_run, lock_run
from engine.store.signals import early_signals, insert_signal, take_signal
from engine.store.steps import steps_waiting_for
from engine.transition import Ring, Transition


def send(tx: Tx, catalogue: Catalogue, run_id: str, signal: tuple[str, Any], now: int) -> tuple[Row, list[Ring], bool]:
    """Give a signal, a name and its payload, to the step that waits for it, or keep it; tells also whether the run ended.

    Raises: NotFound; Conflict for a run that is over, or an approval of a call that does not wait; UserError where no step
    knows the name or the payload does not fit.
    """
    tx.point("signal")
    name, payload = signal
    run = lock_run(tx, run_id)
    if run is None:
        raise NotFound("run_not_found", f"there is no run {run_id}", param="run_id")
    if run["status"] in RUN_ENDED:
        raise Conflict("run_ended", f"the run is over ({run['status']}), nothing waits for a signal any more")
    graph = catalogue.loaded(tx, run["version_id"])
    waiting = steps_waiting_for(tx, run_id, SIGNAL + name)
    approval = name == APPROVE and asks_for_approval(graph)
    if approval:
        waiting = [chosen(graph, waiting, payload)]
    else:
        _check([graph.step(row["key"]) for row in waiting[:1]] or _listeners(graph, name), name, payload)
    transition = Transition(tx, run, graph, now)
    text, digest = pack(tx, payload, now, "payload")
    taken_by = waiting[0]["key"] if waiting else None
    row = {"id": new_id(), "run_id": run_id, "name": name, "taken_by": taken_by, "created_us": now}
    insert_signal(tx, row | {"payload_json": text, "payload_digest": digest})
    transition.history.add(EventType.SIGNAL_RECEIVED, step=taken_by, data={"signal": name})
    if approval:
        decide(transition, waiting[0], payload)
    elif waiting:
        transition.end_step(waiting[0], StepStatus.SUCCEEDED, output=payload)
    transition.close()
    fresh = get_run(tx, run_id)
    assert fresh is not None
    return fresh, transition.all_rings(), transition.ended


def listen(transition: Transition, row: Row, step: Step, name: str, due_us: int | None) -> None:
    """A step waits for a signal, or takes one that came early."""
    with checked_together():
        for early in early_signals(transition.tx, row["run_id"], name):
            payload = unpack(transition.tx, early["payload_json"], early["payload_digest"])
            if not violations(step.fields.get("schema", {}), payload):
                take_signal(transition.tx, early["id"], row["key"])
                transition.end_step(row, StepStatus.SUCCEEDED, output=payload)
                return
    transition.wait(row, SIGNAL + name, due=due_us)
    data = {"for": SIGNAL + name, **({} if due_us is None else {"until": iso(due_us)})}
    transition.history.add(EventType.STEP_WAITING, step=row["key"], attempt=row["attempt"], data=data)


def _listeners(graph: Graph, name: str) -> list[Step]:
    """The steps that will wait for that name. Raises: UserError where none can."""
    found = [step for step in graph.definition.walk() if step.type == "wait"]
    names = {step.fields["signal"] for step in found} | ({APPROVE} if asks_for_approval(graph) else set[str]())
    if name not in names and not any("${" in known for known in names):
        near = nearest(name, names)
        hint = f" (did you mean {near}?)" if near else ""
        message = f"no step of this workflow waits for a signal '{name}'{hint}"
        raise UserError("unknown_signal", message, param="name")
    return [step for step in found if step.fields["signal"] == name]


def _check(steps: list[Step], name: str, payload: Any) -> None:
    """Raises: UserError where the payload fits none of the steps."""
    mistakes: list[Mistake] = []
    with checked_together():
        for step in steps:
            found = violations(step.fields.get("schema", {}), payload)
            if not found:
                return
            mistakes = mistakes or [Mistake(f"it {message}", f"payload{where}") for where, message in found[:50]]
    if mistakes:
        message = f"the payload of '{name}' does not fit: {mistakes[0].path} {mistakes[0].message.removeprefix('it ')}"
        raise UserError("invalid_payload", message, param=mistakes[0].path, details=mistakes)
