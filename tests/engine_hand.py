"""Drives the engine's transitions by hand: no worker, no executor, no clock but the one that the test moves."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from engine import attempts, control, sweeper
from engine.attempts import Claimed, Completed, Ended
from engine.catalogue import Catalogue
from engine.clock import new_id
from engine.ledger import CallKind, CallScope, CostSource, Intent, Settlement, Usage
from engine.loader import load
from engine.ports import Outcome, Succeeded
from engine.states import ErrorClass
from engine.store.database import Database, Row, Tx
from engine.store.events import history_since
from engine.store.runs import get_run
from engine.store.steps import steps_of_run
from engine.store.whole_runs import whole_run
from engine.store.workers import insert_worker
from engine.submission import Submission, Submitted, submit
from engine.views import run_view

T = TypeVar("T")

SECOND = 1_000_000
START_US = 1_800_000_000 * SECOND

ONE_STEP = "name: one\nsteps:\n  - {id: only, type: set, value: 1}\n"
CHAIN = """
name: chain
steps:
  - {id: first, type: set, value: 1}
  - {id: second, type: set, value: 2}
  - {id: third, type: set, value: 3}
"""
PARALLEL = """
name: parallel
steps:
  - {id: left, type: set, value: 1}
  - {id: right, type: set, value: 2, needs: []}
"""


class Hand:
    """One process's database and the transitions on it; `now` is its clock, in microseconds."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.catalogue = Catalogue()
        self.now = START_US

    def pass_time(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)

    def do(self, work: Callable[[Tx], T]) -> T:
        return self.database.write_now(work)

    def submit(self, source: str, given: Any = None, **asked: Any) -> Submitted:
        submission = Submission(load(source), None, {} if given is None else given, **asked)
        return self.do(lambda tx: submit(tx, self.catalogue, submission, self.now))

    def start(self, source: str, given: Any = None, **asked: Any) -> str:
        """Submits and returns the run's id."""
        return self.submit(source, given, **asked).run["id"]

    def step(self, run_id: str, key: str) -> Row:
        return self.steps(run_id)[key]

    def steps(self, run_id: str) -> dict[str, Row]:
        return {row["key"]: row for row in self.do(lambda tx: steps_of_run(tx, run_id))}

    def statuses(self, run_id: str) -> dict[str, str]:
        return {key: row["status"] for key, row in self.steps(run_id).items()}

    def run(self, run_id: str) -> Row:
        row = self.do(lambda tx: get_run(tx, run_id))
        assert row is not None
        return row

    def view(self, run_id: str) -> dict[str, Any]:
        return self.do(lambda tx: run_view(tx, self.run_row(tx, run_id)))

    def run_row(self, tx: Tx, run_id: str) -> Row:
        row = get_run(tx, run_id)
        assert row is not None
        return row

    def attempts(self, run_id: str) -> list[Row]:
        return self.do(lambda tx: whole_run(tx, run_id).attempts)

    def events(self, run_id: str) -> list[Row]:
        return self.do(lambda tx: history_since(tx, run_id, 0, 100_000))

    def event_types(self, run_id: str) -> list[str]:
        return [row["type"] for row in self.events(run_id)]

    def try_claim(self, step_id: str, worker: str = "w1", *, alone: bool = False) -> Claimed | None:
        return self.do(lambda tx: attempts.claim(tx, self.catalogue, step_id, worker, self.now, alone=alone))

    def claim(self, run_id: str, key: str, worker: str = "w1") -> Claimed:
        """By a process of its own where it has to be one."""
        row = self.step(run_id, key)
        held = self.try_claim(row["id"], worker, alone=row["losses"] >= 2)
        assert held is not None, f"{key} is not to be claimed: {self.statuses(run_id)}"
        return held

    def complete(
        self, held: Claimed, outcome: Outcome, *settlements: Settlement, chance: float = 0.5, go_on: bool = False
    ) -> Completed:
        ended = Ended(outcome, settlements, chance)
        return self.do(lambda tx: attempts.complete(tx, self.catalogue, held, ended, self.now, go_on=go_on))

    def finish(self, run_id: str, key: str, output: Any = None) -> Completed:
        """Claims the step and succeeds."""
        return self.complete(self.claim(run_id, key), Succeeded(output))

    def give_back(self, held: Claimed) -> Completed:
        return self.do(lambda tx: attempts.give_back(tx, held, self.now))

    def open_call(self, held: Claimed, reserve_picousd: int | None = 100) -> str:
        """Books an intent and returns the call's id."""
        intent = intent_of(held, self.now, reserve_picousd)
        refused = self.do(lambda tx: attempts.open_call(tx, held, intent))
        if refused is not None:
            raise refused
        return intent.id

    def cancel(self, run_id: str) -> Row:
        return self.do(lambda tx: control.cancel(tx, self.catalogue, run_id, self.now))[0]

    def pause(self, run_id: str) -> Row:
        return self.do(lambda tx: control.pause(tx, self.catalogue, run_id, self.now))

    def resume(self, run_id: str, budget_picousd: int | None = None) -> list[str]:
        """The ids of the steps that are rung."""
        _, rings = self.do(lambda tx: control.resume(tx, self.catalogue, run_id, budget_picousd, self.now))
        return [ring.step_id for ring in rings]

    def retry(self, run_id: str) -> list[str]:
        _, rings = self.do(lambda tx: control.retry(tx, self.catalogue, run_id, self.now))
        return [ring.step_id for ring in rings]

    def enter_worker(self, worker: str, lease_s: float = 8) -> None:
        row = {
            "id": worker,
            "kind": "worker",
            "host": "here",
            "pid": 1,
            "started_us": self.now,
            "lease_until_us": self.now + int(lease_s * SECOND),
        }
        self.do(lambda tx: insert_worker(tx, row))

    def bury(self, worker: str, *, only_if_lapsed: bool = False, died_alone: bool = False) -> sweeper.Swept:
        how = {"only_if_lapsed": only_if_lapsed, "died_alone": died_alone}
        return self.do(lambda tx: sweeper.bury(tx, self.catalogue, worker, self.now, **how))

    def wake(self) -> list[str]:
        return [ring.step_id for ring in self.do(lambda tx: sweeper.wake_due(tx, self.catalogue, self.now)).rings]


