"""Draws a dry run for a terminal: each step with what it would send, its models, and the range of what it would cost.

Pure: takes the API's answer and returns text. Used by `run --dry-run`.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from aigateway.timeline import printable

Json = Mapping[str, Any]
_SHOWN = 400  # characters of each message
_QUIET = {"id", "type", "times", "unknown", "mistake", "cost_usd"}


def dry_run_view(answer: Json) -> str:
    """The whole answer as text."""
    lines = [f"{answer['workflow']}: nothing was run"]
    for step in answer["steps"]:
        lines += ["", *_step(step)]
    return "\n".join(printable(line) for line in [*lines, "", *_sums(answer)])


def _step(step: Json) -> Iterator[str]:
    cost = f"  {_range(step['cost_usd'])}" if "cost_usd" in step else ""
    yield f"{step['id']}  {step['type']}{_times(step['times'])}{cost}"
    if step["mistake"]:
        yield f"  would fail: {step['mistake']}"
    if "targets" in step:
        yield f"  model {step['model']}: {', then '.join(step['targets']) or 'not known yet'}"
        for message in step["messages"]:
            yield from _block(message["role"], message["content"])
        prompt = step["prompt_tokens"]
        yield f"  about {prompt['low']} to {prompt['high']} tokens in, at most {step['max_tokens']} out"
        return
    for name, value in step.items():
        if name not in _QUIET:
            yield from _block(name, value)


def _block(name: str, value: Any) -> Iterator[str]:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
    first, *more = shown.rstrip("\n").split("\n")
    yield f"  {name}: {first}"
    for line in more:
        yield f"    {line}"


def _times(times: Json) -> str:
    low, high = times["low"], times["high"]
    if (low, high) == (1, 1):
        return ""
    if high == 0:
        return " (does not run)"
    return f" ({low} times)" if low == high else f" ({low} to {high} times)"


def _range(cost: Json | None) -> str:
    if cost is None:
        return "price unknown"
    low, high = cost["low"], cost["high"]
    return "free" if high == 0 else f"{low:.6f} to {high:.6f} USD"


def _sums(answer: Json) -> Iterator[str]:
    unknown = answer["cost_unknown_steps"]
    more = f", and {unknown} step{'s' if unknown > 1 else ''} whose price is unknown" if unknown else ""
    yield f"all: {_range(answer['cost_usd'])}{more}"
    if answer["budget_usd"] is not None:
        fits = "holds the dearest case" if answer["within_budget"] else "may pause the run before its end"
        yield f"the budget of {answer['budget_usd']:g} USD {fits}"
    for assumption in answer["assumptions"]:
        yield f"  {assumption}"
