"""Queries on budgets, and the sums of ledger rows that they are held against.

What counts against a budget are the rows of calls that began in its current period, each at its cost, or at what was reserved
for it while its cost is not known:

- calls that are open, or whose end nobody saw, are summed up from their rows each time (a small index): a reservation is
  never counted anywhere else, so that none can be left behind;
- calls that are settled are summed up in `settled_picousd`, which changes in the transaction that settles the row, once a
  row, and is taken anew from all rows when a period begins and when a budget is set (and once more as soon as every
  transaction that did not see it yet has ended).

Locks on PostgreSQL: a budget's row is locked before it is read or changed, several in the order of their ids, after rows of
`requests` and `api_keys` and before rows of `runs`.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Select,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
    update,
)

from engine.store.database import Row, Tx
from engine.store.locked_budgets import LockedBudgets
from engine.store.partial_index import UNSETTLED
from engine.store.requests import TAG_PLACE, tag_text
from engine.store.statements import Statement, one_of
from engine.store.tables import alerts, api_keys, budgets, requests

RESERVED_AT_MOST_US = 30 * 86_400 * 1_000_000
"""A call that never settles counts at its worst case until its budget's period ends, and for 30 days at most."""

_WHAT_COUNTS = ("provider", "model", "requested_model", "workflow_name", "key_id")  # and tags
_PLAIN_TARGETS = 7  # all, provider, three names of the model, workflow, key
_TAGS = 20


def _counting(places: int) -> Select[Any]:
    """The budgets that count a call: by its targets, or by its key's name."""
    own_name = select("key:" + api_keys.c.name).where(api_keys.c.id == bindparam("key_id")).scalar_subquery()
    targets: list[BindParameter[str]] = [bindparam(f"target{number}") for number in range(places)]
    return select(budgets).where(budgets.c.target.in_([*targets, own_name])).order_by(budgets.c.id)


_PLACES = (_PLAIN_TARGETS, _PLAIN_TARGETS + _TAGS)
_LOCK_COUNTING = {places: Statement(_counting(places).with_for_update()) for places in _PLACES}
_REJECTING = {places: Statement(_counting(places).where(budgets.c.action == "reject")) for places in _PLACES}
_LOCK_REJECTING = {
    places: Statement(_counting(places).where(budgets.c.action == "reject").with_for_update()) for places in _PLACES
}
_KEYS_OF_THAT_NAME = select(api_keys.c.id).where(
    or_(api_keys.c.id == bindparam("subject"), api_keys.c.name == bindparam("subject"))
)
_MODEL_NAMES = (requests.c.model, requests.c.requested_model, requests.c.provider + "/" + requests.c.model)
_IN_SCOPE: Mapping[str, ColumnElement[bool]] = {
    "all": literal_column("1") == literal_column("1"),
    "key": requests.c.key_id.in_(_KEYS_OF_THAT_NAME),
    "workflow": requests.c.workflow_name == bindparam("subject"),
    "provider": requests.c.provider == bindparam("subject"),
    "model": or_(*(name == bindparam("subject") for name in _MODEL_NAMES)),
}
_WORST = func.coalesce(func.sum(func.coalesce(requests.c.cost_picousd, requests.c.reserved_picousd, 0)), 0)
_SETTLED_ROWS = (one_of(requests.c.status, ["succeeded", "failed"]), requests.c.started_us >= bindparam("since"))
_OPEN_ROWS = (text(UNSETTLED), requests.c.started_us >= bindparam("since"))


def _sums(condition: tuple[Any, ...], in_scope: Mapping[str, ColumnElement[bool]]) -> dict[tuple[str, str], Statement]:
    """By scope and dialect: only a tag is looked for in a text, exactly, as `json_text.dumps` writes it."""
    made: dict[tuple[str, str], Statement] = {}
    for dialect, find in TAG_PLACE.items():
        scopes = {**in_scope, "tag": find(requests.c.tags, bindparam("subject")) > 0}
        for scope, matches in scopes.items():
            made[scope, dialect] = Statement(select(_WORST.label("picousd")).where(*condition, matches))
    return made


_SETTLED_SUM = _sums(_SETTLED_ROWS, _IN_SCOPE)
# Of one key too, open calls are few and all its calls are many: SQLite would else look through those.
_OPEN_SUM = _sums(_OPEN_ROWS, {**_IN_SCOPE, "key": func.coalesce(requests.c.key_id, "").in_(_KEYS_OF_THAT_NAME)})
_INSERT = Statement(insert(budgets), columns=tuple(column.name for column in budgets.c))
_BY_NAME = select(budgets).where(budgets.c.name == bindparam("named"))
_LOCK_BY_NAME = Statement(_BY_NAME.with_for_update())
_GET_BY_NAME = Statement(_BY_NAME)
_ALL = Statement(select(budgets).order_by(budgets.c.id))
_DEFINED = ("origin", "scope", "subject", "target", "limit_picousd", "period", "zone", "action", "alert_at_json")
_COUNTED = ("period_start_us", "resets_us", "settled_picousd", "resum_us", "alerted")
_CHANGE = Statement(
    update(budgets)
    .where(budgets.c.id == bindparam("budget"))
    .values(**{name: bindparam(f"new_{name}") for name in (*_DEFINED, *_COUNTED, "updated_us")})
)
_BEGIN_PERIOD = Statement(
    update(budgets)
    .where(budgets.c.id == bindparam("budget"))
    .values(**{name: bindparam(f"new_{name}") for name in _COUNTED})
)
_ALERTED = Statement(update(budgets).where(budgets.c.id == bindparam("budget")).values(alerted=bindparam("threshold")))
_DELETE = Statement(delete(budgets).where(budgets.c.id == bindparam("budget")))
_DELETE_ALERTS = Statement(delete(alerts).where(alerts.c.budget_id == bindparam("budget")))


