"""One attempt of a step in a trace, whichever process runs it, and what becomes of it."""

from engine.agent_steps import ASK, agent_key, turn_of
from engine.attempts import Claimed
from engine.ports import AskedForTools, Failed, Outcome, OverBudget, Skipped, Succeeded, Throttled
from engine.states import ErrorClass
from engine.tracing import Span, Tracer, context_of_run


def begin_span(tracer: Tracer, held: Claimed) -> Span:
    """Below the request that submitted the run, or the step that called it. A question of an agent is its agent, invoked."""
    run, key = held.run, held.key
    asks = held.step.type == ASK
    return tracer.start(
        f"invoke_agent {agent_key(key)}" if asks else f"step {key}",
        "internal",
        context_of_run(run),
        {
            "aigateway.run.id": run["id"],
            "aigateway.workflow": run["workflow_name"],
            "aigateway.step.id": key,
            "aigateway.step.type": held.step.type,
            "aigateway.step.attempt": held.attempt,
            "aigateway.worker.id": held.worker_id,
            "gen_ai.operation.name": "invoke_agent" if asks else None,
            "gen_ai.agent.name": agent_key(key) if asks else None,
            "aigateway.agent.turn": turn_of(key) if asks else None,
        },
    )


def end_span(span: Span, outcome: Outcome | None) -> None:
    """`outcome` None: it was stopped, and nothing of it is written."""
    word, error = _told(outcome)
    span.end({"aigateway.step.outcome": word}, error=error)


def _told(outcome: Outcome | None) -> tuple[str, str | None]:
    match outcome:
        case None:
            return "stopped", None
        case Succeeded() | AskedForTools():
            return "succeeded", None
        case Skipped():
            return "skipped", None
        case Failed(error_class):
            return "failed", error_class.value
        case OverBudget():
            return "over_budget", ErrorClass.BUDGET_EXCEEDED.value
        case Throttled():
            return "throttled", ErrorClass.RATE_LIMIT.value
        case _:  # it goes on elsewhere
            return "waiting", None
