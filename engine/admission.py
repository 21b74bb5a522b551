"""Whether a call may be made: its key's models and limits, and every budget that counts it. And its settlement.

`admit` runs in the transaction that writes the intent, before it, so that no number of processes can overshoot together: on
SQLite a transaction that writes is alone, on PostgreSQL the key's row and the budgets' rows are locked first. A refusal is
returned, not raised: it has nothing to undo, and a member that fails costs its whole commit group.

A key's limits count its rows of the last 60 seconds. Calls of tools count against budgets alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.alerts import note_unknown_price
from engine.api_keys import ApiKey, key_by_id
from engine.budgets import add_spend, current, left_for, refusal
from engine.errors import AIGatewayError, BudgetExceeded, Forbidden, LimitExceeded
from engine.ledger import LIMITED, CallScope, Intent, Settlement
from engine.store.api_keys import in_flight, lock_key, requests_lately, tokens_lately
from engine.store.budgets import lock_rejecting
from engine.store.database import Row, Tx
from engine.store.locked_budgets import LockedBudgets
from engine.store.requests import open_request, settle_request
from engine.workflow_grants import granted_by_workflow

MINUTE_US = 60_000_000
_LONGEST_CALL_US = 86_400_000_000
_PARALLEL_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a key stands with one of its limits once the call is made. `unit` is requests or tokens, of one minute.

    `resets_s` is when the oldest call that counts will be a minute old, and there is more room.
    """

    unit: str
    limit: int
    remaining: int
    resets_s: float


@dataclass(slots=True)
class Admission:
    """Whether a call may be made: `refused` None. `standings` are those of the key's limits that were looked at, `budgets` the
    locked budgets that it fits into.
    """

    refused: AIGatewayError | None = None
    standings: tuple[Standing, ...] = ()
    budgets: Sequence[Row] = ()


def open_admitted(tx: Tx, intent: Intent, worker_id: str, key: ApiKey | None = None) -> Admission:
    """Write the intent where the call may be made, else return why not: Forbidden, LimitExceeded or BudgetExceeded.

    `key`: the intent's, where the caller has it at hand; else it is looked up.
    """
    note_unknown_price(tx, intent)
    admission = admit(tx, intent, key)
    if admission.refused is None:
        write_intent(tx, intent, worker_id, admission)
    return admission


def write_intent(tx: Tx, intent: Intent, worker_id: str, admission: Admission) -> None:
    """Write the intent of a call that `admit` let through in this transaction."""
    open_request(tx, intent, worker_id)
    if admission.budgets and intent.reserve_picousd:
        tx.kept(LockedBudgets).change_open(admission.budgets, intent.at_us, intent.reserve_picousd)


def admit(tx: Tx, intent: Intent, key: ApiKey | None = None) -> Admission:
    """Whether this call may be made now. The locks hold until the transaction ends."""
    admission = Admission()
    if intent.scope.key_id is not None and intent.kind in LIMITED:
        key = key or key_by_id(tx, intent.scope.key_id)
        admission = admission if key is None else _by_key(tx, key, intent)
    if admission.refused is not None or intent.reserve_picousd == 0:
        return admission
    return _by_budgets(tx, intent, admission.standings)


def settle_call(tx: Tx, done: Settlement) -> None:
    """Write how a call ended, and add it to the budgets that count it. Safe to repeat: the first settlement stands."""
    call = settle_request(tx, done)
    if call is None:
        return
    worth = call["reserved_picousd"] if done.cost_picousd is None else done.cost_picousd
    if worth:
        add_spend(tx, call, worth, done.finished_us)
    else:
        tx.kept(LockedBudgets).forget_open()


def left_in_budgets(tx: Tx, scope: CallScope, now: int) -> int | None:
    """The least that is left in budgets that would refuse calls of that scope, whatever their model; None where none would."""
    nowhere = {"provider": "", "model": "", "requested_model": ""}
    return left_for(tx, nowhere | _of_scope(scope), now)


def _call_of(intent: Intent) -> Mapping[str, Any]:
    return {
        "provider": intent.provider,
        "model": intent.model,
        "requested_model": intent.requested_model,
        **_of_scope(intent.scope),
    }