def lock_counting(tx: Tx, call: Mapping[str, Any]) -> list[Row]:
    """The budgets that count a call, locked. `call`: provider, model, requested_model, workflow_name, key_id, tags (a mapping)."""
    return _known_of_call(tx, _LOCK_COUNTING, call)


def lock_rejecting(tx: Tx, call: Mapping[str, Any]) -> list[Row]:
    """Those of them that refuse a call which does not fit, locked."""
    return _known_of_call(tx, _LOCK_REJECTING, call)


def rejecting(tx: Tx, call: Mapping[str, Any]) -> list[Row]:
    """The same, for reading."""
    tx.kept(LockedBudgets).write()
    return _of_call(tx, _REJECTING, call)


def _known_of_call(tx: Tx, statements: Mapping[int, Statement], call: Mapping[str, Any]) -> list[Row]:
    which = (id(statements), *map(call.__getitem__, _WHAT_COUNTS), *call["tags"].items())
    return tx.kept(LockedBudgets).listed(which, lambda: _of_call(tx, statements, call))


def _of_call(tx: Tx, statements: Mapping[int, Statement], call: Mapping[str, Any]) -> list[Row]:
    provider, model, key_id = call["provider"], call["model"], call["key_id"]
    found: dict[str, Any] = {
        "target0": "all",
        "target1": f"provider:{provider}",
        "target2": f"model:{model}",
        "target3": f"model:{call['requested_model']}",
        "target4": f"model:{provider}/{model}",
        "target5": f"workflow:{call['workflow_name']}",
        "target6": f"key:{key_id}",
        "key_id": key_id,
    }
    if not call["tags"]:
        return tx.all(statements[_PLAIN_TARGETS], found)
    tags = [f"tag:{name}:{value}" for name, value in call["tags"].items()][:_TAGS]
    tags += [""] * (_TAGS - len(tags))
    found |= {f"target{number}": tag for number, tag in enumerate(tags, _PLAIN_TARGETS)}
    return tx.all(statements[_PLAIN_TARGETS + _TAGS], found)


def open_picousd(tx: Tx, budget: Row, now: int) -> int:
    """The worst case of the budget's calls that are under way or whose end nobody saw."""
    return _sum(tx, _OPEN_SUM, budget, _reserved_since(budget, now))


def open_in_locked(tx: Tx, budget: Row, now: int) -> int:
    """The same for a budget of `lock_rejecting`."""
    known = tx.kept(LockedBudgets)
    return known.open_picousd(budget, _reserved_since(budget, now), lambda since: _sum(tx, _OPEN_SUM, budget, since))


def _reserved_since(budget: Row, now: int) -> int:
    return max(budget["period_start_us"], now - RESERVED_AT_MOST_US)


def settled_picousd(tx: Tx, budget: Row, since_us: int) -> int:
    """What the budget's settled calls since then come to, from all their rows."""
    return _sum(tx, _SETTLED_SUM, budget, since_us)


def _sum(tx: Tx, statements: Mapping[tuple[str, str], Statement], budget: Row, since_us: int) -> int:
    scope, subject = budget["scope"], budget["subject"]
    parameters: dict[str, Any] = {"since": since_us}
    if scope == "tag":
        name, _, value = subject.partition(":")
        parameters["subject"] = tag_text(name, value)
    elif scope != "all":
        parameters["subject"] = subject
    row = tx.one(statements[scope, tx.dialect], parameters)
    assert row is not None
    return int(row["picousd"])


def begin_period(tx: Tx, budget_id: str, counted: Mapping[str, Any]) -> None:
    """Write period_start_us, resets_us, settled_picousd, resum_us and alerted."""
    tx.kept(LockedBudgets).forget()
    tx.run(_BEGIN_PERIOD, {"budget": budget_id} | {f"new_{name}": counted[name] for name in _COUNTED})


def add_settled(tx: Tx, budget: Row, picousd: int) -> None:
    """A call of the current period was settled; the locked row tells the new sum at once."""
    tx.kept(LockedBudgets).add(budget, picousd)


def set_alerted(tx: Tx, budget: Row, threshold: int) -> None:
    """The highest threshold that was told in this period."""
    budget["alerted"] = threshold
    tx.run(_ALERTED, {"budget": budget["id"], "threshold": threshold})


def all_budgets(tx: Tx) -> list[Row]:
    """All of them."""
    tx.kept(LockedBudgets).write()
    return tx.all(_ALL)


def lock_budget(tx: Tx, name: str) -> Row | None:
    """The budget of that name, locked."""
    tx.kept(LockedBudgets).write()
    return tx.one(_LOCK_BY_NAME, {"named": name})


def get_budget(tx: Tx, name: str) -> Row | None:
    """The same, for reading."""
    tx.kept(LockedBudgets).write()
    return tx.one(_GET_BY_NAME, {"named": name})


def insert_budget(tx: Tx, row: Row) -> None:
    """Store a new budget."""
    tx.kept(LockedBudgets).forget()
    tx.run(_INSERT, row)


def change_budget(tx: Tx, row: Row) -> None:
    """Replace all but the name and the time of creation."""
    tx.kept(LockedBudgets).forget()
    tx.run(_CHANGE, {"budget": row["id"]} | {f"new_{name}": row[name] for name in (*_DEFINED, *_COUNTED, "updated_us")})


def delete_budget(tx: Tx, budget_id: str) -> None:
    """Remove a budget and its alerts."""
    tx.kept(LockedBudgets).forget()
    tx.run(_DELETE_ALERTS, {"budget": budget_id})
    tx.run(_DELETE, {"budget": budget_id})
