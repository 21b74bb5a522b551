"""Budgets: limits on what calls may cost together, by key, workflow, provider, model, tag or over all.

A call is held against every budget that counts it, in the transaction that writes its intent (`engine.admission`), and is
added to them in the transaction that settles it. What counts is in `engine/store/budgets.py`. A call belongs to the period in
which it began, whenever it ends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine.budget_spec import WHOLE, Action, BudgetSpec, Origin, Scope
from engine.clock import iso, new_id
from engine.money import to_usd, usd_text
from engine.periods import Period, reset_text, span_at
from engine.store.alerts import alerts_of, insert_alert
from engine.store.budgets import (
    add_settled,
    all_budgets,
    begin_period,
    change_budget,
    delete_budget,
    get_budget,
    insert_budget,
    lock_budget,
    lock_counting,
    open_in_locked,
    open_picousd,
    rejecting,
    set_alerted,
    settled_picousd,
)
from engine.store.database import Row, Tx
from engine.store.json_text import dumps, loads
from engine.store.locked_budgets import LockedBudgets
from engine.store.locks import lock_name

REFUSED = 0
"""The threshold of the alert that the first refused call of a period raises."""
_RESUM_AFTER_US = 15_000_000  # longer than any transaction waits for its locks
_SETTING = "budgets"  # the lock of whoever sets some: processes that start together take the file's up one by one
_NAMES = {Period.DAY: "daily limit", Period.MONTH: "monthly limit", Period.TOTAL: "budget"}


def put_budget(tx: Tx, spec: BudgetSpec, origin: Origin, now: int) -> None:
    """Set the budget of that name. What was spent in the period counts, also where the budget is new; a key's own stays its own."""
    lock_name(tx, _SETTING)
    found = lock_budget(tx, spec.name)
    stored = found and current(tx, found, now)
    if stored and stored["origin"] == Origin.KEY.value:
        spec, origin = replace(spec, scope=Scope.KEY, subject=stored["subject"]), Origin.KEY
    row: Row = {
        "id": stored["id"] if stored else new_id(),
        "name": spec.name,
        "origin": origin.value,
        "scope": spec.scope.value,
        "subject": spec.subject,
        "target": spec.target,
        "limit_picousd": spec.limit_picousd,
        "period": spec.period.value,
        "zone": spec.zone,
        "action": spec.action.value,
        "alert_at_json": dumps(sorted(set(spec.alert_at))),
        "created_us": stored["created_us"] if stored else now,
        "updated_us": now,
    }
    if stored and all(stored[part] == row[part] for part in ("target", "period", "zone")):
        row |= {name: stored[name] for name in ("period_start_us", "resets_us", "settled_picousd", "resum_us")}
        row["alerted"] = 0  # of another limit; what was told already is not told again
    else:
        row |= _fresh_period(tx, row, now) | {"resum_us": now + _RESUM_AFTER_US}
    if stored:
        change_budget(tx, row)
    else:
        insert_budget(tx, row)
    _alert(tx, row, now)


def take_up_budgets(tx: Tx, specs: Sequence[BudgetSpec], now: int) -> list[str]:
    """Make the stored budgets follow the configuration file; returns the names that keep what was set over HTTP instead."""
    lock_name(tx, _SETTING)
    stored = {row["name"]: row for row in all_budgets(tx)}
    overridden: list[str] = []
    for spec in specs:
        row = stored.get(spec.name)
        if row is not None and row["origin"] != Origin.CONFIG.value:
            overridden.append(spec.name)
        elif row is None or _spec_of(row) != replace(spec, alert_at=tuple(sorted(set(spec.alert_at)))):
            put_budget(tx, spec, Origin.CONFIG, now)
    wanted = {spec.name for spec in specs}
    for name, row in stored.items():
        if row["origin"] == Origin.CONFIG.value and name not in wanted:
            delete_budget(tx, row["id"])
    return overridden


def replace_budgets(tx: Tx, specs: Sequence[BudgetSpec], now: int) -> None:
    """Make these the budgets that are set over HTTP; those of the file and of keys stay where no new one has their name."""
    lock_name(tx, _SETTING)
    wanted = {spec.name for spec in specs}
    for row in all_budgets(tx):
        if row["origin"] == Origin.HTTP.value and row["name"] not in wanted:
            delete_budget(tx, row["id"])
    for spec in specs:
        put_budget(tx, spec, Origin.HTTP, now)


def current(tx: Tx, budget: Row, now: int) -> Row:
    """The locked row in the period of `now`, which begins with the first call in it. A clock that lags behind begins none."""
    if not _stale(budget, now):
        return budget
    fresh = _seen(tx, budget, now)
    begin_period(tx, budget["id"], fresh)
    return fresh


def refusal(tx: Tx, budget: Row, reserve_picousd: int | None, now: int) -> str | None:
    """Why a call of that worst case does not fit into the locked, current budget; None where it does.

    A free call always fits. A call whose price nobody knows fits for as long as anything is left.
    """
    if reserve_picousd == 0:
        return None
    left = budget["limit_picousd"] - budget["settled_picousd"] - open_in_locked(tx, budget, now)
    if left > 0 if reserve_picousd is None else reserve_picousd <= left:
        return None
    if budget["alert_at_json"] != "[]":
        _note(tx, budget, REFUSED, now)
    cost = "a call of unknown price" if reserve_picousd is None else f"a call of up to {usd_text(reserve_picousd)} USD"
    limit, rest = usd_text(budget["limit_picousd"]), usd_text(max(0, left))
    return (
        f"{_NAMES[Period(budget['period'])]} reached ({budget['name']}): {rest} of {limit} USD are left, "
        f"too little for {cost}; {reset_text(budget['resets_us'], budget['zone'], now)}"
    )


