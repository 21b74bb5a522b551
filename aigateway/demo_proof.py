"""What the demo claims, checked against what the server booked: a pure judgement of the run, its steps and its ledger rows.

A claim that does not hold becomes a sentence in `broken`; `proof` is worth reading only where there is none.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from engine.money import to_picousd, to_usd, usd_text

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker that was killed: while it held which attempt, and when."""

    step: str
    attempt: int
    worker: str
    pid: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is judged. `run`, `steps` and `calls` (rows of `requests`, any order) as the API tells them; `pids` by worker id."""

    run: Json
    steps: list[Json]
    calls: list[Json]
    kill: Kill
    pids: dict[str, int]

    def finished_before_kill(self) -> list[Json]:
        """The steps that had ended when the worker was killed."""
        return [step for step in self.steps if (end := step["finished_at"]) and _instant(end) < self.kill.at]

    def calls_of(self, step: str, attempt: int | None = None) -> list[Json]:
        """The step's rows of the ledger, or those of one attempt."""
        return [c for c in self.calls if c["step_id"] == step and attempt in (None, c["attempt"])]

    def attempts(self) -> int:
        """Of all steps together."""
        return sum(len(step["attempts"]) for step in self.steps)

    def takeover_s(self) -> float | None:
        """From the kill to the start of the attempt that replaced the lost one; None where there is none."""
        starts = [a["started_at"] for a in self.killed_step()["attempts"] if a["number"] == self.kill.attempt + 1]
        return (_instant(starts[0]) - self.kill.at).total_seconds() if starts else None

    def killed_step(self) -> Json:
        """The step whose worker was killed."""
        return next(step for step in self.steps if step["id"] == self.kill.step)


def broken(evidence: Evidence) -> list[str]:
    """What does not hold, one sentence each; empty where all claims hold."""
    return [
        *_run_went_through(evidence),
        *_finished_steps_were_called_once(evidence),
        *_killed_call_stays_visible(evidence),
        *_another_worker_took_over(evidence),
        *_sums_agree(evidence),
    ]


def proof(evidence: Evidence) -> str:
    """What was not paid twice, in figures from the ledger."""
    finished = evidence.finished_before_kill()
    kill = evidence.kill
    names = _listed(f"`{step['id']}`" for step in finished)
    once = "called once" if len(finished) == 1 else "each called once"
    unknown = _unknown(evidence)
    booked = f"Booked: ${usd_text(_cost(evidence.calls))} in {len(evidence.calls)} calls, {unknown} of unknown cost"
    return (
        f"{len(evidence.steps)} steps, {evidence.attempts()} attempts, 1 worker killed. "
        f"{names} had ended before the kill: {once}, never again. "
        f"Only the call in flight, `{kill.step}` attempt {kill.attempt}, was sent a second time; nobody saw how it ended, "
        f"so it stays in the ledger as `unknown`, never as free. "
        f"{booked}; ${usd_text(_cost(_calls_of(evidence, finished)))} of it for the finished steps, paid once."
    )


def facts(evidence: Evidence) -> Json:
    """All of it as JSON, with the verdict."""
    kill, problems = evidence.kill, broken(evidence)
    takeover = evidence.takeover_s()
    finished = evidence.finished_before_kill()
    return {
        "holds": not problems,
        "broken": problems,
        "proof": proof(evidence) if not problems else None,
        "simulated": True,
        "run": evidence.run,
        "steps": evidence.steps,
        "calls": evidence.calls,
        "killed": {
            "step": kill.step,
            "attempt": kill.attempt,
            "worker": kill.worker,
            "pid": kill.pid,
            "at": kill.at.isoformat(),
        },
        "takeover_ms": None if takeover is None else round(takeover * 1000, 3),
        "finished_before_kill": [step["id"] for step in finished],
        "cost_usd": to_usd(_cost(evidence.calls)),
        "cost_usd_of_finished_steps": to_usd(_cost(_calls_of(evidence, finished))),
        "cost_unknown_calls": _unknown(evidence),
    }


