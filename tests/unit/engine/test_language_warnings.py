"""What a definition is warned of: it runs, and part of it never does, or hardly means what it says."""

import pytest

from engine.errors import UserError
from engine.loader import load, load_data
from engine.mistakes import describe


def steps(*lines: str) -> str:
    return "name: w\nsteps:\n" + "".join(f"  - {line}\n" for line in lines)


ONE, TWO = "[{id: b, type: set, value: 1, output: x}]", "[{id: c, type: set, value: 2}]"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (steps("{id: a, type: set, value: 1, if: false}"), {"steps[0].if": "the step never runs"}),
        (steps("{id: a, type: set, value: 1, if: '${1 > 2}'}", "{id: d, type: set, value: '${steps.a.output}'}"), {"steps[0].if": "always false", "steps[1].value": "always null"}),
        (steps("{id: a, type: set, value: 1, if: 'input.x or true'}", "{id: d, type: set, value: 1, if: true}"), {}),
        (steps(f"{{id: a, type: if, condition: true, then: {ONE}, else: {TWO}}}", "{id: d, type: set, value: '${x}'}"), {"steps[0].else": "always true"}),
        (steps(f"{{id: a, type: if, condition: false, then: {ONE}, else: {TWO}}}", "{id: d, type: set, value: '${x}'}"), {"steps[0].then": "always false", "steps[1].value": "always null"}),
        (steps(f"{{id: a, type: if, condition: 1 == 1, then: {ONE}}}"), {}),
        (steps(f"{{id: a, type: switch, value: '${{1 + 1}}', cases: {{'2': {ONE}, y: {TWO}}}, default: [{{id: d, type: set, value: 1}}]}}"), {"steps[0].cases.y": "the value is always 2", "steps[0].default": "the value is always 2"}),
        (steps(f"{{id: a, type: switch, value: '${{input.x}}', cases: {{'2': {ONE}, y: {TWO}}}}}"), {}),
        (steps(f"{{id: a, type: while, condition: false, max_iterations: 3, steps: {ONE}}}"), {"steps[0].steps": "always false"}),
        (steps(f"{{id: a, type: while, condition: true, max_iterations: 3, steps: {ONE}}}"), {}),
        (steps(f"{{id: a, type: foreach, items: [], steps: {ONE}}}"), {"steps[0].steps": "no items"}),
        (steps(f"{{id: a, type: wait, signal: s, on_timeout: {{steps: {ONE}}}}}"), {"steps[0].on_timeout": "has no `timeout`"}),
        (steps(f"{{id: a, type: wait, signal: s, deadline: 1h, on_timeout: {{steps: {ONE}}}}}"), {}),
        (steps(f"{{id: a, type: foreach, if: false, items: [], steps: {ONE}}}", "{id: d, type: set, value: 1, needs: [a]}"), {"steps[0].if": "never runs"}),
        (steps("{id: a, type: llm, model: m, prompt: 'About {{ inputs.topic }}'}"), {"steps[0].prompt": "an expression is written ${…}"}),
        (steps("{id: a, type: llm, model: m, prompt: 'Use {{ mustache }} and {{name}}'}"), {}),
    ],
)  # fmt: skip
def test_what_never_runs_is_told_with_its_place(text: str, found: dict[str, str]) -> None:
    warnings = load(text).warnings
    assert [warning.path for warning in warnings] == list(found)
    for warning, clause in zip(warnings, found.values(), strict=True):
        assert clause in warning.message and warning.line and warning.column
    shown = describe(warnings, text, "w.yaml", label="warning: ")
    assert shown.count(": warning: ") == shown.count("^") == len(found)


def test_data_is_warned_of_without_lines() -> None:
    step = {"id": "a", "type": "set", "value": "{{ inputs.x }}", "if": False}
    found = load_data({"name": "w", "steps": [step]}).warnings
    assert {(warning.path, warning.line, warning.suggestion) for warning in found} == {
        ("steps[0].if", None, None), ("steps[0].value", None, "${input.x}"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("step", "message", "column"),
    [
        ("{id: a, type: llm, model: m, prompt: x, temperature: hot}", "has to be a number, not text", 58),
        ("{id: a, type: llm, model: m, prompt: x, max_tokens: '1${input.n}'}", "a text with an expression in it is text", 57),
        ("{id: a, type: llm, model: m, prompt: x, images: photo.png}", "data: or http(s): URLs, not 'photo.png'", 53),
        ("{id: a, type: llm, model: m, prompt: x, images: ['${input.a}', 5]}", "not number", 53),
        ("{id: a, type: llm, model: m, prompt: x, logit_bias: {'5': much}}", "5: has to be a number", 57),
        ("{id: a, type: llm, model: ' ', prompt: x}", "may not be empty", 31),
        ("{id: a, type: foreach, items: a b, steps: [{id: b, type: set, value: 1}]}", "has to be a list, not text", 35),
        ("{id: a, type: foreach, items: 'x ${input.x}', steps: [{id: b, type: set, value: 1}]}", "text with an expression", 35),
        ("{id: a, type: http, url: example.com}", "http:// or https://", 30),
        ("{id: a, type: set, value: '${{ input.x }}'}", "an expression has one pair of braces", 32),
    ],
)  # fmt: skip
def test_values_that_can_never_work_are_mistakes_of_the_text(step: str, message: str, column: int) -> None:
    with pytest.raises(UserError) as caught:
        load(steps(step))
    (found,) = caught.value.details
    assert message in found.message and (found.line, found.column) == (3, column)


def test_merge_keys_are_refused_in_their_own_words_alone() -> None:
    with pytest.raises(UserError) as caught:
        load("name: w\nsteps:\n  - &b {id: a, type: set, value: 1}\n  - <<: [*b]\n    id: c\n")
    assert [(one.message[:26], one.line, one.column) for one in caught.value.details] == [
        ("YAML 1.2 has no merge key ", 4, 5)
    ]
    assert load("name: w\nsteps: [{id: a, type: set, value: {'<<': 1}}]").steps[0].fields == {"value": {"<<": 1}}


@pytest.mark.parametrize(
    ("step", "message", "column"),
    [
        ("{id: a, type: llm, model: m, prompt: x, temperature: \"${'hot'}\"}", "has to be a number, not text", 58),
        ("{id: a, type: llm, model: m, prompt: x, top_p: '${3 + 4}'}", "at least 0 and at most 1", 52),
        ("{id: a, type: llm, model: m, prompt: x, max_tokens: '${1 / 0}'}", "cannot be evaluated", 57),
        ("{id: a, type: set, value: 1, if: \"${'yes'}\"}", "a condition must give a boolean, not text", 38),
        ("{id: a, type: sleep, duration: \"${'soon'}\"}", "not a duration", 36),
        ("{id: a, type: set, value: '${1 // 0}'}", "integer division or modulo by zero", 31),
        ("{id: a, type: set, value: {b: [1, '${1 / 0}']}}", "division by zero", 39),
        ("{id: a, type: set, value: 'Of ${input.x}: ${1 / 0}'}", "division by zero", 47),
        ("{id: a, type: llm, model: m, prompt: '${1 / 0}, {% if input.x %}${2 / 0}{% endif %}'}", "${1 / 0}: this", 43),
        ("{id: a, type: http, url: 'https://a.b/${1 / 0}'}", "division by zero", 43),
    ],
)  # fmt: skip
def test_an_expression_that_can_only_fail_is_warned_of(step: str, message: str, column: int) -> None:
    (found,) = load(steps(step)).warnings
    assert "this can only fail" in found.message and message in found.message
    assert (found.line, found.column) == (3, column)
