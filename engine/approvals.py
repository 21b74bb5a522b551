"""Calls of an agent that wait until somebody allows them: the signal `approve`, with the call's key and a yes or a no.

Unlike other signals none is kept for later: a yes counts for a call that can be seen, never for one that nobody has read. A no
goes back to the model as the call's result.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from engine.agent_steps import APPROVE, CALL
from engine.clock import iso
from engine.errors import Conflict, UserError
from engine.plan import Graph
from engine.run_writer import SIGNAL, Ring
from engine.states import EventType, StepStatus
from engine.store.database import Row
from engine.store.payloads import unpack
from engine.store.steps import allow_step
from engine.transition import Transition

_KEYS = ("call", "approved", "reason")


def asks_for_approval(graph: Graph) -> bool:
    """Whether an agent of the workflow has calls that wait for approval."""
    return any("approve" in step.fields for step in graph.definition.walk() if step.type == "agent")


def wait_for_approval(transition: Transition, row: Row, due_us: int | None) -> None:
    """A call waits for its approval."""
    transition.wait(row, SIGNAL + APPROVE, due=due_us)
    told = unpack(transition.tx, row["input_json"], row["input_digest"])
    data = {"for": SIGNAL + APPROVE, "tool": told["tool"], **({} if due_us is None else {"until": iso(due_us)})}
    transition.history.add(EventType.STEP_WAITING, step=row["key"], attempt=row["attempt"], data=data)


def chosen(graph: Graph, waiting: Sequence[Row], payload: Any) -> Row:
    """The waiting call that a signal means. Raises: UserError for a payload that does not fit, Conflict where no such call waits."""
    _check(payload)
    calls = {row["key"]: row for row in waiting if graph.step(row["key"]).type == CALL}
    key = payload.get("call")
    if key in calls:
        return calls[key]
    listed = ", ".join(calls) or "none"
    if key is not None:
        raise Conflict(
            "no_such_call", f"no call '{key[:300]}' waits for approval now (waiting: {listed})", param="call"
        )
    if len(calls) != 1:
        message = f"name the `call` that is meant (waiting: {listed})" if calls else "no call waits for approval now"
        raise Conflict("no_such_call", message, param="call")
    return next(iter(calls.values()))


def decide(transition: Transition, row: Row, payload: Mapping[str, Any]) -> None:
    """Let the call run, or end it with the refusal as its result."""
    if payload["approved"]:
        allow_step(transition.tx, row["id"], transition.now)
        transition.rings.append(Ring(row["id"], row["priority"]))
        return
    refuse(transition, row, payload.get("reason") or "no reason was given")


def refuse(transition: Transition, row: Row, reason: str) -> None:
    """The call is not made; the model is told why."""
    transition.end_step(row, StepStatus.SKIPPED, output=f"The call was not approved: {reason}")


def _check(payload: Any) -> None:
    example = 'such as {"call": "research[0].send_mail", "approved": true}'
    if not isinstance(payload, dict) or not isinstance(payload.get("approved"), bool):  # pyright: ignore[reportUnknownMemberType]
        message = f"the payload of '{APPROVE}' is an object with `approved`, true or false, {example}"
        raise UserError("invalid_payload", message, param="payload.approved")
    given = cast(dict[str, Any], payload)
    for name, value in given.items():
        if name not in _KEYS:
            raise UserError(
                "invalid_payload", f"`{name[:60]}` is none of {', '.join(_KEYS)}", param=f"payload.{name[:60]}"
            )
        if name != "approved" and not isinstance(value, str | None):
            raise UserError("invalid_payload", f"`{name}` has to be text", param=f"payload.{name}")