def add_spend(tx: Tx, call: Row, picousd: int, now: int) -> None:
    """Add a call whose row was settled just now to the budgets that count it, and note the thresholds that this reaches."""
    counting = lock_counting(tx, {**call, "tags": loads(call["tags"])})
    tx.kept(LockedBudgets).change_open(counting, call["started_us"], -(call["reserved_picousd"] or 0))
    for row in counting:
        budget = current(tx, row, now)
        if call["started_us"] < budget["period_start_us"]:
            continue
        if budget is row:  # else it was summed up from the rows just now, this one among them
            add_settled(tx, budget, picousd)
        _alert(tx, budget, now)


def left_for(tx: Tx, call: Mapping[str, Any], now: int) -> int | None:
    """The least that is left in the budgets that would refuse such a call; None where none would."""
    rows = [_seen(tx, row, now) for row in rejecting(tx, call)]
    return min(
        (row["limit_picousd"] - row["settled_picousd"] - open_picousd(tx, row, now) for row in rows), default=None
    )


def budget_of_key(tx: Tx, key_id: str, now: int) -> dict[str, Any] | None:
    """The view of a key's own budget, None where it has none."""
    row = get_budget(tx, f"key-{key_id}")
    return None if row is None else budget_view(tx, row, now)


def budget_view(tx: Tx, row: Row, now: int) -> dict[str, Any]:
    """A budget as users see it, in the period of `now`, without changing anything."""
    row = _seen(tx, row, now)
    reserved = open_picousd(tx, row, now)
    told = alerts_of(tx, row["id"], row["period_start_us"])
    return {
        **_facts(row),
        "reserved_usd": to_usd(reserved),
        "remaining_usd": to_usd(max(0, row["limit_picousd"] - row["settled_picousd"] - reserved)),
        "alerts": [
            {
                "threshold": alert["threshold"] / WHOLE or None,
                "refused": alert["threshold"] == REFUSED,
                "at": iso(alert["at_us"]),
            }
            for alert in told
        ],
    }


def _facts(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "origin": row["origin"],
        "scope": row["scope"],
        "match": row["subject"],
        "limit_usd": to_usd(row["limit_picousd"]),
        "period": row["period"],
        "zone": row["zone"],
        "action": row["action"],
        "alert_at": [threshold / WHOLE for threshold in loads(row["alert_at_json"])],
        "period_started_at": iso(row["period_start_us"]) if row["resets_us"] is not None else None,
        "resets_at": iso(row["resets_us"]) if row["resets_us"] is not None else None,
        "spent_usd": to_usd(row["settled_picousd"]),
    }


def _stale(budget: Row, now: int) -> bool:
    return any(due is not None and now >= due for due in (budget["resets_us"], budget["resum_us"]))


def _seen(tx: Tx, budget: Row, now: int) -> Row:
    """The row with its sum taken anew where that is due."""
    if not _stale(budget, now):
        return budget
    fresh = _fresh_period(tx, budget, now)
    if fresh["period_start_us"] <= budget["period_start_us"]:
        start = budget["period_start_us"]
        return {**budget, "settled_picousd": settled_picousd(tx, budget, start), "resum_us": None}
    return {**budget, **fresh}


def _fresh_period(tx: Tx, budget: Row, now: int) -> dict[str, Any]:
    span = span_at(Period(budget["period"]), budget["zone"], now)
    return {
        "period_start_us": span.start_us,
        "resets_us": span.resets_us,
        "settled_picousd": settled_picousd(tx, budget, span.start_us),
        "resum_us": None,
        "alerted": 0,
    }


def _alert(tx: Tx, budget: Row, now: int) -> None:
    """Note the thresholds that are reached and were not before in this period."""
    spent, limit = budget["settled_picousd"], budget["limit_picousd"]
    reached = [
        threshold
        for threshold in loads(budget["alert_at_json"])
        if threshold > budget["alerted"] and spent > 0 and spent * WHOLE >= threshold * limit
    ]
    for threshold in reached:
        _note(tx, budget, threshold, now)
    if reached:
        set_alerted(tx, budget, reached[-1])


def _note(tx: Tx, budget: Row, threshold: int, now: int) -> None:
    """The primary key keeps it to once a period, whoever else notes the same."""
    told = {"threshold": threshold / WHOLE or None, "refused": threshold == REFUSED}
    insert_alert(
        tx,
        {
            "budget_id": budget["id"],
            "period_start_us": budget["period_start_us"],
            "threshold": threshold,
            "data_json": dumps({**_facts(budget), **told}),
            "at_us": now,
            "told_us": None,
        },
    )


def _spec_of(row: Row) -> BudgetSpec:
    return BudgetSpec(
        name=row["name"],
        limit_picousd=row["limit_picousd"],
        period=Period(row["period"]),
        scope=Scope(row["scope"]),
        subject=row["subject"],
        zone=row["zone"],
        action=Action(row["action"]),
        alert_at=tuple(loads(row["alert_at_json"])),
    )
