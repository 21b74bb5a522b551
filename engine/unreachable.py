"""Finds steps that no run ever reaches: behind an `if` that is always false, in a branch that is never taken.

They are warnings: whoever switches a step off for a while writes `if: false`, and the rest of the workflow runs all the same.
A step that waits for one that never runs is reached: what is skipped has ended, with null.
"""

from collections.abc import Iterator, Sequence

from engine.constants import constant, constant_condition
from engine.drafts import Draft
from engine.mistakes import shortened
from engine.templates import parse_template
from engine.values import Bounds, is_list, is_object, to_text


def note_unreachable(drafts: Sequence[Draft]) -> int:
    """Warns of each such step, or of the list that holds them, and gives the bits of all of them. `drafts`: holders first."""
    never = 0
    for draft in drafts:
        if draft.bit & never:
            continue  # told with what holds it
        if constant_condition(draft.condition) is False:
            draft.spot.entry("if").warning("the step never runs: its `if` is always false")
            never |= draft.bit | draft.inner
            continue
        for branch, reason in _untaken(draft):
            inside = draft.branches.get(branch, ())
            if inside:
                _warn(draft, branch, reason)
            for inner in inside:
                never |= inner.bit | inner.inner
    return never


def _warn(draft: Draft, branch: str, reason: str) -> None:
    key, _, case = branch.partition(".")
    spot = draft.spot.entry(key) if case else draft.spot
    spot.key_warning(case or key, f"these steps never run: {reason}")


def _untaken(draft: Draft) -> Iterator[tuple[str, str]]:
    """The lists of a step that no run enters, each with the reason."""
    match draft.type:
        case "if":
            taken = constant_condition(draft.fields.get("condition"))
            if taken is not None and ("else" if taken else "then") in draft.branches:
                yield "else" if taken else "then", f"the condition is always {'true' if taken else 'false'}"
        case "switch":
            yield from _other_cases(draft)
        case "while":
            if constant_condition(draft.fields.get("condition")) is False:
                yield "steps", "the condition is always false"
        case "foreach":
            items = draft.fields.get("items")
            if is_list(items) and not items:
                yield "steps", "there are no items"
        case "wait":
            if "on_timeout" in draft.branches and draft.timeout_s is None and draft.deadline_s is None:
                yield "on_timeout", "the step has no `timeout`"
        case _:
            pass


def _other_cases(draft: Draft) -> Iterator[tuple[str, str]]:
    value = draft.fields.get("value")
    if isinstance(value, str) and "${" in value:
        known = constant(parse_template(value).whole)
        if known is None or known.reason is not None:
            return
        value = known.value
    if is_list(value) or is_object(value):
        return
    text = to_text(value, Bounds())
    chosen = f"cases.{text}" if f"cases.{text}" in draft.branches else "default"
    for branch in draft.branches:
        if branch != chosen and (branch == "default" or branch.startswith("cases.")):
            yield branch, f"the value is always {shortened(text)}"
