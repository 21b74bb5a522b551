"""Turns the nodes of a definition into a `Definition`, noting every mistake on the way; nothing here stops at the first.

Order: form of the top level, form of each step, then needs and references over all steps.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from engine.definition import Definition
from engine.drafts import Draft
from engine.json_schemas import schema_mistake, violations
from engine.keys import (
    LATER_STEP_KEYS,
    LATER_STEP_TYPES,
    LATER_TOP_KEYS,
    MAX_NAME,
    MAX_STEPS,
    STEP_KEYS,
    STEP_TYPES,
    TOP_KEYS,
    WORKFLOW_NAME_PATTERN,
    Key,
    Kind,
    StepType,
)
from engine.mistakes import Findings
from engine.money import to_picousd
from engine.references import Names, resolve_needs
from engine.shapes import Spot, check_key, check_known, check_name, check_required, readings, wrong_type
from engine.yaml12 import Node


def check(root: Node, findings: Findings, *, name: str | None, source: str) -> Definition | None:
    """The definition, or None where findings hold a mistake. `name` is what it is stored under, where that is known."""
    spot = Spot(root, "", findings)
    if root.entries is None:
        wrong_type(spot, "an object with `steps`")
        return None
    check_known(spot, TOP_KEYS, LATER_TOP_KEYS, "a workflow")
    check_required(spot, TOP_KEYS, "a workflow")
    given = {key: _top_value(key, spot.entry(key)) for key in root.entries if key in TOP_KEYS}
    given["name"] = _check_name(spot, name)
    reader = _StepReader(findings)
    steps = reader.read(spot.entry("steps"), None, None) if "steps" in root.entries else []
    output_references = _resolve(spot, steps, reader.drafts, given.get("inputs"))
    return None if findings.mistakes else _definition(given, steps, output_references, source)


def _definition(given: dict[str, Any], steps: list[Draft], references: set[str], source: str) -> Definition:
    budget = given.get("budget_usd")
    return Definition(
        name=given["name"],
        steps=tuple(draft.step() for draft in steps),
        description=given.get("description") or "",
        inputs=given.get("inputs"),
        output=given.get("output"),
        output_references=frozenset(references),
        budget_picousd=None if budget is None else to_picousd(Decimal(repr(budget))),
        deadline_s=given.get("deadline"),
        source=source,
    )


def _resolve(spot: Spot, steps: list[Draft], drafts: list[Draft], inputs: Any) -> set[str]:
    resolve_needs(steps, 0)
    names = Names(drafts, inputs)
    names.check_outputs()
    for draft in drafts:
        names.resolve(draft)
    if "output" not in (spot.node.entries or {}):
        return set()
    everything = (1 << len(drafts)) - 1
    found: set[str] = set()
    for reading in readings(TOP_KEYS["output"], spot.entry("output")):
        found |= names.sources(reading, everything, None)
    return found


def _top_value(name: str, spot: Spot) -> Any:
    key = TOP_KEYS[name]
    if name == "inputs":
        return _inputs(spot)
    return None if key.kind is Kind.STEPS or name == "name" else check_key(key, spot)


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
    elif "default" in schema:
        for where, message in violations(schema, schema["default"])[:1]:
            default = spot.entry("default")
            spot.findings.add(
                f"the default does not fit its schema: it {message}", default.path + where, default.node.place
            )
    return schema


class _StepReader:
    """Reads lists of steps into drafts; ids are unique over the whole definition."""

    def __init__(self, findings: Findings) -> None:
        self.drafts: list[Draft] = []
        self._ids: set[str] = set()
        self._findings = findings

    def read(self, spot: Spot, parent: Draft | None, branch: str | None) -> list[Draft]:
        """The steps of one list."""
        if spot.node.items is None:
            wrong_type(spot, "a list of steps")
            return []
        if not spot.node.items:
            spot.mistake("needs at least one step")
        found = (self._step(spot.item(index), parent, branch) for index in range(len(spot.node.items)))
        return [draft for draft in found if draft is not None]

    def _step(self, spot: Spot, parent: Draft | None, branch: str | None) -> Draft | None:
        if spot.node.entries is None:
            wrong_type(spot, "a step, which is an object with `id` and `type`")
            return None
        if len(self.drafts) >= MAX_STEPS:
            if len(self.drafts) == MAX_STEPS:
                spot.mistake(f"a workflow may have at most {MAX_STEPS} steps")
            return None
        kind = self._type(spot)
        draft = Draft(spot, self._id(spot), kind or "", 1 << len(self.drafts), parent, branch)
        self.drafts.append(draft)
        step_type = STEP_TYPES.get(kind or "")
        if step_type is not None:
            self._check_keys(draft, step_type)
        self._common(draft)
        if step_type is not None:
            self._own(draft, step_type)
        return draft

    def _id(self, spot: Spot) -> str:
        if "id" not in (spot.node.entries or {}):
            spot.mistake("a step needs `id`")
            return f" {len(self.drafts)}"  # no id that anybody could name
        at = spot.entry("id")
        name = check_name(at, "a step's id")
        if name in self._ids:
            at.mistake(f"the id '{name}' is given twice")
        if name is None or name in self._ids:
            return f" {len(self.drafts)}"
        self._ids.add(name)
        return name

    def _type(self, spot: Spot) -> str | None:
        if "type" not in (spot.node.entries or {}):
            spot.mistake(f"a step needs `type`: {', '.join(STEP_TYPES)}")
            return None
        at = spot.entry("type")
        kind = at.node.value
        if not isinstance(kind, str):
            wrong_type(at, f"one of {', '.join(STEP_TYPES)}")
        elif kind in LATER_STEP_TYPES:
            at.mistake(f"this release does not run steps of type `{kind}` yet; it runs {', '.join(STEP_TYPES)}")
        elif kind not in STEP_TYPES:
            at.mistake(f"there is no step type '{kind[:60]}'", at.nearest(kind, [*STEP_TYPES, *LATER_STEP_TYPES]))
        else:
            return kind
        return None

    def _check_keys(self, draft: Draft, step_type: StepType) -> None:
        known = STEP_KEYS | step_type.keys
        check_known(draft.spot, known, LATER_STEP_KEYS, f"a step of type {draft.type}")
        check_required(draft.spot, step_type.keys, f"a step of type {draft.type}")
        given = [name for name in step_type.one_of if name in (draft.spot.node.entries or {})]
        if step_type.one_of and len(given) != 1:
            choice = " or ".join(f"`{name}`" for name in step_type.one_of)
            draft.spot.mistake(f"a step of type {draft.type} needs {choice}, {'not both' if given else 'one of them'}")

    def _common(self, draft: Draft) -> None:
        entries = draft.spot.node.entries or {}
        values: dict[str, Any] = {}
        for name, key in STEP_KEYS.items():
            if name in entries and name not in ("id", "type", "needs"):
                values[name] = self._value(draft, name, key)
        draft.output, draft.condition = values.get("output"), values.get("if")
        draft.timeout_s, draft.deadline_s = values.get("timeout"), values.get("deadline")
        draft.retry, draft.on_error = values.get("retry"), values.get("on_error") or "fail"
        if "needs" in entries:
            draft.wanted = list(_needs(draft.spot.entry("needs")))

    def _own(self, draft: Draft, step_type: StepType) -> None:
        for name, key in step_type.keys.items():
            if name not in (draft.spot.node.entries or {}):
                continue
            if name in step_type.branches:
                draft.branches[name] = self.read(draft.spot.entry(name), draft, name)
                for inner in draft.branches[name]:
                    draft.inner |= inner.bit | inner.inner
            else:
                draft.fields[name] = self._value(draft, name, key)

    def _value(self, draft: Draft, name: str, key: Key) -> Any:
        spot = draft.spot.entry(name)
        draft.readings.extend(readings(key, spot))
        return check_key(key, spot)


def _needs(spot: Spot) -> Iterator[tuple[str, Spot]]:
    if spot.node.items is None:
        wrong_type(spot, "a list of step ids, such as [search]")
        return
    for index in range(len(spot.node.items)):
        item = spot.item(index)
        if isinstance(item.node.value, str):
            yield item.node.value, item
        else:
            wrong_type(item, "the id of a step")
