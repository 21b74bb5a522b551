"""Turns the nodes of a definition into a `Definition`, noting every mistake on the way; nothing here stops at the first.

Order: form of the top level, form of each step, then needs and references over all steps.
"""

import re
from dataclasses import replace
from decimal import Decimal
from typing import Any

from engine.agent_steps import AGENT, APPROVE
from engine.concurrency_key import check_concurrency
from engine.definition import Definition, Reads
from engine.drafts import Draft, Found, Scope
from engine.json_schemas import schema_mistake, violations
from engine.key_kinds import Kind
from engine.keys import MAX_NAME, TOP_KEYS, WORKFLOW_NAME_PATTERN
from engine.llm_keys import NOT_EXTRA, NOT_EXTRA_OF_AGENTS
from engine.mistakes import Findings
from engine.money import to_picousd
from engine.readings import readings
from engine.references import Names, check_outputs, everything, resolve_needs
from engine.schedule_reader import read_schedules
from engine.schema_validator import checked_together
from engine.shapes import check_key, check_known, check_required
from engine.spots import Spot, wrong_type
from engine.step_reader import StepReader
from engine.unreachable import note_unreachable
from engine.yaml12 import Node

_TOP_LISTS = ("steps", "on_failure", "finally")
_READ_ELSEWHERE = (Kind.STEPS, Kind.SCHEDULE)


def check(root: Node, findings: Findings, *, name: str | None, source: str) -> Definition | None:
    """The definition, or None where findings hold a mistake. `name` is what it is stored under, where that is known."""
    spot = Spot(root, "", findings)
    if root.entries is None:
        wrong_type(spot, "an object with `steps`")
        return None
    check_known(spot, TOP_KEYS, "a workflow")
    check_required(spot, TOP_KEYS, "a workflow")
    given = {key: _top_value(key, spot.entry(key)) for key in root.entries if key in TOP_KEYS}
    given["name"] = _check_name(spot, name)
    if "schedule" in root.entries:
        given["schedule"] = read_schedules(spot.entry("schedule"), given.get("inputs"))
    reader = StepReader(findings)
    scope = Scope()
    lists = {key: reader.read(spot.entry(key), scope, None, None) if key in root.entries else [] for key in _TOP_LISTS}
    _check_signals(reader.drafts)
    _check_extra(reader.drafts)
    output_reads = _resolve(spot, lists, scope, reader.drafts, given.get("inputs"))
    if findings.mistakes:
        return None
    return replace(_definition(given, lists, output_reads, source), warnings=findings.warnings)


def _definition(given: dict[str, Any], lists: dict[str, list[Draft]], output_reads: Reads, source: str) -> Definition:
    budget = given.get("budget_usd")
    steps, on_failure, finally_ = (tuple(draft.step() for draft in lists[key]) for key in _TOP_LISTS)
    return Definition(
        name=given["name"],
        steps=steps,
        on_failure=on_failure,
        finally_=finally_,
        description=given.get("description") or "",
        inputs=given.get("inputs"),
        output=given.get("output"),
        output_reads=output_reads,
        budget_picousd=None if budget is None else to_picousd(Decimal(repr(budget))),
        deadline_s=given.get("deadline"),
        schedules=given.get("schedule", ()),
        concurrency=given.get("concurrency"),
        source=source,
    )


def _check_signals(drafts: list[Draft]) -> None:
    """A wait would take what is meant for an agent's calls, or the other way round."""
    if not any(draft.type == AGENT and draft.fields.get("approve") for draft in drafts):
        return
    for draft in drafts:
        if draft.type == "wait" and draft.fields.get("signal") == APPROVE:
            draft.spot.entry("signal").mistake(
                f"the signal '{APPROVE}' answers the calls of an agent; name this one otherwise"
            )


def _check_extra(drafts: list[Draft]) -> None:
    """`extra` cannot hold what a step has keys for, nor how the answer comes."""
    for draft in drafts:
        given = draft.fields.get("extra") if draft.type in ("llm", AGENT) else None
        for name in given or ():
            if name in NOT_EXTRA or (draft.type == AGENT and name in NOT_EXTRA_OF_AGENTS):
                draft.spot.entry("extra").key_mistake(name, f"extra cannot hold '{name}'")


def _resolve(spot: Spot, lists: dict[str, list[Draft]], scope: Scope, drafts: list[Draft], inputs: Any) -> Reads:
    """Needs and readings of all steps; what the run's output reads, for which all of `steps` has ended."""
    base = 0
    for key in _TOP_LISTS:
        resolve_needs(lists[key], base)
        base |= everything(lists[key])
    check_outputs(drafts)
    names = Names(inputs, note_unreachable(drafts))
    for draft in drafts:
        names.resolve(draft)
    check_concurrency(spot, names, scope, inputs)
    found = Found()
    if "output" in (spot.node.entries or {}):
        for reading in readings(TOP_KEYS["output"], spot.entry("output")):
            found.add(names.sources(reading, scope, everything(lists["steps"]), None))
    return found.reads()


def _top_value(name: str, spot: Spot) -> Any:
    key = TOP_KEYS[name]
    if name == "inputs":
        return _inputs(spot)
    return None if key.kind in _READ_ELSEWHERE or name == "name" else check_key(key, spot)


def _check_name(spot: Spot, stored: str | None) -> str:
    entries = spot.node.entries or {}
    name = entries["name"].value if "name" in entries else stored
    at = spot.entry("name") if "name" in entries else spot
    if name is None and "name" not in entries:
        at.mistake("a workflow needs `name`")
    elif not isinstance(name, str):
        wrong_type(at, "text")
    elif not re.fullmatch(WORKFLOW_NAME_PATTERN, name) or len(name) > MAX_NAME or name.endswith("\n"):
        usable = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:MAX_NAME]
        at.mistake(
            f"a workflow's name is made of a-z, 0-9, _ and -, begins with a letter or digit, and has at most {MAX_NAME}"
            " characters",
            usable or None,
        )
    elif stored is not None and name != stored:
        at.mistake(f"the definition names itself '{name}', but it is stored as '{stored}'", stored)
    return name if isinstance(name, str) else ""


def _inputs(spot: Spot) -> dict[str, Any] | None:
    if spot.node.entries is None:
        wrong_type(spot, "an object with a JSON Schema for each input")
        return None
    with checked_together():
        return {name: _input(spot.entry(name)) for name in spot.node.entries}


def _input(spot: Spot) -> dict[str, Any]:
    if spot.node.entries is None:
        wrong_type(spot, "a JSON Schema such as {type: string}")
        return {}
    schema: dict[str, Any] = spot.node.plain()
    wrong = schema_mistake(schema)
    if wrong is not None:
        where, message, suggestion = wrong
        spot.findings.add(message, spot.path + where, spot.node.place, suggestion)
        return {name: schema[name] for name in ("default",) if name in schema}  # nothing can be checked against it
    if "default" in schema:
        for where, message in violations(schema, schema["default"])[:1]:
            default = spot.entry("default")
            spot.findings.add(
                f"the default does not fit its schema: it {message}", default.path + where, default.node.place
            )
    return schema
