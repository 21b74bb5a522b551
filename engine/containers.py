"""What containers do: open with their items, branches or first iteration, and go on or end when what was inside has ended.

Each rule answers with a verdict: an end, with its value or its error, or None while the container goes on. The ends themselves
are written by `engine.transition`. Nothing here looks at more rows than it changes, so that 10,000 items take linear time;
only an end reads all results.
"""

from collections.abc import Sequence
from typing import Any, cast

from engine.agent_steps import AGENT
from engine.agents import begin_agent, turn_ended
from engine.definition import Step
from engine.errors import AIGatewayError
from engine.expressions import condition, render
from engine.keys import HANDLERS
from engine.plan import BRANCH, ITEM, ITERATION, lay_out, numbered, prefix_of
from engine.run_writer import CHILDREN, RunWriter, StepError, Verdict
from engine.scope import scope_inside
from engine.states import ErrorClass, StepStatus
from engine.store.database import Row
from engine.store.payloads import pack, unpack
from engine.store.steps import set_items, set_progress, step_by_key, steps_inside

DEFAULT_CONCURRENCY = 10
BATCH = 1000  # rows of items that are made at once; each batch reads the whole list of items once


def open_branch(writer: RunWriter, row: Row, step: Step, branch: str, **values: Any) -> Verdict | None:
    """Run one list of steps that shares the names around the step."""
    steps = step.branches.get(branch, ())
    if not steps:
        return Verdict()
    writer.wait(row, CHILDREN, branch=branch, children=len(steps), **values)
    prefix = prefix_of(row["key"])
    writer.add_steps(steps, prefix=prefix, parent_key=row["key"], first_position=row["position"] + 1)
    return None


def open_parts(
    writer: RunWriter, row: Row, step: Step, items: Sequence[Any] | None, due_us: int | None
) -> Verdict | None:
    """Begin a foreach (with its items), a parallel, a while or an agent (with its tools)."""
    writer.wait(row, CHILDREN, due=due_us)
    if step.type == AGENT:
        begin_agent(writer, row, items or [])
        return None
    if step.type == "parallel":
        return _open_branches(writer, row, step)
    if step.type == "while":
        return _next_iteration(writer, row, step, 0)
    items = items or []
    set_items(writer.tx, row["id"], *pack(writer.tx, items, writer.now, "items"), len(items))
    opened = row | {"size": len(items), "progress": 0, "waiting_on": len(items)}
    concurrency = step.fields.get("concurrency", DEFAULT_CONCURRENCY)
    if not items:
        return Verdict(output=[])
    _start_items(writer, opened, step, min(concurrency, len(items)), items)
    return None


def part_value(writer: RunWriter, part: Row, step: Step) -> Verdict:
    """What an item, an iteration or a branch comes to: `collect`, or else the output of the last step of its list."""
    if step.type == AGENT:
        return Verdict()  # a turn's results are those of its question and calls
    branch = part["branch"] or "steps"
    if "collect" in step.fields:
        try:
            scope = scope_inside(writer.tx, writer.run, writer.graph, step.inner_reads, f"{part['key']}.")
            return Verdict(render(step.fields["collect"], scope))
        except AIGatewayError as error:
            return Verdict(error=StepError(ErrorClass.INVALID_REQUEST, f"collect: {error.message}"))
    last = step_by_key(writer.tx, writer.run["id"], f"{part['key']}.{step.branches[branch][-1].id}")
    return Verdict(_output(writer, last))


def child_ended(writer: RunWriter, row: Row, step: Step) -> Verdict | None:
    """One of the things inside a container has ended; `row` is the container as it stands now."""
    if step.type == "foreach" and row["branch"] is None:
        return _item_ended(writer, row, step)
    if row["waiting_on"] > 0:
        return None
    if step.type == AGENT and row["branch"] is None:
        return turn_ended(writer, row, step)
    if step.type == "while" and row["branch"] is None:
        return _next_iteration(writer, row, step, row["progress"] or 0)
    if step.type == "parallel" and row["branch"] is None:
        parts = steps_inside(writer.tx, writer.run["id"], row["key"])
        return Verdict({_name(part["branch"]): _output(writer, part) for part in parts if part["type"] == BRANCH})
    return Verdict(_last_that_ran(writer, row, step))


def _open_branches(writer: RunWriter, row: Row, step: Step) -> None:
    for position, (branch, steps) in enumerate(_parallel_branches(step)):
        key = f"{row['key']}.{_name(branch)}"
        _begin_part(writer, row, writer.part(row, key, BRANCH, position, branch=branch), steps)
    set_progress(writer.tx, row["id"], len(step.branches), len(_parallel_branches(step)))


