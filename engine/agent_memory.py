"""What the steps inside an agent read of each other: the conversation so far, one call, and what is left of the agent's money."""

from decimal import Decimal
from typing import Any

from engine.agent_steps import MODEL, agent_key, turn_of
from engine.definition import Step
from engine.errors import CapExceeded
from engine.money import to_picousd, usd_text
from engine.plan import PARTS, numbered
from engine.ports import Conversation, ToolCall
from engine.states import StepStatus
from engine.store.database import Row, Tx
from engine.store.json_text import dumps
from engine.store.payloads import unpack
from engine.store.requests import agent_committed_picousd
from engine.store.steps import step_by_key, steps_inside


def conversation(tx: Tx, run_id: str, key: str) -> Conversation:
    """What was said before the question of that key: answers with their calls, and the results in the order of the calls."""
    agent = step_by_key(tx, run_id, agent_key(key))
    assert agent is not None
    messages: list[dict[str, Any]] = []
    for number in range(turn_of(key)):
        for row in steps_inside(tx, run_id, numbered(agent["key"], number)):
            messages.append(_message(tx, row))
    return Conversation(unpack(tx, agent["input_json"], agent["input_digest"]), messages)


def call_of(tx: Tx, run_id: str, key: str) -> tuple[ToolCall, bool]:
    """The call that the row of that key stands for, and whether it has been approved."""
    row = step_by_key(tx, run_id, key)
    assert row is not None
    return ToolCall(**unpack(tx, row["input_json"], row["input_digest"])), row["progress"] is not None


def cap_left_picousd(tx: Tx, run_id: str, key: str, step: Step) -> int | None:
    """What is left of `max_cost_usd` for the question of that key, every open call at its worst case; None: no limit."""
    cap = step.fields.get("max_cost_usd")
    if cap is None:
        return None
    return to_picousd(Decimal(repr(cap))) - agent_committed_picousd(tx, run_id, agent_key(key))


def over_cap(tx: Tx, run_id: str, key: str, step: Step, reserve_picousd: int | None) -> CapExceeded | None:
    """Why a question may not be asked: its worst case does not fit into the agent's `max_cost_usd`."""
    left = cap_left_picousd(tx, run_id, key, step) if reserve_picousd else None
    if left is None or not reserve_picousd or reserve_picousd <= left:
        return None
    worst, cap = usd_text(reserve_picousd), step.fields["max_cost_usd"]
    return CapExceeded(
        f"the call can cost {worst} USD, of the agent's max_cost_usd {cap} only {usd_text(max(0, left))} are left"
    )


def _message(tx: Tx, row: Row) -> dict[str, Any]:
    assert row["type"] not in PARTS, "a turn holds a question and calls"
    output = unpack(tx, row["output_json"], row["output_digest"])
    if row["key"].endswith(f".{MODEL}"):
        return output
    told = unpack(tx, row["input_json"], row["input_digest"])
    if row["status"] == StepStatus.FAILED.value:
        output = f"Error: {row['error_message']}"
    text = output if isinstance(output, str) else dumps(output)
    return {"role": "tool", "tool_call_id": told["id"], "content": text}
