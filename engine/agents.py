"""The turns of an agent: a question to its model, the calls that the answer asks for, all at once, and the next turn behind them.

A turn is a part such as `research[2]`, with a row for the question and one for each call inside it; `progress` of the part is
how many calls the answer asked for, null where it asked for none and is the agent's result. Nothing is stored twice: a question
is put together from the rows before it (`engine.agent_memory`). The tools are looked up once and stored with the agent, so
that a turn which is done again, after a crash or by a retry, offers the same ones.
"""

from collections.abc import Sequence
from typing import Any

from engine.agent_steps import MODEL, max_turns, names_of_calls, turn_of
from engine.definition import Step
from engine.money import usd_text
from engine.plan import ITERATION, NewStep, numbered
from engine.ports import ToolCall
from engine.run_writer import CHILDREN, RunWriter, StepError, Verdict
from engine.states import ErrorClass, StepStatus
from engine.store.database import Row
from engine.store.payloads import pack, unpack
from engine.store.requests import agent_sums
from engine.store.steps import set_items, set_progress, step_by_key


def begin_agent(writer: RunWriter, row: Row, tools: Sequence[Any]) -> None:
    """Store the tools and begin the first turn."""
    set_items(writer.tx, row["id"], *pack(writer.tx, list(tools), writer.now), len(tools))
    _begin_turn(writer, row, 0)


def add_calls(writer: RunWriter, row: Row, step: Step, calls: Sequence[ToolCall]) -> None:
    """The model asked for calls; `row` is the question, which is ended next. Behind the last turn nobody would read their results."""
    part = step_by_key(writer.tx, writer.run["id"], row["parent_key"])
    assert part is not None
    if turn_of(row["key"]) + 1 >= max_turns(step):
        set_progress(writer.tx, part["id"], len(calls), 1)
        return
    set_progress(writer.tx, part["id"], len(calls), 1 + len(calls))
    names = names_of_calls(call.name for call in calls)
    writer.add_rows(
        NewStep(
            key=f"{part['key']}.{name}",
            type="mcp_tool",
            parent_key=part["key"],
            position=row["position"] + 1 + number,
            waiting_on=0,
            value={"id": call.id, "name": call.name, "tool": call.tool, "arguments": call.arguments},
        )
        for number, (name, call) in enumerate(zip(names, calls, strict=True))
    )


def turn_ended(writer: RunWriter, row: Row, step: Step) -> Verdict | None:
    """The next turn, or the agent's end; `row` is the agent, whose last turn is over."""
    tx, run_id = writer.tx, writer.run["id"]
    number: int = row["progress"] or 0
    part = step_by_key(tx, run_id, numbered(row["key"], number - 1))
    if part is not None and part["progress"] is None:
        asked = step_by_key(tx, run_id, f"{part['key']}.{MODEL}")
        assert asked is not None
        return Verdict(unpack(tx, asked["output_json"], asked["output_digest"]), model=asked["model"])
    if number < max_turns(step):
        _begin_turn(writer, row, number)
        return None
    paid = usd_text(agent_sums(tx, run_id, row["key"])["cost_picousd"])
    message = f"the model still asked for tools in the last of max_turns={number} turns; {paid} USD were paid"
    return Verdict(error=StepError(ErrorClass.INVALID_OUTPUT, message))


def _begin_turn(writer: RunWriter, row: Row, number: int) -> None:
    part = writer.part(row, numbered(row["key"], number), ITERATION, number)
    part |= {"status": StepStatus.WAITING.value, "waits_for": CHILDREN, "waiting_on": 1, "started_us": writer.now}
    writer.store([part])
    asking = NewStep(f"{part['key']}.{MODEL}", "llm", part["key"], row["position"] + 1, 0)
    writer.add_rows([asking])
    set_progress(writer.tx, row["id"], number + 1, 1)