@contextmanager
def opened(url: str) -> Iterator[Hand]:
    database = Database(url)
    try:
        yield Hand(database)
    finally:
        database.close()


def at_once(*actions: Callable[[], T]) -> list[T]:
    """What each of them gives, all on threads of their own. Raises: what the first of them raised."""
    with ThreadPoolExecutor(len(actions)) as pool:
        return [answer.result(60) for answer in [pool.submit(action) for action in actions]]


def intent_of(held: Claimed, now: int, reserve_picousd: int | None = 100) -> Intent:
    scope = CallScope(
        request_id=f"{held.step_id}.{held.attempt}",
        workflow_name=held.run["workflow_name"],
        run_id=held.run["id"],
        step_id=held.key,
        attempt=held.attempt,
    )
    return Intent(
        id=new_id(),
        scope=scope,
        kind=CallKind.CHAT,
        provider="simulated",
        model="echo",
        requested_model="local",
        streamed=False,
        at_us=now,
        reserve_picousd=reserve_picousd,
    )


def settled(call_id: str, now: int, cost_picousd: int | None = 40) -> Settlement:
    known = cost_picousd is not None
    return Settlement(
        id=call_id,
        success=known,
        usage=Usage(input=10, output=5) if known else None,
        cost_picousd=cost_picousd,
        cost_source=CostSource.PRICED if known else CostSource.UNKNOWN,
        finished_us=now,
        latency_us=1500,
        error_class=None if known else ErrorClass.TIMEOUT,
        error=None if known else "nobody saw its end",
    )
