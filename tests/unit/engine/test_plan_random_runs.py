"""Random runs, step by step, against a model that knows no counters: it works out every status anew from what has happened.

The engine runs them through claim and complete on a real database, in random order, with workers that die, hand back, come
too late or ring twice on the way.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from engine_hand import Hand, opened
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.attempts import Claimed
from engine.definition import Step
from engine.loader import load_data
from engine.ports import Branched, Failed, Outcome, Skipped, Succeeded
from engine.states import ErrorClass
from engine.store.database import Row
from engine.store.steps import steps_of_run

ENDED = {"succeeded", "failed", "skipped", "cancelled"}
FATES = ("succeed", "succeed", "succeed", "skip", "flaky", "fail")
BROKEN = Failed(ErrorClass.TOOL_ERROR, "broke", final=True)
SLOW = Failed(ErrorClass.TIMEOUT, "slow")


@dataclass
class Plan:
    """A definition's data and what will come of each of its steps."""

    steps: list[dict[str, Any]]
    fates: dict[str, str] = field(default_factory=dict[str, str])


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    plan = Plan([])
    plan.steps = _steps(draw, plan, "s", depth=0)
    return plan


def _steps(draw: st.DrawFn, plan: Plan, prefix: str, depth: int) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 5 if depth == 0 else 3))):
        step = _step(draw, plan, f"{prefix}{number}", depth)
        if draw(st.booleans()):
            step["needs"] = draw(st.lists(st.sampled_from([each["id"] for each in made]), unique=True)) if made else []
        made.append(step)
    return made


def _step(draw: st.DrawFn, plan: Plan, key: str, depth: int) -> dict[str, Any]:
    step: dict[str, Any] = {"id": key, "type": "set", "value": 1}
    fate = draw(st.sampled_from(FATES))
    if depth < 2 and draw(st.integers(0, 2)) == 0:
        step = {"id": key, "type": "if", "condition": "true"}
        for branch in ("then", "else")[: draw(st.integers(1, 2))]:
            step[branch] = _steps(draw, plan, f"{key}_{branch[0]}", depth + 1)
        fate = draw(st.sampled_from(["then", "else", "then", "else", "skip", "fail"]))
    if draw(st.booleans()):
        step["on_error"] = "continue"
    plan.fates[key] = fate
    return step


def walk(steps: tuple[Step, ...]) -> Iterator[Step]:
    for step in steps:
        yield step
        for branch in step.branches.values():
            yield from walk(branch)


