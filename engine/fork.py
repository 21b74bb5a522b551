"""A new run that goes on from a step of an old one: every result before that step is copied, and paid for once.

What comes after the step, in its own list and behind each container around it, runs anew; so does what had not ended in the
old run. Copied rows keep results and models, but no attempts and no calls: those stay with the run that made them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine.agent_steps import AGENT, ASK, CALL
from engine.catalogue import Catalogue
from engine.clock import new_id
from engine.definition import Step
from engine.errors import NotFound, UserError
from engine.inputs import check_inputs
from engine.nearest import nearest
from engine.places import enter_line
from engine.plan import ITEM, ITERATION, PARTS, Graph, limit_of
from engine.run_writer import CHILDREN, Ring
from engine.states import STEP_ENDED, EventType, RunStatus, StepStatus
from engine.store.database import Row, Tx
from engine.store.json_text import dumps, loads
from engine.store.payloads import pack
from engine.store.runs import insert_run, lock_run
from engine.store.steps import STEP_COLUMNS, insert_steps, steps_of_run
from engine.transition import Transition

_FRESH = ("worker_id", "due_us", "waits_for", "branch", "input_json", "input_digest", "size", "progress", "output_json",
          "output_digest", "model", "error_class", "error_message", "started_us", "finished_us")  # fmt: skip
_ENDS = ("output_json", "output_digest", "error_step", "error_class", "error_message", "pause_reason", "phase", "retries",
         "started_us", "finished_us", "idempotency_key", "idempotency_hash", "start_us", "parent_run_id", "parent_step_id",
         "answers_to", "depth", "schedule_id", "scheduled_us")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fork:
    """What a client asks for. `input` None: that of the old run. `models` replaces models by step id."""

    from_step: str
    input: Any = None
    models: Mapping[str, str] | None = None
    trace_context: str | None = None


def fork(tx: Tx, catalogue: Catalogue, run_id: str, asked: Fork, now: int) -> tuple[Row, list[Ring]]:
    """Make the new run. Raises: NotFound; UserError for an unknown step or a wrong input, with nothing stored."""
    tx.point("fork")
    old = lock_run(tx, run_id)  # its large values are named by the copies before retention could take them
    if old is None:
        raise NotFound("run_not_found", f"there is no run {run_id}", param="run_id")
    graph = catalogue.loaded(tx, old["version_id"])
    rows = {row["key"]: row for row in steps_of_run(tx, run_id) if graph.phase(row["key"]) is None}
    _check_step(graph, rows, asked.from_step)
    models = _models(graph, old, asked.models or {})
    run = _new_run(tx, old, graph, asked, now) | {"models_json": dumps(models) if models else None}
    copies = _Copies(graph, rows, asked.from_step, now).made(str(run["id"]))
    if graph.definition.concurrency is not None:
        _hold_back(copies)
    run["open_steps"] = sum(row["status"] not in STEP_ENDED for row in copies)
    insert_run(tx, run, loads(old["tags_json"]))
    insert_steps(tx, copies)
    transition = Transition(tx, run, graph, now)
    data = {"forked_from": run_id, "from_step": asked.from_step}
    transition.history.add(EventType.RUN_SUBMITTED, data=data)
    transition.recheck([row for row in copies if row["status"] == StepStatus.WAITING.value])
    transition.close()
    rings = [Ring(row["id"], row["priority"]) for row in copies if row["status"] == StepStatus.READY.value]
    return run, [*rings, *transition.all_rings(), *enter_line(tx, run, graph.definition, now)]


def _hold_back(copies: list[Row]) -> None:
    """None is ready before the run has its place."""
    for row in copies:
        if row["status"] == StepStatus.READY.value:
            row |= {"status": StepStatus.PENDING.value, "due_us": None}


def with_model(step: Step, models_json: str | None) -> Step:
    """The step with the model that a fork gave it."""
    model = None if models_json is None else loads(models_json).get(step.path)
    return step if model is None else replace(step, fields={**step.fields, "model": model})


def _check_step(graph: Graph, rows: Mapping[str, Row], key: str) -> None:
    found = rows.get(key)
    if found is not None and found["type"] not in PARTS:
        return
    known = [row["key"] for row in rows.values() if row["type"] not in PARTS]
    if any(key == path for path in graph.paths()):
        raise UserError("step_not_reached", f"the run has not come to the step '{key}'", param="from_step")
    near = nearest(key, known)
    hint = f" (did you mean {near}?)" if near else f" (there is: {', '.join(known[:10])})"
    raise UserError("unknown_step", f"the run has no step '{key[:100]}'{hint}", param="from_step")


def _models(graph: Graph, old: Row, asked: Mapping[str, str]) -> dict[str, str]:
    """Models by step path; those of an earlier fork stay. Raises: UserError."""
    models: dict[str, str] = loads(old["models_json"]) if old["models_json"] else {}
    asking = [step.path for step in graph.definition.walk() if step.type in ("llm", "agent")]
    for path, model in asked.items():
        if path not in asking:
            near = nearest(path, asking)
            hint = f" (did you mean {near}?)" if near else ""
            message = f"there is no llm or agent step '{path[:100]}'{hint}"
            raise UserError("unknown_step", message, param=f"models.{path[:100]}")
        models[path] = model
    return models


def _new_run(tx: Tx, old: Row, graph: Graph, asked: Fork, now: int) -> Row:
    text, digest = old["input_json"], old["input_digest"]
    if asked.input is not None:
        text, digest = pack(tx, check_inputs(graph.definition, asked.input), now, "input")
    deadline_s = graph.definition.deadline_s
    return old | dict.fromkeys(_ENDS) | {
        "id": new_id(),
        "status": RunStatus.QUEUED.value,
        "input_json": text,
        "input_digest": digest,
        "event_seq": 0,
        "created_us": now,
        "deadline_us": None if deadline_s is None else now + int(deadline_s * 1_000_000),
        "forked_from": old["id"],
        "trace_context": asked.trace_context,
    }  # fmt: skip


def _handles(row: Row) -> bool:
    """Whether the steps of its `on_error` run inside it, or ran last."""
    return row["branch"] == "on_error" and row["type"] not in PARTS


class _Copies:
    """The rows of the new run."""

    def __init__(self, graph: Graph, rows: Mapping[str, Row], from_key: str, now: int) -> None:
        self._graph = graph
        self._rows = rows
        self._now = now
        self._inside: dict[str | None, list[Row]] = {}
        for row in rows.values():
            self._inside.setdefault(row["parent_key"], []).append(row)
        self._around = self._containers_around(from_key)
        self._way = dict(zip(self._around, (from_key, *self._around), strict=False))  # what is gone through inside each
        self._anew = {key for each in (from_key, *self._around) for key in self._after(each)} | {from_key}
        self._asked_again = self._rows[from_key] if graph.step(from_key).type == ASK else None
        self._dropped = self._later_iterations() | self._calls_asked_for()
        self._made: list[Row] = []

    def made(self, run_id: str) -> list[Row]:
        """All of them, from the outside in."""
        self._copy_list(None, run_id)
        return self._made

    def _containers_around(self, key: str) -> list[str]:
        found: list[str] = []
        parent = self._rows[key]["parent_key"]
        while parent is not None:
            found.append(parent)
            parent = self._rows[parent]["parent_key"]
        return found

    def _after(self, key: str) -> set[str]:
        """All that waits for a step of a list, directly or not."""
        found: set[str] = set()
        pending = [] if self._rows[key]["type"] in PARTS else [key]
        while pending:
            for following in self._graph.dependents(pending.pop()):
                if following in self._rows and following not in found:
                    found.add(following)
                    pending.append(following)
        return found

    def _later_iterations(self) -> set[str]:
        """Of a while that is gone back into, the iterations behind the one that runs anew."""
        dropped: set[str] = set()
        for key in self._around:
            row = self._rows[key]
            if row["type"] == ITERATION:
                siblings = self._inside[row["parent_key"]]
                dropped |= {other["key"] for other in siblings if other["position"] > row["position"]}
        return dropped

    def _calls_asked_for(self) -> set[str]:
        """The calls that an agent's question led to, where it is asked again."""
        asked = self._asked_again
        inside = [] if asked is None else self._inside[asked["parent_key"]]
        return {row["key"] for row in inside if row is not asked}

    def _copy_list(self, parent_key: str | None, run_id: str) -> int:
        """Copies what stands right inside a container; returns how many of it are open."""
        parent = None if parent_key is None else self._rows[parent_key]
        handling = parent is not None and _handles(parent)
        back = parent is not None and handling and self._goes_back(parent)
        open_count = 0
        for row in self._inside.get(parent_key, ()):
            handler = parent is not None and handling and self._is_handler(parent, row["key"])
            if row["key"] in self._dropped or (back and handler):
                continue  # where the body is gone back into nothing has failed yet
            if handling and not (back or handler):
                self._keep(row, run_id)
                continue
            copy = self._copy(row, run_id)
            self._made.append(copy)
            open_count += copy["status"] not in STEP_ENDED
        return open_count

    def _goes_back(self, container: Row) -> bool:
        """Whether the fork begins in the body of a step whose failure had been handled since."""
        begins = self._way.get(container["key"])
        return begins is not None and not self._is_handler(container, begins)

    def _is_handler(self, container: Row, key: str) -> bool:
        return self._graph.is_handler(container["key"], key, self._rows[key]["type"])

    def _body(self, container: Row) -> str | None:
        """The branch that an if or a switch had chosen before its failure was handled; None for other containers."""
        begins = self._way[container["key"]]
        if self._rows[begins]["type"] in PARTS:
            return None
        branches = self._graph.step(container["key"]).branches
        inner = self._graph.step(begins).id
        return next(name for name, steps in branches.items() if any(step.id == inner for step in steps))

    def _keep(self, row: Row, run_id: str) -> None:
        """Copies a row that is over for good as it is, with all inside it: nothing of that starts over, cancelled or not."""
        copy = {name: row[name] for name in STEP_COLUMNS} | {"id": new_id(), "run_id": run_id, "worker_id": None}
        self._made.append(copy)
        for inner in self._inside.get(row["key"], ()):
            self._keep(inner, run_id)

    def _copy(self, row: Row, run_id: str) -> Row:
        new = {name: row[name] for name in STEP_COLUMNS} | {"id": new_id(), "run_id": run_id, "worker_id": None}
        if row["key"] in self._anew or (row["key"] not in self._around and self._unfinished(row)):
            return self._fresh(new)
        if row["key"] in self._around or row["status"] not in STEP_ENDED or row["status"] == StepStatus.CANCELLED.value:
            return self._reopened(new, run_id)
        for inner in self._inside.get(row["key"], ()):
            self._keep(inner, run_id)
        return new

    def _unfinished(self, row: Row) -> bool:
        """A step that had no result and nothing inside it worth keeping."""
        opened = row["waits_for"] == CHILDREN or row["branch"] is not None
        if row["status"] == StepStatus.FAILED.value:
            return row["type"] not in PARTS and self._graph.step(row["key"]).on_error == "fail"
        over = row["status"] in STEP_ENDED and row["status"] != StepStatus.CANCELLED.value
        return not over and not opened

    def _fresh(self, new: Row) -> Row:
        """As if it had never run; what it needs and has ended in the copy it does not wait for."""
        holds = new["type"] in PARTS or self._graph.step(new["key"]).type == CALL
        new |= dict.fromkeys(set(_FRESH) - ({"input_json", "input_digest"} if holds else set()))
        new |= {"attempt": 0, "tries": 0, "losses": 0}
        if new["type"] in PARTS:
            return new | {"status": StepStatus.PENDING.value}
        prefix = new["key"][: len(new["key"]) - len(self._graph.step(new["key"]).id)]
        needs = [prefix + need for need in self._graph.step(new["key"]).needs]
        new["waiting_on"] = sum(self._runs_anew(self._rows[need]) for need in needs)
        ready = new["waiting_on"] == 0
        due = self._now if ready else None
        return new | {"status": (StepStatus.READY if ready else StepStatus.PENDING).value, "due_us": due}

    def _runs_anew(self, row: Row) -> bool:
        ended = row["status"] in STEP_ENDED and row["status"] != StepStatus.CANCELLED.value
        return row["key"] in self._anew or row["key"] in self._around or self._unfinished(row) or not ended

    def _reopened(self, new: Row, run_id: str) -> Row:
        """A container that goes on: with what is copied inside it."""
        started: int | None = new["progress"]
        if started is not None and new["type"] in ("while", AGENT):
            inside = [row for row in self._inside.get(new["key"], ()) if row["key"] not in self._dropped]
            started = len([row for row in inside if row["type"] == ITERATION])
        elif self._asked_again is not None and new["key"] == self._asked_again["parent_key"]:
            started = None
        open_inside = self._copy_list(new["key"], run_id)
        handles = _handles(new) and not self._goes_back(new)
        if _handles(new) and not handles:
            new["branch"] = self._body(new)
        if new["type"] == "foreach" and new["size"] is not None and not handles:
            made = len([row for row in self._inside.get(new["key"], ()) if row["type"] == ITEM])
            open_inside += max(0, new["size"] - made)
        limit = limit_of(self._graph.step(new["key"]), new["type"], self._now)
        lost = (
            "output_json",
            "output_digest",
            *(() if handles else ("error_class", "error_message")),
        )  # an error that steps handle stays
        return new | {
            "status": StepStatus.WAITING.value,
            "waits_for": CHILDREN,
            "waiting_on": open_inside,
            "progress": started,
            "due_us": limit,
            "finished_us": None,
            **dict.fromkeys(lost),
        }
