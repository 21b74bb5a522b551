"""Plays a run to its end on a real database with the real flow executors: the engine and its language, without processes."""

import asyncio
from typing import Any, cast

from engine_hand import SECOND, Hand

from engine.agent_steps import AGENT, ASK, CALL, turn_of
from engine.attempts import Claimed
from engine.child_runs import answer, unanswered
from engine.errors import AIGatewayError
from engine.expressions import condition
from engine.ledger import CallScope
from engine.ports import AskedForTools, Failed, Job, Opened, Outcome, Skipped, Succeeded, ToolCall
from engine.states import ErrorClass
from worker.executors.flow import flow_executors

EXECUTORS = flow_executors()
STOPPED = {"succeeded", "failed", "cancelled", "paused"}


def outcome_of(held: Claimed) -> Outcome:
    """What the step's executor makes of it, as the worker's runner would report it; an agent plays what its prompt says."""
    if held.step.type in (ASK, CALL):
        return played(held)
    job = Job(
        run_id=held.run["id"],
        step_id=held.step_id,
        key=held.key,
        attempt=held.attempt,
        definition=held.definition,
        step=held.step,
        scope=held.scope,
        call_scope=CallScope("request"),
        book=cast(Any, None),
    )
    try:
        if held.step.condition is not None and not condition(held.step.condition, held.scope):
            return Skipped()
        if held.step.type == AGENT:
            return Opened([])
        return asyncio.run(EXECUTORS[held.step.type].execute(job))
    except AIGatewayError as error:
        return Failed(ErrorClass.INVALID_REQUEST, error.message, final=True)


def played(held: Claimed) -> Outcome:
    """The turns of an agent as its prompt has them: `2 1 answer` asks for two calls, then for one, and answers how many it were."""
    if held.step.type == CALL:
        return Failed(ErrorClass.TOOL_ERROR, "no", final=True) if held.key.endswith("_2") else Succeeded("yes")
    words: list[str] = held.step.fields["prompt"].split()
    word = words[turn_of(held.key)]
    if word == "fail":
        return Failed(ErrorClass.AUTH, "no", final=True)
    if word == "answer":
        return Succeeded(sum(map(int, words[:-1])))
    calls = tuple(ToolCall(f"id{number}", "x", "t/x", {}) for number in range(int(word)))
    return AskedForTools({"role": "assistant"}, calls, "m")


def play(hand: Hand, run_id: str, *, most: int = 10_000) -> dict[str, Any]:
    """Claims and completes whatever is ready until nothing is; returns the run's view."""
    for _ in range(most):
        ready = [row for row in hand.steps(run_id).values() if row["status"] == "ready"]
        if not ready or hand.run(run_id)["status"] in STOPPED:
            break
        hand.now += 1000
        held = hand.claim(run_id, min(ready, key=lambda row: (row["due_us"], row["position"]))["key"])
        assert hand.complete(held, outcome_of(held)).accepted
    return hand.view(run_id)


def play_on(hand: Hand, run_id: str, seconds: float) -> dict[str, Any]:
    """Lets time pass, wakes what is due, and plays on."""
    hand.now += int(seconds * SECOND)
    hand.wake()
    return play(hand, run_id)


def answer_all(hand: Hand) -> None:
    """Tells steps of the ends of their child runs, as the sweeper does."""
    for child in hand.do(unanswered):
        hand.do(lambda tx, one=child: answer(tx, hand.catalogue, one, hand.now))
