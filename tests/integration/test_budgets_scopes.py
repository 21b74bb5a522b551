"""Which calls a budget counts, when it begins anew, when it tells, and what the limits of keys count, on both databases."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from budget_hand import DAY, SECOND, Till, opened
from sqlalchemy import bindparam, update

from engine.alerts import tell_alerts
from engine.budget_spec import Action, Scope
from engine.errors import BudgetExceeded, Forbidden, LimitExceeded
from engine.ledger import CallKind
from engine.periods import Period
from engine.store.database import Tx
from engine.store.deliveries import due_deliveries
from engine.store.requests import list_requests
from engine.store.spend import spend
from engine.store.statements import Statement
from engine.store.tables import requests


@pytest.fixture
def till(database_url: str) -> Iterator[Till]:
    with opened(database_url) as till:
        yield till


def used(till: Till, name: str) -> int:
    return sum(till.sums(name)[1:])


@pytest.mark.parametrize(
    ("scope", "subject", "counted", "other"),
    [
        (Scope.ALL, None, {}, None),
        (Scope.PROVIDER, "sim", {}, {"provider": "openai"}),
        (Scope.MODEL, "local", {}, {"requested_model": "fast"}),
        (Scope.MODEL, "sim/echo", {}, {"model": "other"}),
        (Scope.MODEL, "echo", {}, {"model": "other"}),
        (Scope.WORKFLOW, "digest", {"workflow_name": "digest"}, {"workflow_name": "other"}),
        (Scope.TAG, "team:a", {"tags": {"x": "y", "team": "a"}}, {"tags": {"team": "ab"}}),
        (Scope.TAG, 'team:a"b:c', {"tags": {"team": 'a"b:c'}}, {"tags": {"TEAM": 'a"b:c'}}),
        (Scope.TAG, "téam:%_", {"tags": {"téam": "%_"}}, {"tags": {"téam": "xy"}}),
    ],
)
def test_a_budget_counts_the_calls_of_its_scope(
    till: Till, scope: Scope, subject: str | None, counted: dict[str, Any], other: dict[str, Any] | None
) -> None:
    before = till.open(10, **counted)
    till.set_budget("one", 100, scope=scope, subject=subject)
    if other is not None:
        till.settle(till.open(1000, **other), 1000)
        till.open(1000, **other)
    assert till.sums("one") == (0, 0, 10)
    till.settle(before, 7)
    assert till.sums("one") == (7, 7, 0)
    with pytest.raises(BudgetExceeded, match=r"daily limit reached \(one\)"):
        till.open(94, **counted)
    till.open(93, **counted)


def test_rows_and_sums_are_narrowed_by_tag_exactly(till: Till) -> None:
    told: tuple[dict[str, str], ...] = (
        {"team": "a"},
        {"team": "A"},
        {"team": "ab"},
        {"x": "y", "team": 'a"b:%_'},
        {"x": '"team":"a"'},
        {},
    )
    for number, tags in enumerate(told):
        till.settle(till.open(100, tags=tags), 10**number)
    for key, value, at in (("team", "a", 0), ("team", "A", 1), ("team", 'a"b:%_', 3), ("x", '"team":"a"', 4)):
        rows = till.read(lambda tx, tag=(key, value): list_requests(tx, {"tag": tag}, 10))
        assert [row["cost_picousd"] for row in rows] == [10**at]
        (sums,) = till.read(lambda tx, tag=(key, value): spend(tx, ("day",), {"tag": tag}))
        assert (sums["calls"], sums["cost_picousd"]) == (1, 10**at)
    assert till.read(lambda tx: list_requests(tx, {"tag": ("team", "")}, 10)) == []
    assert len(till.read(lambda tx: list_requests(tx, {"tag": None}, 10))) == len(told)
    sums = till.read(lambda tx: spend(tx, ("tag",), {}))
    assert {row["tag"]: row["cost_picousd"] for row in sums} == {
        "team:a": 1,
        "team:A": 10,
        "team:ab": 100,
        'team:a"b:%_': 1000,
        "x:y": 1000,  # a call with two tags counts under both
        'x:"team":"a"': 10**4,
        None: 10**5,
    }
    call = till.open(100)
    with_nul = Statement(update(requests).where(requests.c.id == bindparam("call")).values(tags=r'{"nul":"a\u0000b"}'))
    till.do(lambda tx: tx.run(with_nul, {"call": call}))
    assert "nul:a\ufffdb" in {row["tag"] for row in till.read(lambda tx: spend(tx, ("tag",), {}))}
    (day,) = till.read(lambda tx: spend(tx, ("day", "model", "tag"), {"tag": ("team", "ab")}))
    assert (day["tag"], day["calls"]) == ("team:ab", 1) and day["day"] > 0


def test_a_key_is_known_by_its_name_and_by_its_id(till: Till) -> None:
    mine, other = till.make_key("mine"), till.make_key("other")
    till.set_budget("by-name", 100, scope=Scope.KEY, subject="mine")
    till.set_budget("by-id", 100, scope=Scope.KEY, subject=mine.id)
    till.settle(till.open(60, key_id=mine.id), 50)
    till.open(20, key_id=mine.id)
    till.open(5000, key_id=other.id)
    till.open(5000)
    assert till.sums("by-name") == till.sums("by-id") == (50, 50, 20)
    with pytest.raises(BudgetExceeded):
        till.open(31, key_id=mine.id)


def test_a_budget_that_only_tells_refuses_nothing(till: Till) -> None:
    till.set_budget("soft", 10, action=Action.ALERT)
    till.settle(till.open(500), 500)
    till.open(500)
    assert till.view("soft")["remaining_usd"] == 0


def test_free_calls_always_fit_and_calls_of_unknown_price_while_anything_is_left(till: Till) -> None:
    till.set_budget("one", 100)
    till.settle(till.open(None), None)
    till.settle(till.open(100), 100)
    till.open(0)
    with pytest.raises(BudgetExceeded, match="unknown price"):
        till.open(None)


def test_a_call_belongs_to_the_period_in_which_it_began(till: Till) -> None:
    till.set_budget("one", 100)
    call = till.open(100)
    till.now += 13 * 3600 * SECOND
    assert till.view("one")["remaining_usd"] == 100e-12
    till.settle(call, 90)
    assert used(till, "one") == 0
    till.open(100)


def test_what_is_added_beside_a_period_that_begins_counts_for_the_rest_of_its_commit_group(till: Till) -> None:
    till.set_budget("a-day", 1000)
    till.set_budget("whole", 100, Period.TOTAL)
    till.now += 60 * SECOND
    till.settle(till.open(10), 10)  # both are summed up anew here, as once after they were set
    call = till.open(50)
    till.now += DAY
    refused: list[bool] = []

    def group() -> None:
        till.settle(call, 50)
        refused.extend(till.try_open(till.intent(reserve)) is not None for reserve in (30, 20))

    till.together(group)
    assert refused == [False, True]
    assert till.sums("whole") == (60, 60, 30)


def test_a_clock_that_lags_behind_does_not_bring_yesterday_back(till: Till) -> None:
    till.set_budget("one", 100)
    till.now += DAY
    till.open(60)
    till.now -= DAY
    with pytest.raises(BudgetExceeded):
        till.open(50)
    till.now += DAY
    assert used(till, "one") == 60


def test_a_reservation_that_never_settles_ends_after_thirty_days_also_without_a_period(till: Till) -> None:
    till.set_budget("one", 100, Period.TOTAL)
    till.open(100)
    till.now += 29 * DAY
    with pytest.raises(BudgetExceeded, match="it does not reset"):
        till.open(100)
    till.now += 2 * DAY
    till.open(100)


def test_days_and_months_are_those_of_the_zone(till: Till) -> None:
    till.now = (
        int(datetime(2026, 3, 29, 0, 30, tzinfo=UTC).timestamp()) * SECOND
    )  # the day on which Berlin's clocks go forward
    till.set_budget("berlin", 100, zone="Europe/Berlin")
    view = till.view("berlin")
    assert (view["period_started_at"], view["resets_at"]) == (
        "2026-03-28T23:00:00.000000Z",
        "2026-03-29T22:00:00.000000Z",
    )
    till.open(100)
    with pytest.raises(BudgetExceeded, match=r"resets tomorrow, at 2026-03-30T00:00:00\+02:00"):
        till.open(1)
    till.set_budget("month", 100, Period.MONTH, zone="America/New_York")
    assert till.view("month")["resets_at"] == "2026-04-01T04:00:00.000000Z"


def test_each_threshold_is_told_once_a_period(till: Till) -> None:
    till.set_budget("one", 100, alert_at=(5000, 8000, 10_000))

    def told() -> list[tuple[float | None, bool]]:
        def tell(tx: Tx) -> list[dict[str, Any]]:
            return tell_alerts(tx, "http://127.0.0.1:9/alerts", till.now)

        return [(facts["threshold"], facts["refused"]) for facts in till.do(tell)]

    till.settle(till.open(40), 40)
    assert told() == []
    till.settle(till.open(40), 40)
    assert told() == [(0.5, False), (0.8, False)]
    till.settle(till.open(5), 5)
    for _ in range(3):
        with pytest.raises(BudgetExceeded):
            till.open(50)
    assert told() == [(None, True)]
    till.settle(till.open(15), 15)
    assert told() == [(1.0, False)]
    assert [alert["threshold"] for alert in till.view("one")["alerts"]] == [None, 0.5, 0.8, 1.0]
    till.set_budget("one", 110, alert_at=(5000, 8000, 10_000))
    assert told() == []
    till.now += DAY
    till.settle(till.open(90), 90)
    assert told() == [(0.5, False), (0.8, False)]
    found = till.read(lambda tx: due_deliveries(tx, till.now, 50))
    assert len(found) == 6
    assert {(row["run_id"], row["type"], row["status"]) for row in found} == {(None, "budget.alert", "pending")}


def test_a_keys_requests_of_the_last_minute_are_counted_once_each(till: Till) -> None:
    key = till.make_key("slow", requests_per_minute=2)
    for _ in range(3):
        till.open(key_id=key.id, request_id="first")  # three attempts of one request
    till.now += 20 * SECOND
    till.open(key_id=key.id, request_id="second")
    till.open(key_id=key.id, request_id="first")
    till.open(key_id=key.id, kind=CallKind.TOOL)
    with pytest.raises(LimitExceeded) as refused:
        till.open(key_id=key.id, request_id="third")
    assert (refused.value.retry_after_s, refused.value.limit, refused.value.unit) == (40.0, 2, "requests")
    till.open(request_id="of nobody")
    till.now += 41 * SECOND
    till.open(key_id=key.id, request_id="second")
    till.now += 20 * SECOND
    till.open(key_id=key.id, request_id="third")


def test_a_keys_tokens_count_at_their_worst_until_they_are_known(till: Till) -> None:
    key = till.make_key("wordy", tokens_per_minute=100)
    call = till.open(key_id=key.id, reserve_tokens=80)
    with pytest.raises(LimitExceeded) as refused:
        till.open(key_id=key.id, reserve_tokens=30)
    assert (refused.value.remaining, refused.value.unit) == (20, "tokens")
    till.settle(call, 1, tokens=10)
    till.open(key_id=key.id, reserve_tokens=90)
    till.now += 61 * SECOND
    till.open(key_id=key.id, reserve_tokens=500)  # larger than the limit: alone in its minute
    with pytest.raises(LimitExceeded):
        till.open(key_id=key.id, reserve_tokens=1)


def test_a_keys_calls_at_once_are_those_that_are_open(till: Till) -> None:
    key = till.make_key("narrow", max_parallel=2)
    first, _ = till.open(key_id=key.id), till.open(key_id=key.id)
    with pytest.raises(LimitExceeded, match="2 requests at once"):
        till.open(key_id=key.id)
    till.settle(first, 1)
    till.open(key_id=key.id)


def test_a_keys_models_are_held_against_every_name_of_a_call(till: Till) -> None:
    key = till.make_key("picky", allowed_models=("fast", "sim/e*"))
    till.open(key_id=key.id)
    till.open(key_id=key.id, requested_model="fast", provider="other")
    till.open(key_id=key.id, kind=CallKind.TOOL, provider="server", model="tool")
    for names in ({"provider": "other"}, {"model": "x"}, {"requested_model": "FAST", "provider": "other"}):
        with pytest.raises(Forbidden, match="picky may not use"):
            till.open(key_id=key.id, **names)


def test_where_several_refuse_nothing_is_written(till: Till) -> None:
    till.set_budget("one", 100)
    till.set_budget("two", 50, scope=Scope.PROVIDER, subject="sim")
    with pytest.raises(BudgetExceeded, match="two"):
        till.open(60)
    assert till.sums("one") == till.sums("two") == (0, 0, 0)
