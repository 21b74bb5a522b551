"""Reads lists of steps into drafts: the form of each step and of what it holds, by the tables in `engine.keys`.

Used by `engine.checks`; references are resolved afterwards.
"""

import re
from collections.abc import Iterator
from typing import Any

from engine.agent_steps import AGENT, ANY_TOOL, LONGEST_KEY_INSIDE, covered, split_tool
from engine.drafts import Draft, Scope
from engine.key_kinds import Key, Kind, StepType
from engine.keys import HANDLERS, ID_PATTERN, MAX_CASE, MAX_KEY, MAX_STEPS, STEP_KEYS, STEP_TYPES
from engine.mistakes import Findings
from engine.readings import readings
from engine.shapes import check_key, check_known, check_name, check_required
from engine.spots import Spot, wrong_type

_LONGEST_NUMBER = len("[99999]")


class StepReader:
    """Reads lists of steps into drafts; ids are unique within a scope."""

    def __init__(self, findings: Findings) -> None:
        self.drafts: list[Draft] = []
        self._findings = findings

    def read(self, spot: Spot, scope: Scope, parent: Draft | None, branch: str | None) -> list[Draft]:
        """The steps of one list."""
        if spot.node.items is None:
            wrong_type(spot, "a list of steps")
            return []
        if not spot.node.items:
            spot.mistake("needs at least one step")
        found = (self._step(spot.item(index), scope, parent, branch) for index in range(len(spot.node.items)))
        return [draft for draft in found if draft is not None]

    def _step(self, spot: Spot, scope: Scope, parent: Draft | None, branch: str | None) -> Draft | None:
        if spot.node.entries is None:
            wrong_type(spot, "a step, which is an object with `id` and `type`")
            return None
        if len(self.drafts) >= MAX_STEPS:
            if len(self.drafts) == MAX_STEPS:
                spot.mistake(f"a workflow may have at most {MAX_STEPS} steps")
            return None
        kind = self._type(spot)
        draft = Draft(spot, self._id(spot, scope, kind), scope, kind or "", 1 << len(self.drafts), parent, branch)
        self.drafts.append(draft)
        if draft.named:
            scope.steps[draft.id] = draft
        step_type = STEP_TYPES.get(kind or "")
        if step_type is not None:
            self._check_keys(draft, step_type)
        self._common(draft)
        if step_type is not None:
            self._own(draft, step_type)
        if kind == AGENT:
            _check_approvals(draft)
        self._handlers(draft)
        return draft

    def _id(self, spot: Spot, scope: Scope, kind: str | None) -> str:
        if "id" not in (spot.node.entries or {}):
            spot.mistake("a step needs `id`")
            return f" {len(self.drafts)}"  # no id that anybody could name
        at = spot.entry("id")
        name = check_name(at, "a step's id")
        if name in scope.steps:
            at.mistake(f"the id '{name}' is given twice")
        if name is None or name in scope.steps:
            return f" {len(self.drafts)}"
        room = MAX_KEY - (LONGEST_KEY_INSIDE if kind == AGENT else 0)
        if len(scope.prefix) + len(name) + _LONGEST_NUMBER * scope.prefix.count(".") > room:
            at.mistake("the ids of this step and of those around it are too long together")
        return name

    def _type(self, spot: Spot) -> str | None:
        if "type" not in (spot.node.entries or {}):
            spot.mistake(f"a step needs `type`: {', '.join(STEP_TYPES)}")
            return None
        at = spot.entry("type")
        kind = at.node.value
        if not isinstance(kind, str):
            wrong_type(at, f"one of {', '.join(STEP_TYPES)}")
        elif kind not in STEP_TYPES:
            at.mistake(f"there is no step type '{kind[:60]}'", at.nearest(kind, STEP_TYPES))
        else:
            return kind
        return None

    def _check_keys(self, draft: Draft, step_type: StepType) -> None:
        known = STEP_KEYS | step_type.keys
        check_known(draft.spot, known, f"a step of type {draft.type}")
        for name in step_type.refused:
            if name in (draft.spot.node.entries or {}):
                draft.spot.key_mistake(name, f"a step of type {draft.type} takes no `{name}`")
        check_required(draft.spot, step_type.keys, f"a step of type {draft.type}")
        given = [name for name in step_type.one_of if name in (draft.spot.node.entries or {})]
        if step_type.one_of and len(given) != 1:
            choice = " or ".join(f"`{name}`" for name in step_type.one_of)
            draft.spot.mistake(f"a step of type {draft.type} needs {choice}, {'not both' if given else 'one of them'}")

        if len([name for name in step_type.not_both if name in (draft.spot.node.entries or {})]) > 1:
            choice = " or ".join(f"`{name}`" for name in step_type.not_both)
            draft.spot.mistake(f"a step of type {draft.type} takes {choice}, not both")

    def _common(self, draft: Draft) -> None:
        entries = draft.spot.node.entries or {}
        values: dict[str, Any] = {}
        for name, key in STEP_KEYS.items():
            if name in entries and name not in ("id", "type", "needs"):
                values[name] = self._value(draft, name, key)
        draft.output, draft.condition = values.get("output"), values.get("if")
        draft.timeout_s, draft.deadline_s = values.get("timeout"), values.get("deadline")
        draft.retry, draft.on_error = values.get("retry"), values.get("on_error") or "fail"
        draft.cache_s = values.get("cache")
        if "needs" in entries:
            draft.wanted = list(_needs(draft.spot.entry("needs")))

    def _own(self, draft: Draft, step_type: StepType) -> None:
        for name, key in step_type.keys.items():
            if name not in (draft.spot.node.entries or {}):
                continue
            if name in step_type.branches:
                self._branches(draft, step_type, name, key)
            else:
                draft.fields[name] = self._value(draft, name, key, inside=name in step_type.inside)

    def _branches(self, draft: Draft, step_type: StepType, name: str, key: Key) -> None:
        spot = draft.spot.entry(name)
        if key.kind is Kind.STEPS:
            scope = self._scope_inside(draft, step_type, "") if step_type.scoped else draft.scope
            self._hold(draft, name, spot, scope)
        elif not spot.node.entries:
            wrong_type(spot, "an object with a list of steps for each name")
        else:
            for case in spot.node.entries:
                _check_case(spot, case, named=step_type.scoped)
                scope = self._scope_inside(draft, step_type, f"{case}.") if step_type.scoped else draft.scope
                self._hold(draft, f"{name}.{case}", spot.entry(case), scope)

    @staticmethod
    def _scope_inside(draft: Draft, step_type: StepType, name: str) -> Scope:
        scope = Scope(f"{draft.path}.{name}", draft.scope, step_type.gives, repeats=step_type.gives == ("index",))
        draft.inner_scope = scope
        return scope

    def _hold(self, draft: Draft, branch: str, spot: Spot, scope: Scope) -> None:
        draft.branches[branch] = self.read(spot, scope, draft, branch)
        for inner in draft.branches[branch]:
            draft.inner |= inner.bit | inner.inner

    def _handlers(self, draft: Draft) -> None:
        """The steps in `on_error` and `on_timeout`; they share the names around the step."""
        for name in HANDLERS:
            node = (draft.spot.node.entries or {}).get(name)
            if node is not None and "steps" in (node.entries or {}):
                self._hold(draft, name, draft.spot.entry(name).entry("steps"), draft.scope)

    def _value(self, draft: Draft, name: str, key: Key, *, inside: bool = False) -> Any:
        spot = draft.spot.entry(name)
        (draft.inner_readings if inside else draft.readings).extend(readings(key, spot))
        return check_key(key, spot)


