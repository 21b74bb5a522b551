"""Submitting a run: one transaction writes the run, its pinned definition, its first ready steps and the history."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.catalogue import Catalogue
from engine.clock import iso, new_id
from engine.concurrency_key import line_name
from engine.definition import Definition
from engine.errors import Conflict
from engine.inputs import check_inputs
from engine.places import enter_line
from engine.plan import Graph
from engine.states import EventType, Priority, RunStatus
from engine.store.database import Row, Tx
from engine.store.definitions import insert_version
from engine.store.json_text import dumps
from engine.store.locks import lock_name
from engine.store.payloads import INLINE_LIMIT, pack
from engine.store.runs import RUN_COLUMNS, insert_run, run_by_idempotency_key
from engine.transition import Ring, Transition


@dataclass(frozen=True, slots=True)
class Parent:
    """The step that starts a run, and how many runs are above it."""

    run_id: str
    step_id: str
    depth: int


@dataclass(frozen=True, slots=True)
class Firing:
    """The schedule that starts a run, and the time for which it does."""

    schedule_id: str
    schedule: str
    due_us: int


@dataclass(frozen=True, slots=True)
class Submission:
    """What a client asks for. `version` is the stored version to pin; None: `definition` is inline and stored with the run."""

    definition: Definition
    version: Row | None
    input: Any
    webhook_url: str | None = None
    budget_picousd: int | None = None
    priority: Priority = Priority.NORMAL
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    idempotency_key: str | None = None
    key_id: str | None = None
    request_id: str | None = None
    start_us: int | None = None  # no step starts before; a time that has passed changes nothing
    parent: Parent | None = None
    firing: Firing | None = None
    trace_context: str | None = None

    def kept_key(self) -> str | None:
        """Under which the run is found again: an idempotency key is that of its API key alone."""
        return None if self.idempotency_key is None else _kept_key(self.idempotency_key, self.key_id)

    def is_plain(self) -> bool:
        """Whether storing it locks nothing that another submission may want: no key, no place in a line, no value stored by content.

        Two groups that want the same values in another order would wait for each other.
        """
        defaults = len(dumps(self.definition.inputs or {}))  # at most: they are filled in where nothing is given
        small = len(dumps(self.input)) + defaults <= INLINE_LIMIT
        return (
            small and self.idempotency_key is None and self.version is not None and self.definition.concurrency is None
        )

    def fingerprint(self) -> str:
        """Equal for submissions that ask for the same."""
        asked = [
            self.definition.name,
            self.definition.source if self.version is None else None,
            self.input,
            self.webhook_url,
            self.budget_picousd,
            self.priority.value,
            dict(self.tags),
            *([] if self.start_us is None else [self.start_us]),
        ]
        return hashlib.sha256(dumps(asked).encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Submitted:
    """The run, whether this submission made it, and the bells to ring."""

    run: Row
    created: bool
    rings: tuple[Ring, ...]


def submit(tx: Tx, catalogue: Catalogue, asked: Submission, now: int) -> Submitted:
    """Store the run. The same idempotency key and request give the same run again.

    Raises: UserError for a wrong input; Conflict where the key was used for another request.
    """
    tx.point("submit")
    if asked.idempotency_key is not None:
        lock_name(tx, f"idempotency:{asked.idempotency_key}")
        earlier = submitted_before(tx, asked.idempotency_key, asked.key_id)
        if earlier is not None:
            if earlier["idempotency_hash"] != asked.fingerprint():
                raise Conflict(
                    "idempotency_key_reused",
                    "this Idempotency-Key was used for another request",
                    param="Idempotency-Key",
                )
            return Submitted(earlier, False, ())
    value = check_submitted(asked.definition, asked.input)
    version_id = asked.version["id"] if asked.version else _store_inline(tx, asked.definition, now)
    graph = catalogue.loaded(tx, version_id) if asked.version else Graph(asked.definition)
    run = _run_row(tx, asked, value, version_id, now)
    transition = Transition(tx, run, graph, now)
    transition.stored = len(graph.definition.steps), 1  # as they will be, which saves to write them once more
    insert_run(tx, run | dict(zip(("open_steps", "event_seq"), transition.stored, strict=True)), asked.tags)
    transition.history.add(EventType.RUN_SUBMITTED, data=_told(asked.firing))
    transition.begin()
    transition.close()
    return Submitted(run, True, (*transition.rings, *enter_line(tx, run, graph.definition, now)))


def is_submitted(tx: Tx, key_id: str | None, idempotency_key: str | None) -> bool:
    """Whether a run of that API key was submitted under the idempotency key: asking again starts none."""
    return idempotency_key is not None and submitted_before(tx, idempotency_key, key_id) is not None


def submitted_before(tx: Tx, idempotency_key: str, key_id: str | None) -> Row | None:
    """The run of the same idempotency key; the first release kept all of them as they were sent, whoever sent them."""
    kept = _kept_key(idempotency_key, key_id)
    found = run_by_idempotency_key(tx, kept)
    if found is None and kept != idempotency_key:
        first = run_by_idempotency_key(tx, idempotency_key)
        found = first if first is not None and first["key_id"] == key_id else None
    return found


def _kept_key(idempotency_key: str, key_id: str | None) -> str:
    """An idempotency key is that of its API key alone."""
    if key_id is None:
        return idempotency_key
    return hashlib.sha256(dumps([key_id, idempotency_key]).encode()).hexdigest()


def check_submitted(definition: Definition, given: Any) -> Any:
    """The input as a run keeps it. Raises: UserError, before anything is written, for one that cannot start a run."""
    value = check_inputs(definition, given)
    if definition.concurrency is not None:
        line_name(definition.name, definition.concurrency, value)
    return value


def _store_inline(tx: Tx, definition: Definition, now: int) -> str:
    row: Row = {
        "id": new_id(),
        "name": definition.name,
        "version": None,
        "digest": hashlib.sha256(definition.source.encode()).hexdigest(),
        "origin": "inline",
        "config_yaml": definition.source,
        "created_us": now,
    }
    insert_version(tx, row)
    return row["id"]


def _run_row(tx: Tx, asked: Submission, value: Any, version_id: str, now: int) -> Row:
    text, digest = pack(tx, value, now, "input")
    budget = asked.budget_picousd if asked.budget_picousd is not None else asked.definition.budget_picousd
    deadline_s = asked.definition.deadline_s
    return {
        **dict.fromkeys(RUN_COLUMNS),
        "id": new_id(),
        "workflow_name": asked.definition.name,
        "version_id": version_id,
        "version": asked.version["version"] if asked.version else None,
        "status": RunStatus.QUEUED.value,
        "priority": asked.priority.value,
        "input_json": text,
        "input_digest": digest,
        "budget_picousd": budget,
        "tags_json": dumps(dict(asked.tags)),
        "webhook_url": asked.webhook_url,
        "idempotency_key": asked.kept_key(),
        "idempotency_hash": asked.fingerprint() if asked.idempotency_key else None,
        "key_id": asked.key_id,
        "request_id": asked.request_id,
        "trace_context": asked.trace_context,
        "open_steps": 0,
        "event_seq": 0,
        "created_us": now,
        "start_us": asked.start_us,
        **({} if asked.parent is None else _child_of(asked.parent)),
        **({} if asked.firing is None else _started_by(asked.firing)),
        "deadline_us": None if deadline_s is None else max(now, asked.start_us or 0) + int(deadline_s * 1_000_000),
    }


def _child_of(parent: Parent) -> Row:
    return {
        "parent_run_id": parent.run_id,
        "parent_step_id": parent.step_id,
        "answers_to": parent.step_id,
        "depth": parent.depth,
    }


def _started_by(firing: Firing) -> Row:
    return {"schedule_id": firing.schedule_id, "scheduled_us": firing.due_us}


def _told(firing: Firing | None) -> dict[str, str] | None:
    return None if firing is None else {"schedule": firing.schedule, "due_at": iso(firing.due_us)}
