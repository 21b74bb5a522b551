"""Queries on the ledger. Sums are always computed from rows, never from counters that drift."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select, and_, bindparam, case, func, insert, select, text, update

from engine.ledger import CostSource, Intent, Settlement
from engine.store.database import Row, Tx
from engine.store.json_text import dumps, storable
from engine.store.partial_index import UNSETTLED
from engine.store.statements import Statement, one_of
from engine.store.tables import requests, runs, steps

_OPEN_COLUMNS = (
    "id",
    "request_id",
    "started_us",
    "workflow_name",
    "run_id",
    "step_id",
    "attempt",
    "worker_id",
    "kind",
    "provider",
    "model",
    "requested_model",
    "key_id",
    "tags",
    "status",
    "cost_source",
    "reserved_picousd",
    "reserved_tokens",
    "streamed",
)
_OPEN = Statement(insert(requests), columns=_OPEN_COLUMNS)
_SETTLED = (
    "status",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "cost_picousd",
    "cost_source",
    "latency_ms",
    "ttft_ms",
    "success",
    "status_code",
    "error_class",
    "error",
    "finished_us",
)
# A settlement that arrives after its worker was declared dead still replaces `unknown`: the money was spent.
# The reservation stays in the row: it counts for as long as no cost is known.
_SETTLE = Statement(
    update(requests)
    .where(requests.c.id == bindparam("call"), one_of(requests.c.status, ["started", "unknown"]))
    .values(**{name: bindparam(f"new_{name}") for name in _SETTLED})
    .returning(
        *(requests.c[name] for name in ("started_us", "workflow_name", "provider", "model", "requested_model")),
        *(requests.c[name] for name in ("key_id", "tags", "reserved_picousd")),
    )
)
_ABANDON = Statement(
    update(requests)
    .where(text(UNSETTLED), requests.c.worker_id == bindparam("worker"), requests.c.status == "started")
    .values(
        status="unknown",
        success=False,
        cost_source=CostSource.UNKNOWN.value,
        error_class="worker_lost",
        error="the process that made this call died before it saw the answer",
        finished_us=bindparam("now"),
    )
)
# A call under way has no cost yet: it is not one whose cost nobody will know.
_IS_UNKNOWN = and_(requests.c.cost_source == CostSource.UNKNOWN.value, requests.c.status != "started")
_UNKNOWN_CALLS = func.sum(case((_IS_UNKNOWN, 1), else_=0))
SUMS = (
    func.count().label("calls"),
    func.coalesce(func.sum(requests.c.cost_picousd), 0).label("cost_picousd"),
    func.coalesce(_UNKNOWN_CALLS, 0).label("unknown_calls"),
    func.coalesce(func.sum(requests.c.saved_picousd), 0).label("saved_picousd"),
    func.coalesce(func.sum(requests.c.prompt_tokens), 0).label("prompt_tokens"),
    func.coalesce(func.sum(requests.c.completion_tokens), 0).label("completion_tokens"),
    func.coalesce(func.sum(requests.c.total_tokens), 0).label("total_tokens"),
    func.coalesce(func.sum(requests.c.cached_tokens), 0).label("cached_tokens"),
    func.coalesce(func.sum(requests.c.cache_write_tokens), 0).label("cache_write_tokens"),
    func.coalesce(func.sum(requests.c.reasoning_tokens), 0).label("reasoning_tokens"),
)
_root = select(runs.c.id).where(runs.c.id == bindparam("run")).cte("family", recursive=True)
_family = _root.union_all(select(runs.c.id).where(runs.c.parent_run_id == _root.c.id))
_OF_FAMILY = requests.c.run_id.in_(select(_family.c.id))  # of a run and of those that its steps started
_RUN_SUMS = Statement(select(*SUMS).where(_OF_FAMILY))
STEP_SUMS = Statement(
    select(*SUMS).where(requests.c.run_id == bindparam("run"), requests.c.step_id == bindparam("key"))
)
_turns = steps.alias()
# The rows inside the turns of an agent, whose calls are the agent's.
_OF_AGENT = and_(
    requests.c.run_id == bindparam("run"),
    requests.c.step_id.in_(
        select(steps.c.key)
        .select_from(steps.join(_turns, and_(_turns.c.run_id == steps.c.run_id, _turns.c.key == steps.c.parent_key)))
        .where(_turns.c.run_id == bindparam("run"), _turns.c.parent_key == bindparam("key"))
    ),
)
_AGENT_SUMS = Statement(select(*SUMS).where(_OF_AGENT))
_COMMITTED = func.coalesce(
    func.sum(func.coalesce(requests.c.cost_picousd, requests.c.reserved_picousd, 0)), 0
).label("picousd")  # fmt: skip
_RUN_COMMITTED = Statement(select(_COMMITTED).where(_OF_FAMILY))
_AGENT_COMMITTED = Statement(select(_COMMITTED).where(_OF_AGENT))
REQUESTS_OF_RUN = Statement(select(requests).where(requests.c.run_id == bindparam("run")).order_by(requests.c.id))
_OF_REQUEST = Statement(select(requests).where(requests.c.request_id == bindparam("request")).order_by(requests.c.id))
_OF_STARTED = Statement(
    select(requests)
    .join(runs, runs.c.id == requests.c.run_id)
    .where(runs.c.request_id == bindparam("request"))
    .order_by(requests.c.id)
)

# Where a text is found in another, exactly: LIKE would not tell upper from lower case on SQLite.
TAG_PLACE = {"sqlite": func.instr, "postgresql": func.strpos}


def tag_text(key: str, value: str) -> str:
    """What the `tags` of a row hold exactly where it has that tag."""
    return dumps({key: value})[1:-1]


def open_request(tx: Tx, intent: Intent, worker_id: str) -> None:
    """Write the intent of a call that this process is about to make."""
    tx.point("open_request")
    scope = intent.scope
    tx.send(
        _OPEN,
        {
            "id": intent.id,
            "request_id": scope.request_id,
            "started_us": intent.at_us,
            "workflow_name": scope.workflow_name,
            "run_id": scope.run_id,
            "step_id": scope.step_id,
            "attempt": scope.attempt,
            "worker_id": worker_id,
            "kind": intent.kind.value,
            "provider": intent.provider,
            "model": intent.model,
            "requested_model": intent.requested_model,
            "key_id": scope.key_id,
            "tags": dumps(dict(scope.tags)),
            "status": "started",
            "cost_source": CostSource.UNKNOWN.value,
            "reserved_picousd": intent.reserve_picousd,
            "reserved_tokens": intent.reserve_tokens,
            "streamed": intent.streamed,
        },
    )


def settle_request(tx: Tx, done: Settlement) -> Row | None:
    """Write how a call ended; returns what budgets have to know of it. Safe to repeat: the first settlement stands, None then."""
    tx.point("settle_request")
    usage = done.usage
    values: dict[str, Any] = {
        "call": done.id,
        "new_status": "succeeded" if done.success else "failed",
        "new_prompt_tokens": usage.prompt_tokens if usage else None,
        "new_completion_tokens": usage.output if usage else None,
        "new_total_tokens": usage.total_tokens if usage else None,
        "new_cached_tokens": usage.cache_read if usage else None,
        "new_cache_write_tokens": usage.cache_writes if usage else None,
        "new_cache_write_1h_tokens": usage.cache_write_1h if usage else None,
        "new_reasoning_tokens": usage.reasoning if usage else None,
        "new_cost_picousd": done.cost_picousd,
        "new_cost_source": done.cost_source.value,
        "new_latency_ms": done.latency_us / 1000,
        "new_ttft_ms": None if done.ttft_us is None else done.ttft_us / 1000,
        "new_success": done.success,
        "new_status_code": done.status_code,
        "new_error_class": done.error_class.value if done.error_class else None,
        "new_error": None if done.error is None else storable(done.error),
        "new_finished_us": done.finished_us,
    }
    rows = tx.all(_SETTLE, values)
    return rows[0] if rows else None


def abandon_requests(tx: Tx, worker_id: str, now: int) -> int:
    """The calls that a dead process left open stay visible as unknown, never as free."""
    return tx.run(_ABANDON, {"worker": worker_id, "now": now})


def run_sums(tx: Tx, run_id: str) -> Row:
    """calls, cost_picousd, unknown_calls and token sums of a run."""
    return whole_numbers(tx.one(_RUN_SUMS, {"run": run_id}))


def agent_sums(tx: Tx, run_id: str, key: str) -> Row:
    """The same for an agent of it, all its turns together."""
    return whole_numbers(tx.one(_AGENT_SUMS, {"run": run_id, "key": key}))


def agent_committed_picousd(tx: Tx, run_id: str, key: str) -> int:
    """What an agent has spent plus the worst case of what is in flight or whose end nobody saw."""
    row = tx.one(_AGENT_COMMITTED, {"run": run_id, "key": key})
    assert row is not None
    return int(row["picousd"])


def run_committed_picousd(tx: Tx, run_id: str) -> int:
    """What a run has spent plus the worst case of what is in flight or whose end nobody saw."""
    row = tx.one(_RUN_COMMITTED, {"run": run_id})
    assert row is not None
    return int(row["picousd"])


def requests_of_request(tx: Tx, request_id: str) -> list[Row]:
    """The calls of one request in the order they were made; of one that started a run, those of the run so far."""
    return tx.all(_OF_REQUEST, {"request": request_id}) or tx.all(_OF_STARTED, {"request": request_id})


def list_requests(tx: Tx, filters: Mapping[str, Any], limit: int) -> list[Row]:
    """Newest first. Filters: model, provider, workflow, run, request, key, kind, status, tag (key, value), since, until (us),
    before (id).
    """
    query = narrowed(tx, select(requests), filters).order_by(requests.c.id.desc()).limit(limit)
    return tx.all(Statement(query))


def narrowed(tx: Tx, query: Select[Any], filters: Mapping[str, Any]) -> Select[Any]:
    """The query for the rows that pass these filters (see `list_requests`)."""
    equal = {
        "model": requests.c.model,
        "provider": requests.c.provider,
        "workflow": requests.c.workflow_name,
        "run": requests.c.run_id,
        "status": requests.c.status,
        "request": requests.c.request_id,
        "key": requests.c.key_id,
        "kind": requests.c.kind,
    }
    for name, column in equal.items():
        if filters.get(name):
            query = query.where(column == filters[name])
    if filters.get("tag"):
        query = query.where(TAG_PLACE[tx.dialect](requests.c.tags, tag_text(*filters["tag"])) > 0)
    if filters.get("since") is not None:
        query = query.where(requests.c.started_us >= filters["since"])
    if filters.get("until") is not None:
        query = query.where(requests.c.started_us < filters["until"])
    if filters.get("before"):
        query = query.where(requests.c.id < filters["before"])
    return query


def whole_numbers(row: Row | None) -> Row:
    """PostgreSQL sums integers as decimals."""
    assert row is not None
    return {name: int(value) for name, value in row.items()}
