"""The steps that only think: `set` and `if`."""

from engine.expressions import condition, render
from engine.ports import Branched, Job, Outcome, Succeeded


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
