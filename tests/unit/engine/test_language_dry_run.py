"""A run thought through without running it: how often each step runs, and what it would send."""

from typing import Any

import pytest

from engine.dry_run import ASSUMED_ITEMS, MOST_ITEMS, foresee
from engine.foreseen import Foreseen, Times
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
        (
            '[{id: a, type: llm, model: m, prompt: x, top_p: "${input.kind}"}]',
            "a",
            "${input.kind}: top_p has to be a number, not text",
        ),
        (
            '[{id: a, type: foreach, items: "${input.kind}", steps: [{id: b, type: set, value: 1}]}]',
            "a",
            "items has to be a list",
        ),
        (
            '[{id: a, type: llm, model: m, messages: "${input.kind}"}]',
            "a",
            "${input.kind}: messages has to be a list, not text",
        ),
        (
            '[{id: a, type: llm, model: m, messages: [{role: user, content: "${1 + 1}"}]}]',
            "a",
            "${1 + 1}: messages[0].content has to be text or a list of parts, not a number",
        ),
        ('[{id: a, type: set, value: 0, output: z}, {id: b, type: set, value: "${1 / z}"}]', "b", "division"),
    ],
)
def test_an_expression_that_will_fail_is_told_before_it_does(steps: str, path: str, clause: str) -> None:
    assert clause in (entries({"kind": "text"}, f"{{name: n, steps: {steps}}}")[path].mistake or "")


def test_a_list_of_no_items_asks_nothing() -> None:
    assert entries({"items": []})["each.one"].times == Times(0, 0)


def of_one(steps: str, value: dict[str, Any] | None = None) -> dict[str, Foreseen]:
    return entries(value or {}, f"{{name: n, steps: [{steps}]}}")


def test_each_item_is_thought_through_and_not_the_first_for_all() -> None:
    ask = "{id: ask, type: llm, model: m, if: k == 'x', prompt: 'Say ${item.text}'}"
    pick = "{id: pick, type: set, value: '${item.kind}', output: k}"
    rows = [{"kind": "y"}, {"kind": "x", "text": "short"}, {"kind": "x", "text": "longer"}]
    found = of_one(f"{{id: each, type: foreach, items: '${{input.rows}}', steps: [{pick}, {ask}]}}", {"rows": rows})
    asked = found["each.ask"]
    assert asked.times == Times(2, 2) and asked.fields["prompt"] == "Say short" and asked.mistake is None
    assert [(case.times.high, case.fields["prompt"]) for case in asked.cases][1:] == [
        (1, "Say short"),
        (1, "Say longer"),
    ]
    assert found["each.pick"].times == Times(3, 3)


def test_lists_inside_lists_and_very_long_ones_count_every_item() -> None:
    inner = "{id: inner, type: foreach, items: '${item}', steps: [{id: ask, type: llm, model: m, prompt: '${item}'}]}"
    outer = f"{{id: outer, type: foreach, items: '${{input.lists}}', steps: [{inner}]}}"
    assert of_one(outer, {"lists": [[1, 2], [], [3]]})["outer.inner.ask"].times == Times(3, 3)
    long = of_one(outer, {"lists": [[1, 2, 3]] * 1_001})["outer.inner.ask"]
    assert long.times == Times(3_003, 3_003) and long.sampled and len(long.cases) <= MOST_ITEMS
    assert not of_one(outer, {"lists": [[1]]})["outer.inner.ask"].sampled


def test_the_number_of_an_iteration_is_not_known() -> None:
    later = "{id: later, type: llm, model: m, if: index > 0, prompt: 'again ${index}'}"
    found = of_one(f"{{id: w, type: while, condition: index < 3, max_iterations: 5, steps: [{later}]}}")["w.later"]
    assert found.times == Times(0, 5) and found.unknown == {"index"} and found.mistake is None


def test_a_default_does_not_answer_for_what_is_not_known_yet() -> None:
    ask = "{id: ask, type: llm, model: m, prompt: x, output: said}"
    guarded = "{id: then, type: llm, model: m, prompt: x, if: \"said | default('no') == 'yes'\"}"
    assert of_one(f"{ask}, {guarded}")["then"].times == Times(0, 1)
    mapped = "{id: v, type: set, value: \"${said | default('no')}\", output: v}"
    assert (
        of_one(f"{ask}, {mapped}, {{id: then, type: llm, model: m, prompt: x, if: v == 'yes'}}")["then"].times.high == 1
    )


def test_what_may_have_been_set_is_not_taken_for_null_nor_for_its_value() -> None:
    ask = "{id: ask, type: llm, model: m, prompt: x, output: said}"
    perhaps = "{id: p, type: if, condition: said == 'a', then: [{id: s, type: set, value: 1, output: v}]}"
    guarded = "{id: then, type: llm, model: m, prompt: x, if: v == 1}, {id: other, type: llm, model: m, prompt: x, if: v == none}"
    found = of_one(f"{ask}, {perhaps}, {guarded}")
    assert found["then"].times == found["other"].times == Times(0, 1)
    found = of_one(f"{ask}, {{id: s, type: set, if: said == 'a', value: 1, output: v}}, {guarded}")
    assert found["then"].times == found["other"].times == Times(0, 1)


def test_handlers_of_failures_read_errors_that_are_not_there_yet() -> None:
    saved = "{id: s, type: set, value: '${1 / input.n}', on_error: {steps: [{id: h, type: set, value: '${steps.s.error.class}'}]}}"
    text = f"{{name: n, steps: [{saved}], on_failure: [{{id: t, type: set, value: '${{run.error.step}} in ${{run.id}}'}}]}}"
    found = entries({"n": 1}, text)
    assert not any(entry.mistake for entry in found.values()) and found["t"].unknown == {"run.error"}
