"""No number of parallel calls, in one process or several, killed ones among them, gets more out of a budget than it holds."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from budget_hand import NOON_US, SECOND, Till, opened, settlement

from engine.admission import open_admitted, settle_call
from engine.budget_spec import BudgetSpec, Origin, Scope
from engine.budgets import put_budget, take_up_budgets
from engine.catalogue import Catalogue
from engine.errors import AIGatewayError, BudgetExceeded, LimitExceeded
from engine.ledger import Intent
from engine.periods import Period
from engine.store.budgets import all_budgets
from engine.store.requests import list_requests
from engine.store.workers import insert_worker
from engine.sweeper import bury

ROOT = Path(__file__).parents[2]
RESERVE, COST, LIMIT = 100, 30, 5_000
PROCESSES, CALLS = 4, 50
# Opens as many calls as it may and settles every other one that it opened; the last of them waits to be killed.
SPENDER = """
import asyncio, sys
sys.path.insert(0, "tests")
from budget_hand import opened, settlement
from engine.admission import open_admitted, settle_call

async def spend(till):
    async def one(number):
        intent = till.intent({reserve})
        refused = await till.database.write(lambda tx: open_admitted(tx, intent, till.worker).refused)
        if refused is None and number % 2:
            done = settlement(intent.id, till.now, {cost})
            await till.database.write(lambda tx: settle_call(tx, done))
        return refused is None
    return sum(await asyncio.gather(*(one(number) for number in range({calls}))))

with opened(sys.argv[1], sys.argv[2]) as till:
    print("here", flush=True)
    sys.stdin.readline()
    print(asyncio.run(spend(till)), flush=True)
    sys.stdin.readline()
"""


def test_two_hundred_at_once_get_the_fifty_that_fit(database_url: str) -> None:
    with opened(database_url) as one, opened(database_url, "w2") as two:
        one.set_budget("all", 50 * RESERVE)
        one.set_budget("wide", 10**9)

        calls = [(till, till.intent(RESERVE)) for _ in range(100) for till in (one, two)]

        answers = asyncio.run(open_all(calls))
        assert sum(answer is None for answer in answers) == 50
        assert {type(answer) for answer in answers if answer is not None} == {BudgetExceeded}
        assert one.sums("all") == (0, 0, 50 * RESERVE)
        assert one.sums("wide") == (0, 0, 50 * RESERVE)
        for row in one.read(lambda tx: list_requests(tx, {}, 200)):
            one.settle(row["id"], COST)
        assert one.sums("all") == (50 * COST, 50 * COST, 0)


def test_processes_together_and_one_that_is_killed_stay_within_the_budget(database_url: str) -> None:
    with opened(database_url) as till:
        till.set_budget("all", LIMIT)
        names = [f"spender{number}" for number in range(PROCESSES)]
        for name in (*names, till.worker):
            row = {"id": name, "kind": "api", "host": "h", "pid": 1, "started_us": 0, "lease_until_us": 0}
            till.do(lambda tx, row=row: insert_worker(tx, row))
        spenders = [start(database_url, name) for name in names]
        for spender in spenders:
            assert read(spender) == "here"
        for spender in spenders:
            write(spender)
        os.kill(spenders[0].pid, signal.SIGKILL)  # somewhere in the middle of it
        for spender in spenders[1:]:
            read(spender)
        os.kill(spenders[1].pid, signal.SIGKILL)  # with calls open
        for spender in spenders[2:]:
            write(spender)
        for spender in spenders:
            spender.communicate()
        settled, from_rows, reserved = till.sums("all")
        assert settled == from_rows > 0
        assert settled + reserved <= LIMIT
        while till.try_open(till.intent(RESERVE)) is None:
            continue
        settled, from_rows, reserved = till.sums("all")
        assert LIMIT - RESERVE < settled + reserved <= LIMIT, "the budget was used as far as it goes, and no further"

        for name in (*names, till.worker):
            till.do(lambda tx, name=name: bury(tx, Catalogue(), name, till.now, only_if_lapsed=False))
        assert till.sums("all") == (settled, settled, reserved), "what nobody saw the end of counts at its worst"
        for row in till.read(lambda tx: list_requests(tx, {"status": "unknown"}, 500)):
            till.settle(row["id"], COST)
        settled, from_rows, reserved = till.sums("all")
        assert settled == from_rows <= LIMIT
        assert reserved == 0, "a reservation was left behind"


def test_unseen_calls_of_the_dead_are_free_again_when_the_period_ends(database_url: str) -> None:
    with opened(database_url) as till:
        till.set_budget("all", 5 * RESERVE)
        for _ in range(5):
            till.open(RESERVE)
        assert isinstance(till.try_open(till.intent(1)), BudgetExceeded)
        till.now += 12 * 3600 * SECOND
        for _ in range(5):
            till.open(RESERVE)
        assert till.sums("all") == (0, 0, 5 * RESERVE)


def test_parallel_calls_of_a_key_are_limited_over_all_processes(database_url: str) -> None:
    with opened(database_url) as one, opened(database_url, "w2") as two:
        key = one.make_key("few", max_parallel=7)

        calls = [(till, till.intent(1, key_id=key.id)) for _ in range(30) for till in (one, two)]

        answers = asyncio.run(open_all(calls))
        assert sum(answer is None for answer in answers) == 7
        assert {type(answer) for answer in answers if answer is not None} == {LimitExceeded}


def test_calls_and_settlements_side_by_side_neither_block_nor_miscount(database_url: str) -> None:
    with opened(database_url) as one, opened(database_url, "w2") as two:
        one.set_budget("all", 10**9)
        one.set_budget("model", 10**9, scope=Scope.MODEL, subject="sim/echo")
        key = one.make_key("busy")

        async def both(till: Till, number: int) -> None:
            intent = till.intent(RESERVE, key_id=key.id)
            assert await till.database.write(lambda tx: open_admitted(tx, intent, till.worker).refused) is None
            done = settlement(intent.id, NOON_US, number)
            await till.database.write(lambda tx: settle_call(tx, done))

        async def all_of_them() -> None:
            await asyncio.gather(*(both(till, number) for number in range(100) for till in (one, two)))

        asyncio.run(all_of_them())
        total = 2 * sum(range(100))
        assert one.sums("all") == (total, total, 0)


def test_processes_that_start_together_take_the_files_budgets_up_once(database_url: str) -> None:
    specs = [BudgetSpec(f"b{number}", 100, Period.DAY) for number in range(5)]
    with opened(database_url) as one, opened(database_url, "w2") as two:

        async def start_all() -> None:
            tills = [one, two] * 4
            await asyncio.gather(
                *(till.database.write(lambda tx: take_up_budgets(tx, specs, NOON_US)) for till in tills),
                *(till.database.write(lambda tx: put_budget(tx, specs[0], Origin.CONFIG, NOON_US)) for till in tills),
            )

        asyncio.run(start_all())
        assert sorted(row["name"] for row in one.read(all_budgets)) == [spec.name for spec in specs]


async def open_all(calls: Sequence[tuple[Till, Intent]]) -> list[AIGatewayError | None]:
    """Why each of them was refused, None where it was not."""

    async def one(till: Till, intent: Intent) -> AIGatewayError | None:
        return await till.database.write(lambda tx: open_admitted(tx, intent, till.worker).refused)

    return await asyncio.gather(*(one(till, intent) for till, intent in calls))


def start(url: str, worker: str) -> subprocess.Popen[str]:
    script = SPENDER.format(reserve=RESERVE, cost=COST, calls=CALLS)
    return subprocess.Popen(
        [sys.executable, "-c", script, url, worker], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def write(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