class Model:
    """What has happened, and what follows from it. Nothing is kept up to date: every question is answered from scratch."""

    def __init__(self, steps: tuple[Step, ...], fates: Mapping[str, str]) -> None:
        self._steps = steps
        self._fates = fates
        self.done: dict[str, str] = {}  # what its worker reported, by step
        self.claimed: list[str] = []  # in the order of their first claims
        self.outputs: dict[str, Any] = {}
        self.fatal: str | None = None
        self.cut: set[str] = set()  # what was open inside a container when that failed
        self.settled: dict[str, str] = {}  # and what had ended

    def outcome(self, step: Step, failures: int) -> Outcome:
        """What the step's worker reports when it has failed so many times before."""
        fate = self._fates[step.id]
        if fate in ("then", "else"):
            return Branched(fate if fate in step.branches else None)
        if fate == "flaky" and failures < 2:
            return SLOW
        return {"skip": Skipped(), "fail": BROKEN}.get(fate, Succeeded(f"{step.id} ran"))

    def report(self, step: Step, outcome: Outcome) -> None:
        if outcome == SLOW:
            return
        before = self.statuses()
        self.done[step.id] = type(outcome).__name__
        if outcome == BROKEN and step.on_error == "fail":
            catcher = next((outer for outer in self._around(step) if outer.on_error == "continue"), None)
            if catcher is None:
                self.fatal = step.id
            else:
                self._catch(catcher, before | {step.id: "failed"})  # what stands around the failure had not ended

    def _around(self, step: Step) -> list[Step]:
        """The containers that a step stands in, the innermost first."""
        for outer in walk(self._steps):
            if any(step.id == inner.id for branch in outer.branches.values() for inner in branch):
                return [outer, *self._around(outer)]
        return []

    def _catch(self, catcher: Step, before: Mapping[str, str]) -> None:
        inside = [step.id for branch in catcher.branches.values() for step in walk(branch)]
        self.cut |= {key for key in inside if key in before and before[key] not in ENDED}
        self.settled |= {key: before[key] for key in inside if key in before and before[key] in ENDED}
        self.done[catcher.id] = "Failed"

    def statuses(self) -> dict[str, str]:
        """`open` stands for ready, running and waiting for a retry."""
        found: dict[str, str] = {}
        self._visit(self._steps, found)
        found |= self.settled | dict.fromkeys(self.cut, "cancelled")
        if self.fatal is not None:
            return {key: status if status in ENDED else "cancelled" for key, status in found.items()}
        return found

    def _visit(self, steps: tuple[Step, ...], found: dict[str, str]) -> bool:
        for step in steps:
            if any(found[need] not in ENDED for need in step.needs):
                found[step.id] = "pending"
            else:
                found[step.id] = self._status(step, found)
        return all(found[step.id] in ENDED and step.id != self.fatal for step in steps)

    def _status(self, step: Step, found: dict[str, str]) -> str:
        match self.done.get(step.id):
            case None:
                return "open"
            case "Branched":
                inside = step.branches.get(self._fates[step.id], ())
                return "succeeded" if self._visit(inside, found) else "waiting"
            case reported:
                return {"Succeeded": "succeeded", "Failed": "failed", "Skipped": "skipped"}[reported]

    def output(self, step: Step) -> Any:
        statuses = self.statuses()
        if statuses.get(step.id) != "succeeded":
            return None
        if not step.branches or self.done[step.id] == "Succeeded":
            return f"{step.id} ran"
        inside = [each for each in step.branches.get(self._fates[step.id], ()) if statuses[each.id] == "succeeded"]
        return self.output(max(inside, key=lambda each: self.claimed.index(each.id))) if inside else None

    @property
    def run_status(self) -> str:
        if self.fatal is not None:
            return "failed"
        return "succeeded" if all(status in ENDED for status in self.statuses().values()) else "running"