def _parallel_branches(step: Step) -> list[tuple[str, tuple[Step, ...]]]:
    return [(branch, steps) for branch, steps in step.branches.items() if branch.startswith("branches.")]


def _name(branch: str) -> str:
    return branch.removeprefix("branches.")


def _next_iteration(writer: RunWriter, row: Row, step: Step, number: int) -> Verdict | None:
    """Begin iteration `number`, or end the while with what its iterations came to."""
    before = numbered(row["key"], number - 1)  # no such row before the first: all names are null
    if number < step.fields["max_iterations"]:
        try:
            scope = scope_inside(writer.tx, writer.run, writer.graph, step.inner_reads, f"{before}.")
            if condition(step.fields["condition"], scope | {"index": number}):
                _begin_iteration(writer, row, step, number)
                return None
        except AIGatewayError as error:
            return Verdict(error=StepError(ErrorClass.INVALID_REQUEST, f"condition: {error.message}"))
    if "collect" in step.fields:
        parts = steps_inside(writer.tx, writer.run["id"], row["key"])
        ended = [part for part in parts if part["type"] == ITERATION and part["position"] < number]
        return Verdict([_output(writer, part) for part in ended])
    return Verdict(_output(writer, step_by_key(writer.tx, writer.run["id"], before)))


def _begin_iteration(writer: RunWriter, row: Row, step: Step, number: int) -> None:
    part = writer.part(row, numbered(row["key"], number), ITERATION, number)
    _begin_part(writer, row, part, step.branches["steps"])
    set_progress(writer.tx, row["id"], number + 1, 1)


def _begin_part(writer: RunWriter, row: Row, part: Row, steps: Sequence[Step]) -> None:
    part |= {"status": StepStatus.WAITING.value, "waits_for": CHILDREN, "waiting_on": len(steps)}
    part["started_us"] = writer.now
    writer.store([part])
    writer.add_steps(steps, prefix=f"{part['key']}.", parent_key=part["key"], first_position=row["position"] + 1)


def _item_ended(writer: RunWriter, row: Row, step: Step) -> Verdict | None:
    if row["waiting_on"] == 0:
        parts = steps_inside(writer.tx, writer.run["id"], row["key"])
        return Verdict(
            [_output(writer, part) for part in parts if part["type"] == ITEM and part["position"] < row["size"]]
        )
    if row["progress"] < row["size"]:
        _start_items(writer, row, step, 1, None)
    return None


def _start_items(writer: RunWriter, row: Row, step: Step, count: int, items: Sequence[Any] | None) -> None:
    """Start the next items, of which the rows are made batch by batch."""
    first: int = row["progress"]
    steps = step.branches["steps"]
    for number in range(first, first + count):
        if number % BATCH == 0:
            items = unpack(writer.tx, row["input_json"], row["input_digest"]) if items is None else items
            _make_items(writer, row, number, cast(Sequence[Any], items))
        key = numbered(row["key"], number)
        part = step_by_key(writer.tx, writer.run["id"], key)
        assert part is not None
        writer.wait(part, CHILDREN, children=len(steps))
        writer.add_rows(lay_out(steps, prefix=f"{key}.", parent_key=key, first_position=row["position"] + 1))
    set_progress(writer.tx, row["id"], first + count, row["waiting_on"])


def _make_items(writer: RunWriter, row: Row, first: int, items: Sequence[Any]) -> None:
    made: list[Row] = []
    for number in range(first, min(first + BATCH, len(items))):
        text, digest = pack(writer.tx, items[number], writer.now)
        key = numbered(row["key"], number)
        made.append(writer.part(row, key, ITEM, number, input_json=text, input_digest=digest))
    writer.store(made)


def _last_that_ran(writer: RunWriter, row: Row, step: Step) -> Any:
    """The output of the last step that ran in the branch that a step chose."""
    prefix = prefix_of(row["key"])
    keys = [prefix + inner.id for inner in step.branches[row["branch"]]]
    rows = [found for key in keys if (found := step_by_key(writer.tx, writer.run["id"], key)) is not None]
    ran = [found for found in rows if found["status"] == StepStatus.SUCCEEDED.value or found["branch"] == HANDLERS[0]]
    return _output(writer, max(ran, key=_order)) if ran else None


def _order(row: Row) -> tuple[int, int]:
    return row["started_us"] or 0, row["position"]


def _output(writer: RunWriter, row: Row | None) -> Any:
    return None if row is None else unpack(writer.tx, row["output_json"], row["output_digest"])
