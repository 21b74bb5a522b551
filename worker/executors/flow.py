"""The steps that only think: they make a value, or say which steps run next. What follows is the engine's to do."""

import re
from typing import Any

from engine.durations import parse_duration, parse_instant_us
from engine.errors import UserError
from engine.expressions import condition, render
from engine.keys import MAX_ITEMS, SIGNAL_PATTERN, WORKFLOW
from engine.plain_values import accepted, shown_expression
from engine.ports import Branched, Calling, Job, Listening, Opened, Outcome, Sleeping, StepExecutor, Succeeded
from engine.values import Bounds, is_list, to_text, type_name


class SetExecutor:
    """engine.ports.StepExecutor for `set`."""

    async def execute(self, job: Job) -> Outcome:
        """Raises: ExpressionError."""
        return Succeeded(render(job.step.fields["value"], job.scope))


class IfExecutor:
    """engine.ports.StepExecutor for `if`."""

    async def execute(self, job: Job) -> Outcome:
        """Raises: ExpressionError."""
        name = "then" if condition(job.step.fields["condition"], job.scope) else "else"
        return Branched(name if name in job.step.branches else None)


class SwitchExecutor:
    """engine.ports.StepExecutor for `switch`."""

    async def execute(self, job: Job) -> Outcome:
        """A case is chosen by the value's text. Raises: ExpressionError."""
        case = f"cases.{to_text(render(job.step.fields['value'], job.scope), Bounds())}"
        name = case if case in job.step.branches else "default"
        return Branched(name if name in job.step.branches else None)


class ForeachExecutor:
    """engine.ports.StepExecutor for `foreach`."""

    async def execute(self, job: Job) -> Outcome:
        """Raises: ExpressionError; UserError where there is no list, or too long a one."""
        written: Any = job.step.fields["items"]
        items: Any = render(written, job.scope)
        if not is_list(items):
            raise UserError(
                "invalid_value", f"{shown_expression(written)}items has to be a list, not {type_name(items)}"
            )
        if len(items) > MAX_ITEMS:
            raise UserError(
                "invalid_value",
                f"{shown_expression(written)}items may hold at most {MAX_ITEMS} entries, it holds {len(items)}",
            )
        return Opened(list(items))


class OpeningExecutor:
    """engine.ports.StepExecutor for `parallel` and `while`, which open without a value of their own."""

    async def execute(self, job: Job) -> Outcome:
        """Never raises."""
        return Opened()


class SleepExecutor:
    """engine.ports.StepExecutor for `sleep`."""

    async def execute(self, job: Job) -> Outcome:
        """Raises: ExpressionError; UserError for what is no duration or time."""
        fields = job.step.fields
        name = "duration" if "duration" in fields else "until"
        value = render(fields[name], job.scope)
        try:
            if name == "duration":
                return Sleeping(seconds=parse_duration(value))
            return Sleeping(until_us=parse_instant_us(value if isinstance(value, str) else ""))
        except ValueError as error:
            message = f"{shown_expression(fields[name])}{name}, here {type_name(value)}: {error}"
            raise UserError("invalid_value", message) from error


class WaitExecutor:
    """engine.ports.StepExecutor for `wait`."""

    async def execute(self, job: Job) -> Outcome:
        """Raises: ExpressionError; UserError for what is no signal's name."""
        written = job.step.fields["signal"]
        name = to_text(render(written, job.scope), Bounds())
        if not re.fullmatch(SIGNAL_PATTERN, name):
            message = f"{shown_expression(written)}a signal's name has 1 to 100 characters of a-z, A-Z, 0-9, _, . and -"
            raise UserError("invalid_value", message)
        return Listening(name)


class WorkflowExecutor:
    """engine.ports.StepExecutor for `workflow`."""

    async def execute(self, job: Job) -> Outcome:
        """Raises: ExpressionError; UserError for an input that is no object."""
        fields, span = job.step.fields, job.call_scope.span
        given = accepted(WORKFLOW.keys, fields, {"input": render(fields.get("input"), job.scope)})
        return Calling(fields["workflow"], given.get("input", {}), None if span is None else span.context)


def flow_executors() -> dict[str, StepExecutor]:
    """All of them by step type."""
    opening = OpeningExecutor()
    return {
        "set": SetExecutor(),
        "if": IfExecutor(),
        "switch": SwitchExecutor(),
        "foreach": ForeachExecutor(),
        "parallel": opening,
        "while": opening,
        "sleep": SleepExecutor(),
        "wait": WaitExecutor(),
        "workflow": WorkflowExecutor(),
    }
