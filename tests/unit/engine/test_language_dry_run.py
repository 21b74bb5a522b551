"""A run thought through without running it: how often each step runs, and what it would send."""

from typing import Any

import pytest

from engine.dry_run import ASSUMED_ITEMS, Foreseen, Times, foresee
from engine.inputs import check_inputs
from engine.loader import load

TEXT = """
name: n
inputs: {items: {type: array}, kind: {type: string, default: a}}
steps:
  - {id: look, type: mcp_tool, tool: search, params: {q: "${input.kind}", n: "${input.items | length}"}, output: found}
  - {id: fixed, type: set, value: {big: "${input.items | length > 2}"}, output: fixed}
  - {id: sum, type: llm, model: local, prompt: "About ${input.kind}: ${found} (${fixed.big})", output: said}
  - {id: skipped, type: llm, model: local, prompt: x, if: fixed.big == false}
  - {id: perhaps, type: llm, model: local, prompt: x, if: said == 'yes'}
  - id: each
    type: foreach
    items: ${input.items}
    steps:
      - {id: one, type: llm, model: local, prompt: "${index}: ${item.name}"}
      - {id: inner, type: foreach, items: "${found}", steps: [{id: deep, type: llm, model: local, prompt: "${item}"}]}
  - id: pick
    type: switch
    value: ${input.kind}
    cases: {a: [{id: as, type: llm, model: local, prompt: x}], b: [{id: bs, type: llm, model: local, prompt: x}]}
    default: [{id: others, type: llm, model: local, prompt: x}]
  - id: choose
    type: if
    condition: said == 'yes'
    then: [{id: yes, type: llm, model: local, prompt: x}]
    on_error: {steps: [{id: saved, type: llm, model: local, prompt: x}]}
  - id: loop
    type: while
    condition: index < 2
    max_iterations: 7
    steps: [{id: again, type: llm, model: local, prompt: "{% if said %}${said}{% endif %}"}]
on_failure: [{id: tell, type: llm, model: local, prompt: x}]
finally: [{id: tidy, type: llm, model: local, prompt: x}]
"""


def entries(value: dict[str, Any], text: str = TEXT) -> dict[str, Foreseen]:
    definition = load(text)
    return {entry.step.path: entry for entry in foresee(definition, check_inputs(definition, value))}


def test_every_step_has_its_least_and_most_times() -> None:
    found = entries({"items": [{"name": "x"}, {"name": "y"}, {"name": "z"}]})
    assert set(found) == {step.path for step in load(TEXT).walk()}
    times = {path: (entry.times.low, entry.times.high) for path, entry in found.items()}
    assert times["sum"] == (1, 1) and times["skipped"] == (0, 0) and times["perhaps"] == (0, 1)
    assert times["each.one"] == (3, 3) and times["each.inner.deep"] == (0, 3 * ASSUMED_ITEMS)
    assert (times["as"], times["bs"], times["others"]) == ((1, 1), (0, 0), (0, 0))
    assert times["yes"] == times["saved"] == times["tell"] == (0, 1) and times["tidy"] == (1, 1)
    assert times["loop.again"] == (0, 7)
    assert found["each.inner.deep"].assumed and not found["each.one"].assumed


def test_what_is_known_is_rendered_and_the_rest_stays_as_written() -> None:
    found = entries({"items": [{"name": "x"}], "kind": "other"})
    assert found["look"].fields["params"] == {"q": "other", "n": 1}
    assert found["sum"].fields["prompt"] == "About other: ${found} (false)" and found["sum"].unknown == {"look"}
    assert found["each.one"].fields["prompt"] == "0: x"
    assert found["loop.again"].fields["prompt"] == "{% if said %}${said}{% endif %}"
    assert found["others"].times == Times(1, 1)
    assert not any(entry.mistake for entry in found.values())


@pytest.mark.parametrize(
    ("steps", "path", "clause"),
    [
        ('[{id: a, type: set, value: "${1 + input.kind}"}]', "a", "number and text"),
        ('[{id: a, type: llm, model: m, prompt: "${input.nothing}"}]', "a", "nothing"),
        ('[{id: a, type: set, value: 1, if: "input.kind"}]', "a", "boolean"),
        ('[{id: a, type: set, value: 0, output: z}, {id: b, type: set, value: "${1 / z}"}]', "b", "division"),
    ],
)
def test_an_expression_that_will_fail_is_told_before_it_does(steps: str, path: str, clause: str) -> None:
    assert clause in (entries({"kind": "text"}, f"{{name: n, steps: {steps}}}")[path].mistake or "")


def test_a_list_of_no_items_asks_nothing() -> None:
    assert entries({"items": []})["each.one"].times == Times(0, 0)
