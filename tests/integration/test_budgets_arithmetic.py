"""Whatever happens in whatever order, a budget's sums are those of the ledger's rows, and never more than the limit is promised."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from budget_hand import DAY, NOON_US, SECOND, Till, opened, settlement
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from engine.admission import settle_call
from engine.budget_spec import Action, BudgetSpec, Origin, Scope
from engine.budgets import replace_budgets, take_up_budgets
from engine.errors import BudgetExceeded
from engine.periods import Period
from engine.store.budgets import all_budgets
from engine.store.requests import abandon_requests, settle_request
from engine.store.statements import Statement
from engine.store.tables import requests

Deed = tuple[str, int, object]

LIMIT = 1_000
BUDGETS = ("day", "total", "model", "warned")


@dataclass
class Call:
    """What the test itself remembers of a call."""

    id: str
    began_us: int
    reserve: int
    model: str
    cost: int | None = None
    settled: bool = False

    @property
    def worth(self) -> int:
        return self.reserve if self.cost is None else self.cost


@dataclass
class Books:
    """A second, simple book-keeping to hold the product's against."""

    calls: list[Call] = field(default_factory=list[Call])
    daily: int = LIMIT

    def committed(self, name: str, now: int) -> int:
        since = now - now % DAY if name in ("day", "warned") else 0
        counted = [call for call in self.calls if call.began_us >= since and (name != "model" or call.model == "dear")]
        return sum(call.worth for call in counted)


OPEN = st.tuples(st.just("open"), st.integers(1, 400), st.sampled_from(["dear", "cheap"]))
SETTLE = st.tuples(st.just("settle"), st.integers(0, 30), st.none() | st.just(0) | st.integers(0, 500))
# Never thirty days together: reservations would lapse.
TIME = st.tuples(st.just("time"), st.integers(1, 17 * 3600), st.none())
DIE = st.tuples(st.just("die"), st.just(0), st.none())
LIMITS = st.tuples(st.just("set"), st.integers(1, 2 * LIMIT), st.none())


@pytest.fixture(scope="module")
def till(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Till]:
    path = tmp_path_factory.mktemp("property") / "budgets.db"
    path.write_bytes(sqlite_template.read_bytes())
    with opened(f"sqlite:///{path}") as till:
        yield till


@settings(max_examples=150, deadline=None)
@example(groups=[[("set", 500, None), ("open", 400, "cheap"), ("settle", 0, 0), ("open", 400, "cheap")]])
@given(groups=st.lists(st.lists(st.one_of(OPEN, OPEN, SETTLE, TIME, DIE, LIMITS), max_size=12), max_size=8))
def test_sums_are_those_of_the_rows_after_anything_in_any_commit_groups(till: Till, groups: list[list[Deed]]) -> None:
    books = begin(till)
    for group in groups:
        till.together(lambda group=group: play(till, books, group))
    for name in BUDGETS:
        view = till.view(name)
        spent = round((view["spent_usd"] + view["reserved_usd"]) * 10**12)
        assert spent == books.committed(name, till.now), name


def play(till: Till, books: Books, actions: list[Deed]) -> None:
    for kind, number, more in actions:
        if kind == "open":
            open_one(till, books, number, str(more))
        elif kind == "settle" and books.calls:
            settle_one(till, books.calls[number % len(books.calls)], more if isinstance(more, int) else None)
        elif kind == "time":
            till.now += number * SECOND
        elif kind == "die":
            till.do(lambda tx: abandon_requests(tx, till.worker, till.now))
        elif kind == "set":
            books.daily = number
            till.set_budget("day", number, alert_at=(5000,))


def begin(till: Till) -> Books:
    """Nothing spent, on a new day far behind all that was before."""
    till.do(lambda tx: replace_budgets(tx, [], till.now))
    till.now = NOON_US + (till.now - NOON_US) // DAY * DAY + 400 * DAY
    till.do(lambda tx: replace_budgets(tx, [], till.now))
    wipe(till)
    till.set_budget("day", LIMIT)
    till.set_budget("total", 3 * LIMIT, Period.TOTAL)
    till.set_budget("model", LIMIT, Period.TOTAL, scope=Scope.MODEL, subject="sim/dear")
    till.set_budget("warned", LIMIT // 2, action=Action.ALERT)
    return Books()


def wipe(till: Till) -> None:
    till.do(lambda tx: tx.run(Statement(delete(requests))))


def open_one(till: Till, books: Books, reserve: int, model: str) -> None:
    intent = till.intent(reserve, model=model)
    limits = {"day": books.daily, "total": 3 * LIMIT} | ({"model": LIMIT} if model == "dear" else {})
    fits = all(books.committed(name, till.now) + reserve <= limit for name, limit in limits.items())
    refused = till.try_open(intent)
    assert (refused is None) == fits, refused
    if refused is None:
        books.calls.append(Call(intent.id, till.now, reserve, model))
    else:
        assert isinstance(refused, BudgetExceeded)


def settle_one(till: Till, call: Call, cost: int | None) -> None:
    till.do(lambda tx: settle_call(tx, settlement(call.id, till.now, cost)))
    if not call.settled:
        call.cost, call.settled = cost, True


def test_the_configuration_is_followed_and_what_was_set_over_http_stands_above_it(database_url: str) -> None:
    with opened(database_url) as till:
        daily = BudgetSpec("daily", 10, Period.DAY, alert_at=(5000,))
        assert till.do(lambda tx: take_up_budgets(tx, [daily, BudgetSpec("old", 1000, Period.DAY)], till.now)) == []
        till.open(10)
        assert till.do(lambda tx: take_up_budgets(tx, [daily], till.now)) == []
        assert till.sums("daily") == (0, 0, 10)
        assert [row["name"] for row in till.read(all_budgets)] == ["daily"]
        till.set_budget("daily", 500)
        assert till.do(lambda tx: take_up_budgets(tx, [daily], till.now)) == ["daily"]
        assert till.view("daily")["limit_usd"] == 500e-12
        till.do(lambda tx: replace_budgets(tx, [], till.now))
        till.do(lambda tx: take_up_budgets(tx, [daily], till.now))
        assert (till.view("daily")["origin"], till.view("daily")["limit_usd"]) == (Origin.CONFIG.value, 10e-12)


def test_a_settlement_that_missed_a_new_budget_is_counted_soon_afterwards(database_url: str) -> None:
    """As if a transaction that began before the budget was set had ended after it."""
    with opened(database_url) as till:
        call = till.open(100)
        till.set_budget("late", 1000, Period.TOTAL)
        till.do(lambda tx: settle_request(tx, settlement(call, till.now, 70)))
        assert till.sums("late") == (0, 70, 0)
        till.now += 16 * SECOND
        till.open(100)
        assert till.sums("late") == (70, 70, 100)
