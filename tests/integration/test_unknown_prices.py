"""Who is told of a model whose price nobody knows: once a model and day, whatever number of calls and processes, on both databases."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from budget_hand import DAY, Till, opened

from engine.admission import open_admitted
from engine.alerts import tell_alerts
from engine.errors import UserError
from engine.ledger import CallKind, refuse_unknown_price
from engine.store.database import Tx
from engine.store.deliveries import due_deliveries


@pytest.fixture
def till(database_url: str) -> Iterator[Till]:
    with opened(database_url) as till:
        yield till


def told(till: Till) -> list[dict[str, Any]]:
    return till.do(lambda tx: tell_alerts(tx, "http://127.0.0.1:9/alerts", till.now))


def test_it_is_told_once_a_model_and_day(till: Till) -> None:
    till.open(0)
    till.open(100)
    till.open(None, kind=CallKind.TOOL)
    assert told(till) == []
    for _ in range(3):
        till.open(None)
    till.open(None, model="other")
    alerts = told(till)
    assert {(alert["alert"], alert["provider"], alert["model"]) for alert in alerts} == {
        ("price.unknown", "sim", "echo"),
        ("price.unknown", "sim", "other"),
    }
    till.open(None)
    assert told(till) == []
    till.now += DAY
    till.open(None)
    assert len(told(till)) == 1

    def queued(tx: Tx) -> list[str]:
        return [row["type"] for row in due_deliveries(tx, till.now, 10)]

    assert till.read(queued) == ["price.unknown"] * 3


def test_many_at_once_tell_it_once_and_none_waits_for_another_for_ever(till: Till) -> None:
    till.set_budget("all", 10**15, alert_at=(1,))
    intents = [till.intent(None if number % 2 else 10**14, key_id=None) for number in range(40)]

    async def main() -> None:
        opening = [till.database.write(lambda tx, i=intent: open_admitted(tx, i, till.worker)) for intent in intents]
        async with asyncio.timeout(20):
            await asyncio.gather(*opening)

    asyncio.run(main())
    assert [alert["alert"] for alert in told(till)].count("price.unknown") == 1


def test_reject_refuses_it_by_name(till: Till) -> None:
    with pytest.raises(UserError, match=r"no price is known for sim/echo .* set providers\.sim\.prices"):
        refuse_unknown_price(till.intent(None))
    refuse_unknown_price(till.intent(0))
