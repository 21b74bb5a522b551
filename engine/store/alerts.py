"""Queries on alerts: a row for each threshold of a budget that was reached, once in a period."""

from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from engine.store.database import Row, Tx
from engine.store.statements import Statement
from engine.store.tables import alerts

_COLUMNS = tuple(column.name for column in alerts.c)
_INSERT = {
    "sqlite": Statement(sqlite.insert(alerts).on_conflict_do_nothing(), columns=_COLUMNS),
    "postgresql": Statement(postgresql.insert(alerts).on_conflict_do_nothing(), columns=_COLUMNS),
}
_UNTOLD = Statement(
    select(alerts)
    .where(alerts.c.told_us.is_(None))
    .order_by(alerts.c.at_us, alerts.c.threshold)
    .limit(bindparam("most"))
)
_TELL = Statement(
    update(alerts)
    .where(
        alerts.c.budget_id == bindparam("budget"),
        alerts.c.period_start_us == bindparam("start"),
        alerts.c.threshold == bindparam("reached"),
        alerts.c.told_us.is_(None),
    )
    .values(told_us=bindparam("now"))
)
_OF_PERIOD = Statement(
    select(alerts)
    .where(alerts.c.budget_id == bindparam("budget"), alerts.c.period_start_us == bindparam("start"))
    .order_by(alerts.c.threshold)
)


def insert_alert(tx: Tx, row: dict[str, Any]) -> bool:
    """Store an alert; False where this threshold was reached in this period before."""
    return tx.run(_INSERT[tx.dialect], row) == 1


def untold_alerts(tx: Tx, most: int) -> list[Row]:
    """Alerts that nobody has been told of, oldest first."""
    return tx.all(_UNTOLD, {"most": most})


def take_alert(tx: Tx, alert: Row, now: int) -> bool:
    """Mark as told; False where another process was faster."""
    found = {"budget": alert["budget_id"], "start": alert["period_start_us"], "reached": alert["threshold"]}
    return tx.run(_TELL, {**found, "now": now}) == 1


def alerts_of(tx: Tx, budget_id: str, period_start_us: int) -> list[Row]:
    """A budget's alerts in one period."""
    return tx.all(_OF_PERIOD, {"budget": budget_id, "start": period_start_us})