def _run_went_through(evidence: Evidence) -> list[str]:
    problems = [f"step `{s['id']}` {s['status']}" for s in evidence.steps if s["status"] != "succeeded"]
    if evidence.run["status"] != "succeeded":
        problems.append(f"the run {evidence.run['status']}: {evidence.run['error']}")
    elif not evidence.run["output"]:
        problems.append("the run has no output")
    return problems


def _finished_steps_were_called_once(evidence: Evidence) -> list[str]:
    finished = evidence.finished_before_kill()
    problems = [] if finished else ["no step had ended before the kill: nothing could have been paid twice"]
    for step in finished:
        calls = evidence.calls_of(step["id"])
        if len(step["attempts"]) != 1:
            problems.append(f"`{step['id']}` ran again: {len(step['attempts'])} attempts")
        if [call["status"] for call in calls] != ["succeeded"]:
            problems.append(f"`{step['id']}` has {len(calls)} calls in the ledger where there is one to be")
    after = {c["step_id"] for c in evidence.calls if _instant(c["timestamp"]) >= evidence.kill.at}
    problems += [f"`{name}` was called after the kill" for name in sorted(after - {evidence.kill.step})]
    return problems


def _killed_call_stays_visible(evidence: Evidence) -> list[str]:
    kill = evidence.kill
    name = f"`{kill.step}` attempt {kill.attempt}"
    calls = evidence.calls_of(kill.step, kill.attempt)
    if len(calls) != 1:
        return [f"{name} has {len(calls)} calls in the ledger where the killed one is to be"]
    call = calls[0]
    seen = (call["status"], call["cost_source"], call["cost_usd"])
    return [] if seen == ("unknown", "unknown", None) else [f"{name} is booked as {seen} and not as unknown"]


def _another_worker_took_over(evidence: Evidence) -> list[str]:
    kill = evidence.kill
    attempts = {a["number"]: (a["status"], a["worker"]) for a in evidence.killed_step()["attempts"]}
    problems: list[str] = []
    if sorted(attempts) != [kill.attempt, kill.attempt + 1]:
        return [f"`{kill.step}` has the attempts {sorted(attempts)}: not the lost one and one in its place"]
    if attempts[kill.attempt] != ("lost", kill.worker):
        problems.append(f"attempt {kill.attempt} of `{kill.step}` is {attempts[kill.attempt][0]} and not lost")
    status, worker = attempts[kill.attempt + 1]
    if status != "succeeded" or worker == kill.worker:
        problems.append(f"attempt {kill.attempt + 1} of `{kill.step}` {status} on worker {worker}")
    again = evidence.calls_of(kill.step, kill.attempt + 1)
    if [call["status"] for call in again] != ["succeeded"]:
        problems.append(f"`{kill.step}` attempt {kill.attempt + 1} has {len(again)} calls where there is one to be")
    return problems


def _sums_agree(evidence: Evidence) -> list[str]:
    problems: list[str] = []
    told, rows = _picousd(evidence.run["cost_usd"]), _cost(evidence.calls)
    if told != rows:
        problems.append(f"the run says ${usd_text(told)}, its ledger rows sum to ${usd_text(rows)}")
    if evidence.run["cost_unknown_calls"] != _unknown(evidence) or _unknown(evidence) != 1:
        problems.append(f"{_unknown(evidence)} calls of unknown cost where the killed one alone is to be")
    of_steps = sum(len(attempt["calls"]) for step in evidence.steps for attempt in step["attempts"])
    if of_steps != len(evidence.calls):
        problems.append(f"{len(evidence.calls)} ledger rows, but the steps show {of_steps}")
    return problems


def _calls_of(evidence: Evidence, steps: Iterable[Json]) -> list[Json]:
    return [call for step in steps for call in evidence.calls_of(step["id"])]


def _cost(calls: Iterable[Json]) -> int:
    return sum(_picousd(call["cost_usd"]) for call in calls if call["cost_usd"] is not None)


def _picousd(usd: float) -> int:
    return to_picousd(Decimal(str(usd)))


def _unknown(evidence: Evidence) -> int:
    return sum(call["cost_source"] == "unknown" for call in evidence.calls)


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