def _of_scope(scope: CallScope) -> dict[str, Any]:
    return {"workflow_name": scope.workflow_name, "key_id": scope.key_id, "tags": scope.tags}


def _by_budgets(tx: Tx, intent: Intent, standings: tuple[Standing, ...]) -> Admission:
    rows = lock_rejecting(tx, _call_of(intent))
    for row in rows:
        message = refusal(tx, current(tx, row, intent.at_us), intent.reserve_picousd, intent.at_us)
        if message is not None:
            return Admission(BudgetExceeded(message), standings)
    return Admission(None, standings, rows)


def _by_key(tx: Tx, key: ApiKey, intent: Intent) -> Admission:
    if not _allowed(tx, key, intent):
        message = f"the key {key.name} may not use {intent.requested_model}"
        return Admission(Forbidden("model_not_allowed", message, param="model"))
    if not key.limits.counted:
        return Admission()
    lock_key(tx, key.id)
    standings: list[Standing] = []
    for look in (_requests, _tokens):
        found = look(tx, key, intent)
        if isinstance(found, LimitExceeded):
            return Admission(found, tuple(standings))
        if found is not None:
            standings.append(found)
    return Admission(_too_parallel(tx, key, intent), tuple(standings))


def _allowed(tx: Tx, key: ApiKey, intent: Intent) -> bool:
    run_id = intent.scope.run_id
    own = key.allows(intent.requested_model, f"{intent.provider}/{intent.model}")
    return own or (run_id is not None and granted_by_workflow(tx, key, run_id))


def _requests(tx: Tx, key: ApiKey, intent: Intent) -> Standing | LimitExceeded | None:
    """A client request counts once, however many attempts it takes, and so does an attempt of a step."""
    limit = key.limits.requests_per_minute
    if limit is None:
        return None
    made, first_us = requests_lately(tx, key.id, intent.at_us - MINUTE_US, intent.scope.request_id)
    if made < limit:
        return Standing("requests", limit, limit - made - 1, _room_in_s(first_us, intent))
    return _limited(key, intent, "requests", limit, first_us=first_us)


def _tokens(tx: Tx, key: ApiKey, intent: Intent) -> Standing | LimitExceeded | None:
    """Calls under way count at their worst case. One that alone could use more than the limit waits for a quiet minute."""
    limit = key.limits.tokens_per_minute
    if limit is None:
        return None
    used, first_us = tokens_lately(tx, key.id, intent.at_us - MINUTE_US)
    if used == 0 or used + intent.reserve_tokens <= limit:
        left = max(0, limit - used - intent.reserve_tokens)
        return Standing("tokens", limit, left, _room_in_s(first_us, intent))
    return _limited(key, intent, "tokens", limit, first_us=first_us, remaining=max(0, limit - used))


def _too_parallel(tx: Tx, key: ApiKey, intent: Intent) -> LimitExceeded | None:
    limit = key.limits.max_parallel
    if limit is None or in_flight(tx, key.id, intent.at_us - _LONGEST_CALL_US) < limit:
        return None
    return _limited(key, intent, "parallel", limit, first_us=None)


def _room_in_s(first_us: int | None, intent: Intent) -> float:
    """When the oldest call that counts is a minute old: this one, where there is no other."""
    oldest_us = intent.at_us if first_us is None else first_us
    return max(0.0, (oldest_us + MINUTE_US - intent.at_us) / 1_000_000)


def _limited(
    key: ApiKey, intent: Intent, unit: str, limit: int, *, first_us: int | None, remaining: int = 0
) -> LimitExceeded:
    """`first_us`: when the oldest call began that counts, behind whose minute there is room again."""
    wait_s = _PARALLEL_RETRY_S if first_us is None else _room_in_s(first_us, intent)
    measure = "requests at once" if unit == "parallel" else f"{unit} per minute"
    message = f"rate limit reached: the key {key.name} may use {limit} {measure}; try again in {wait_s:.0f} s"
    return LimitExceeded(message, retry_after_s=wait_s, unit=unit, limit=limit, remaining=remaining)