def _check_approvals(draft: Draft) -> None:
    """Whoever asks for approval of a tool that the agent has not got has mistyped one that it has."""
    tools: list[str] = draft.fields.get("tools") or []
    servers = {split_tool(tool)[0] for tool in tools}
    if "approve_timeout" in draft.fields and "approve" not in draft.fields:
        draft.spot.key_mistake("approve_timeout", "means nothing without `approve`")
    if not tools or not draft.fields.get("approve"):
        return
    spot = draft.spot.entry("approve")
    for index, node in enumerate(spot.node.items or []):
        asked = node.value
        if not isinstance(asked, str) or "/" not in asked:
            continue
        server, tool = split_tool(asked)
        if covered(asked, tools) or (tool == ANY_TOOL and server in servers):
            continue
        known = [*tools, *(f"{name}/{ANY_TOOL}" for name in servers)]
        spot.item(index).mistake(f"'{asked[:60]}' is none of this agent's `tools`", spot.nearest(asked, known))


def _check_case(spot: Spot, case: str, *, named: bool) -> None:
    if named and not re.fullmatch(ID_PATTERN, case):
        spot.key_mistake(case, "a branch's name is made of a-z, 0-9 and _, and begins with a letter")
    if not 0 < len(case) <= MAX_CASE:
        spot.key_mistake(case, f"has to have 1 to {MAX_CASE} characters")


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