class Driver:
    """Takes the run through the engine, one random move at a time."""

    def __init__(self, hand: Hand, plan: Plan, chance: Random) -> None:
        definition = load_data({"name": "random", "steps": plan.steps})
        self.hand = hand
        self.chance = chance
        self.model = Model(definition.steps, plan.fates)
        self.last = definition.steps[-1]
        self.run_id = hand.start(definition.source)
        self.rows, self.run = self._look()
        self.held: list[Claimed] = []
        self.late: list[Claimed] = []

    def go(self) -> None:
        while self.model.run_status == "running":
            self.hand.pass_time(0.001)
            self._move()
            self._check()
        self._late_comes()
        self._check()
        self._check_end()

    def _look(self) -> tuple[dict[str, Row], Row]:
        rows, run = self.hand.do(lambda tx: (steps_of_run(tx, self.run_id), self.hand.run_row(tx, self.run_id)))
        return {row["key"]: row for row in rows}, run

    def _move(self) -> None:
        ready = [row for row in self.rows.values() if row["status"] == "ready"]
        moves = [self._claim] * 3 * bool(ready) + [self._complete] * 4 * bool(self.held)
        moves += [self._lose, self._return] * bool(self.held) + [self._late_comes] * bool(moves and self.late)
        if not moves:
            self.hand.pass_time(3)
            woken = {row["id"] for row in self.rows.values()} & set(self.hand.wake())
            assert woken, f"nothing is ready, held or due: {self.rows}"
            return
        self.chance.choice(moves)()

    def _claim(self) -> None:
        row = self.chance.choice([row for row in self.rows.values() if row["status"] == "ready"])
        held = self.hand.try_claim(row["id"], self._worker(), alone=row["losses"] >= 2)
        assert held is not None
        self._took(held)

    def _took(self, held: Claimed) -> None:
        if self.chance.random() < 0.2:
            assert self.hand.try_claim(held.step_id, "w9") is None  # the bell rang twice
        self.held.append(held)
        if held.key not in self.model.claimed:
            self.model.claimed.append(held.key)

    def _worker(self) -> str:
        return f"w{self.chance.randrange(3)}-{self.run_id[-12:]}"

    def _take(self) -> Claimed:
        return self.held.pop(self.chance.randrange(len(self.held)))

    def _complete(self) -> None:
        held = self._take()
        outcome = self.model.outcome(held.step, self.rows[held.key]["tries"])
        done = self.hand.complete(held, outcome, go_on=self.chance.random() < 0.5)
        assert done.accepted
        self.model.report(held.step, outcome)
        self.late.append(held)
        if done.following is not None:
            assert not done.rings
            self._took(done.following)
        gone = [each for each in self.held if self.model.statuses().get(each.key) == "cancelled"]
        self.late += gone
        self.held = [each for each in self.held if each not in gone]

    def _return(self) -> None:
        held = self._take()
        assert self.hand.give_back(held).accepted
        self.late.append(held)

    def _lose(self) -> None:
        held = self.chance.choice(self.held)
        mine = [each for each in self.held if each.worker_id == held.worker_id]
        self.hand.enter_worker(held.worker_id)
        assert self.hand.bury(held.worker_id).reclaimed == len(mine)
        self.held = [each for each in self.held if each not in mine]
        self.late += mine

    def _late_comes(self) -> None:
        if self.late:
            assert not self.hand.complete(self.chance.choice(self.late), Succeeded("too late")).accepted

    def _check(self) -> None:
        self.rows, self.run = self._look()
        seen = {key: self._seen(row) for key, row in self.rows.items()}
        assert seen == self.model.statuses()
        assert self.run["open_steps"] == sum(status not in ENDED for status in seen.values())
        assert self.run["status"] in self._expected()

    def _expected(self) -> set[str]:
        """A run in which every open step waits is waiting, and stays so until the next claim."""
        active = {row["status"] for row in self.rows.values()} & {"ready", "running"}
        if not self.model.claimed:
            return {"queued"}
        if self.model.run_status != "running":
            return {self.model.run_status}
        return {"waiting"} if not active else {"running"} if "running" in active else {"running", "waiting"}

    @staticmethod
    def _seen(row: Mapping[str, Any]) -> str:
        if row["status"] in ("ready", "running") or (row["status"] == "waiting" and row["branch"] is None):
            return "open"
        return row["status"]

    def _check_end(self) -> None:
        view = self.hand.view(self.run_id)
        assert view["output"] == (None if self.model.fatal else self.model.output(self.last))
        assert (view["error"] or {}).get("step") == self.model.fatal
        events = self.hand.events(self.run_id)
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        ends = [event["step_key"] for event in events if event["type"].removeprefix("step.") in ENDED - {"cancelled"}]
        assert len(ends) == len(set(ends))
        assert all(attempt["status"] != "running" for attempt in self.hand.attempts(self.run_id))


@pytest.fixture(scope="module")
def hand(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hand]:
    path = tmp_path_factory.mktemp("random") / "runs.db"
    path.write_bytes(sqlite_template.read_bytes())
    with opened(f"sqlite:///{path}") as hand:
        yield hand


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plan=plans(), seed=st.integers(0, 2**32))
def test_every_status_follows_from_what_happened(hand: Hand, plan: Plan, seed: int) -> None:
    Driver(hand, plan, Random(seed)).go()


def test_the_model_is_not_a_copy_of_a_wrong_engine(hand: Hand) -> None:
    """The driver sees a step that was unlocked too early."""
    plan = Plan([{"id": "a", "type": "set", "value": 1}, {"id": "b", "type": "set", "value": 1}])
    plan.fates = {"a": "succeed", "b": "succeed"}
    driver = Driver(hand, plan, Random(1))
    driver._check()
    hand.finish(driver.run_id, "a")  # behind the model's back
    with pytest.raises(AssertionError):
        driver._check()
