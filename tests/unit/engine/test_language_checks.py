"""The loader: what a definition becomes, and every mistake with its place and suggestion."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.definition import Definition, RetryPolicy
from engine.errors import Mistake, UserError
from engine.keys import STEP_TYPES
from engine.loader import load, load_data
from engine.mistakes import describe
from engine.states import RETRIED_BY_DEFAULT, ErrorClass

SHIPPED = sorted((Path(__file__).parents[3] / "workflows").glob("*.yaml"))
SEED = next(path for path in SHIPPED if path.stem == "research-assistant").read_text()


def mistakes(text: str, **options: Any) -> tuple[Mistake, ...]:
    with pytest.raises(UserError) as caught:
        load(text, **options)
    assert caught.value.code == "invalid_workflow" and caught.value.details and "\n" not in caught.value.message
    return caught.value.details


def one(text: str) -> Mistake:
    found = mistakes(text)
    assert len(found) == 1, found
    return found[0]


def steps(*lines: str) -> str:
    return "name: w\nsteps:\n" + "".join(f"  - {line}\n" for line in lines)


def test_the_seed_becomes_what_it_says() -> None:
    found = load(SEED)
    assert (found.name, found.description, found.budget_picousd, found.source) == (
        "research-assistant", "Search web, summarize, write report", 500_000_000_000, SEED,
    )  # fmt: skip
    assert found.inputs == {"topic": {"type": "string", "minLength": 1}}
    assert [(step.id, step.needs, step.references) for step in found.steps] == [
        ("search", (), frozenset()), ("summarize", ("search",), {"search"}), ("report", ("summarize",), {"summarize"}),
    ]  # fmt: skip
    search, summarize, _ = found.steps
    assert search.fields == {
        "server": "brave-search",
        "tool": "web_search",
        "params": {"query": "${input.topic}", "count": 5},
    }
    assert search.timeout_s == 30 and search.output == "search_results" and search.line == 8
    assert search.retry == RetryPolicy(
        4, 1.0, 2.0, 60.0, True, frozenset({ErrorClass.RATE_LIMIT, ErrorClass.TIMEOUT, ErrorClass.SERVER_ERROR})
    )
    assert summarize.fields == {"model": "local", "prompt": "Summarize these search results:\n${search_results}\n"}
    assert found.output == "${final_report}" and found.output_references == {"report"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_workflow_loads_under_its_file_name(path: Path) -> None:
    assert load(path.read_text(), name=path.stem).name == path.stem


def test_an_if_step_holds_its_branches_and_shares_its_outputs() -> None:
    found = load(
        steps(
            "{id: a, type: set, value: 1, output: x}",
            "{id: b, type: if, condition: '${x > 0}', then: [{id: c, type: set, value: '${x}', output: y}, {id: d, type: set, value: '${y}'}],"
            " else: [{id: e, type: set, value: 2, output: y}]}",
            "{id: f, type: set, if: 'x is defined', value: '${y} ${steps.d.output} ${steps.b.output}'}",
        )
    )
    branch, after = found.steps[1:]
    assert branch.fields == {"condition": "x > 0"} and branch.references == {"a"}
    assert [(step.id, step.needs, step.references) for step in branch.branches["then"]] == [
        ("c", (), {"a"}),
        ("d", ("c",), {"c"}),
    ]
    assert after.references == {"a", "b", "c", "d", "e"} and after.needs == ("b",) and after.condition == "x is defined"
    assert [step.id for step in found.walk()] == ["a", "b", "c", "d", "e", "f"]


def test_needs_are_taken_as_written_and_left_out_means_the_step_before() -> None:
    found = load(steps("{id: a, type: set, value: 1}", "{id: b, type: set, value: 1, needs: []}", "{id: c, type: set, value: 1}",
                       "{id: d, type: set, value: 1, needs: [a, c]}", "{id: e, type: set, value: 1, needs: [f]}", "{id: f, type: set, value: 1, needs: [d]}"))  # fmt: skip
    assert [step.needs for step in found.steps] == [(), (), ("b",), ("a", "c"), ("f",), ("d",)]


def test_the_other_values_of_a_step() -> None:
    found = load(
        steps(
            "{id: a, type: llm, model: m, messages: [{role: user, content: '${input.q}'}], temperature: 0.5, stop: [x], seed: 3, max_tokens: '${input.n}',"
            " schema: {type: object}, timeout: 200ms, deadline: 1h, retry: {}, on_error: continue, if: true}",
            "{id: b, type: llm, model: '${input.m}', messages: '${input.messages}', timeout: 1.5, retry: {initial: 2m, errors: [quota]}}",
        )
        + "deadline: 1d\n"
    )
    first, second = found.steps
    assert first.fields["max_tokens"] == "${input.n}" and first.fields["schema"] == {"type": "object"}
    assert (first.timeout_s, first.deadline_s, first.on_error, first.condition) == (0.2, 3600, "continue", "true")
    assert first.retry == RetryPolicy(3, 1.0, 2.0, 60.0, True, RETRIED_BY_DEFAULT)
    assert (
        second.retry == RetryPolicy(3, 120.0, 2.0, 120.0, True, frozenset({ErrorClass.QUOTA}))
        and second.timeout_s == 1.5
    )
    assert found.deadline_s == 86_400 and found.inputs is None and found.output is None


@pytest.mark.parametrize(
    ("step", "message", "suggestion"),
    [
        ("{id: A-b, type: set, value: 1}", "a step's id is made of", "a_b"),
        ("{id: input, type: set, value: 1}", "taken", None),
        ("{id: 7, type: set, value: 1}", "has to be text, not a number", None),
        ("{type: set, value: 1}", "needs `id`", None),
        ("{id: a, value: 1}", "needs `type`", None),
        ("{id: a, type: sett, value: 1}", "no step type 'sett'", "set"),
        ("{id: a, type: foreach, items: []}", "needs `steps`", None),
        ("{id: a, type: agent, model: m, prompt: x}", "needs `tools`", None),
        ("{id: a, type: agent, model: m, prompt: x, tools: [s/t, s2/*], approve: [s/t, s2/x], approve_timeout: 1d, max_turns: 3, max_cost_usd: 0.1, schema: {type: object}, temperature: 0}", "", None),
        ("{id: a, type: agent, model: m, prompt: x, tools: []}", "a list of tools", None),
        ("{id: a, type: agent, model: m, prompt: x, tools: s/t}", "a list of tools", None),
        ("{id: a, type: agent, model: m, prompt: x, tools: [t]}", "has to be `server/tool`", None),
        ("{id: a, type: agent, model: m, prompt: x, tools: ['s/${input.t}']}", "has to be `server/tool`", None),
        ("{id: a, type: agent, model: m, prompt: x, tools: [1]}", "has to be text", None),
        ("{id: a, type: agent, model: m, prompt: x, tools: [s/t, s/t]}", "named twice", None),
        ("{id: a, type: agent, model: m, prompt: x, tools: [mail/send], approve: [mail/sent]}", "none of this agent's `tools`", "mail/send"),
        ("{id: a, type: agent, model: m, prompt: x, tools: [mail/send], approve: [post/*]}", "none of this agent's `tools`", None),
        ("{id: a, type: agent, model: m, prompt: x, tools: [mail/send], approve: [mail/*]}", "", None),
        ("{id: a, type: agent, model: m, prompt: x, tools: [mail/send], approve_timeout: 1h}", "means nothing without `approve`", None),
        ("{id: a, type: agent, model: m, prompt: x, tools: [s/t], max_turns: 0}", "at least 1", None),
        ("{id: a, type: agent, model: m, prompt: x, tools: [s/t], max_turns: two}", "a whole number", None),
        ("{id: a, type: agent, model: m, prompt: x, tools: [s/t], max_cost_usd: -1}", "at least 0", None),
        ("{id: a, type: agent, model: m, prompt: x, tools: [s/t], cache: 1h}", "takes no `cache`", None),
        ("{id: a, type: agent, model: m, prompt: x, tools: [s/t], max_turn: 3}", "no key 'max_turn'", "max_turns"),
        ("{id: a, type: agent, model: m, prompt: x, tools: [s/t], messages: [{role: user, content: x}]}", "not both", None),
        ("{id: a, type: set}", "needs `value`", None),
        ("{id: a, type: set, valeu: 1, value: 2}", "no key 'valeu'", "value"),
        ("{id: a, type: set, value: 1, cache: 1h}", "takes no `cache`", None),
        ("{id: a, type: set, value: 1, on_error: {steps: []}}", "at least one step", None),
        ("{id: a, type: set, value: 1, on_error: contniue}", "one of fail, continue", "continue"),
        ("{id: a, type: set, value: 1, output: item}", "taken", None),
        ("{id: a, type: set, value: 1, output: null}", "has to be text, not nothing", None),
        ("{id: a, type: set, value: 1, output: 'not'}", "taken", None),
        ("{id: a, type: set, value: 1, timeout: 30}", "", None),
        ("{id: a, type: set, value: 1, timeout: 30 s}", "not a duration", None),
        ("{id: a, type: set, value: 1, timeout: 0}", "above 0", None),
        ("{id: a, type: set, value: 1, timeout: -1s}", "not a duration", None),
        ("{id: a, type: set, value: 1, deadline: true}", "not a duration", None),
        ("{id: a, type: set, value: 1, retry: 3}", "has to be an object", None),
        ("{id: a, type: set, value: 1, retry: {max_attempts: 0}}", "at least 1", None),
        ("{id: a, type: set, value: 1, retry: {max_attempt: 2}}", "no key 'max_attempt'", "max_attempts"),
        ("{id: a, type: set, value: 1, retry: {initial: 5m}}", "", None),
        ("{id: a, type: set, value: 1, retry: {initial: 5m, max: 1m}}", "longer than", None),
        ("{id: a, type: set, value: 1, retry: {errors: [timout]}}", "has to be one of", "timeout"),
        ("{id: a, type: set, value: 1, retry: {jitter: yes}}", "true or false, not text", None),
        ("{id: a, type: set, value: 1, needs: b}", "a list of step ids", None),
        ("{id: a, type: set, value: 1, needs: [b]}", "no step 'b'", None),
        ("{id: a, type: set, value: 1, needs: [a]}", "cannot wait for itself", None),
        ("{id: a, type: set, value: 1, needs: [1]}", "the id of a step", None),
        ("{id: a, type: set, value: 1, if: 1}", "gives a boolean", None),
        ("{id: a, type: set, value: 1, if: a =}", "not an expression", None),
        ("{id: a, type: set, value: '${x'}", "is not closed", None),
        ("{id: a, type: set, value: '${input.x | lenght}'}", "no filter 'lenght'", "length"),
        ("{id: a, type: set, value: '${x}'}", "no output 'x'", None),
        ("{id: a, type: set, value: '${inptu.x}'}", "no output 'inptu'", "input"),
        ("{id: a, type: set, value: '${a}'}", "is a step, not an output", "steps.a.output"),
        ("{id: a, type: set, value: '${steps.b.output}'}", "no step 'b'", None),
        ("{id: a, type: set, value: '${steps.a.output}'}", "cannot read its own", None),
        ("{id: a, type: set, value: '${item}'}", "only inside foreach", None),
        ("{id: a, type: llm, model: m}", "needs `prompt` or `messages`, one of them", None),
        ("{id: a, type: llm, model: m, prompt: x, messages: [{role: user, content: x}]}", "not both", None),
        ("{id: a, type: llm, prompt: x}", "needs `model`", None),
        ("{id: a, type: llm, model: m, prompt: x, temperature: 3}", "at most 2", None),
        ("{id: a, type: llm, model: m, prompt: x, temperature: '1'}", "a number, not text", None),
        ("{id: a, type: llm, model: m, prompt: x, seed: 1.5}", "a whole number", None),
        ("{id: a, type: llm, model: m, prompt: x, stop: []}", "1 to 16", None),
        ("{id: a, type: llm, model: m, prompt: x, extra: {stream: true}}", "extra cannot hold 'stream'", None),
        ("{id: a, type: agent, model: m, prompt: x, tools: [a/b], extra: {tools: []}}", "extra cannot hold 'tools'", None),
        ("{id: a, type: llm, model: m, prompt: x, tools: []}", "no key 'tools'", None),
        ("{id: a, type: llm, model: m, prompt: x, schema: {type: strng}}", "no JSON type 'strng'", "string"),
        ("{id: a, type: llm, model: m, prompt: x, schema: {$ref: 'http://x/y'}}", "has to lead to a place", None),
        ("{id: a, type: llm, model: m, prompt: x, schema: {$ref: '#'}}", "leads back to itself", None),
        ("{id: a, type: llm, model: m, prompt: x, schema: {items: {anyOf: [{$ref: '#/$defs/b'}]}, $defs: {b: {not: {$ref: '#/items'}}}}}", "leads back to itself", None),
        ("{id: a, type: llm, model: m, prompt: x, schema: {pattern: '['}}", "not a regular expression", None),
        ("{id: a, type: llm, model: m, prompt: x, schema: {patternProperties: {'a{99999999999}': {}}}}", "not a regular expression", None),
        ("{id: a, type: llm, model: m, prompt: x, schema: {pattern: 1}}", "not a valid JSON Schema", None),
        ("{id: a, type: llm, model: m, prompt: '{% if x %}'}", "is not closed", None),
        ("{id: a, type: llm, model: m, messages: [{role: usr, content: x}]}", "one of system", "user"),
        ("{id: a, type: llm, model: m, messages: [{role: user, contents: x, content: y}]}", "no key 'contents'", "content"),
        ("{id: a, type: llm, model: m, messages: hello}", "a list of messages", None),
        ("{id: a, type: mcp_tool}", "needs `tool`", None),
        ("{id: a, type: mcp_tool, tool: '${input.t}'}", "without expressions", None),
        ("{id: a, type: mcp_tool, tool: t, params: [1]}", "has to be an object, not a list", None),
        ("{id: a, type: if, condition: true, then: []}", "at least one step", None),
        ("{id: a, type: if, condition: true}", "needs `then`", None),
        ("{id: a, type: if, condition: true, then: [{id: a, type: set, value: 1}]}", "given twice", None),
        ("{id: a, type: if, condition: true, then: [{id: b, type: set, value: '${steps.a.output}'}]}", "holds this one", None),
        ("{id: a, type: if, condition: true, then: [{id: b, type: set, value: 1, needs: [a]}]}", "no step 'a' in this list", None),
        ("hello", "a step, which is an object", None),
    ],
)  # fmt: skip
def test_one_mistake_in_a_step(step: str, message: str, suggestion: str | None) -> None:
    if not message:
        assert load(steps(step))
        return
    found = [found for found in mistakes(steps(step)) if message in found.message]
    assert found, mistakes(steps(step))
    assert found[0].line == 3 and found[0].column and (found[0].path or "").startswith("steps[0]")
    assert found[0].suggestion == suggestion


@pytest.mark.parametrize(
    ("text", "message", "path", "suggestion"),
    [
        ("[]", "an object with `steps`", None, None),
        ("a", "an object with `steps`", None, None),
        ("name: w", "needs `steps`", None, None),
        ("steps: [{id: a, type: set, value: 1}]", "needs `name`", None, None),
        ("name: My Flow\nsteps: [{id: a, type: set, value: 1}]", "a workflow's name is made of", "name", "my-flow"),
        ("name: 7\nsteps: [{id: a, type: set, value: 1}]", "has to be text, not a number", "name", None),
        ("name: w\nsteps: []", "at least one step", "steps", None),
        ("name: w\nsteps: {}", "a list of steps", "steps", None),
        ("name: w\nstep: 1\nsteps: [{id: a, type: set, value: 1}]", "no key 'step'", "step", "steps"),
        ("name: w\nfinally: []\nsteps: [{id: a, type: set, value: 1}]", "at least one step", "finally", None),
        ("name: w\ncache: 1h\nsteps: [{id: a, type: set, value: 1}]", "no key 'cache'", "cache", None),
        ("name: w\nconcurrency: 0\nsteps: [{id: a, type: set, value: 1}]", "at least 1", "concurrency", None),
        ("name: w\nconcurrency: ${input.n}\nsteps: [{id: a, type: set, value: 1}]", "has to be a whole number", "concurrency", None),
        ("name: w\nconcurrency: {key: '${input.n}'}\nsteps: [{id: a, type: set, value: 1}]", "needs `limit`", "concurrency", None),
        ("name: w\nconcurrency: {limit: 1, keys: x}\nsteps: [{id: a, type: set, value: 1}]", "no key 'keys'", "concurrency.keys", "key"),
        ("name: w\nconcurrency: {limit: 1, key: x}\nsteps: [{id: a, type: set, value: 1}]", "an expression over the input", "concurrency.key", None),
        ("name: w\nconcurrency: {limit: 1, key: '${run.id}'}\nsteps: [{id: a, type: set, value: 1}]", "an expression over the input", "concurrency.key", None),
        ("name: w\nconcurrency: {limit: 1, key: '${steps.a.output}'}\nsteps: [{id: a, type: set, value: 1}]", "only `input` is known", "concurrency.key", None),
        ("name: w\ninputs: {name: {type: string}}\nconcurrency: {limit: 1, key: '${input.nam}'}\nsteps: [{id: a, type: set, value: 1}]", "no input 'nam'", "concurrency.key", "name"),
        ("name: w\ninputs: {n: {type: [string, object]}}\nconcurrency: {limit: 1, key: '${input.n}'}\nsteps: [{id: a, type: set, value: 1}]", "may be something else", "concurrency.key", None),
        ("name: w\nbudget_usd: -1\nsteps: [{id: a, type: set, value: 1}]", "at least 0", "budget_usd", None),
        ("name: w\nbudget_usd: a lot\nsteps: [{id: a, type: set, value: 1}]", "a number, not text", "budget_usd", None),
        ("name: w\ninputs: [a]\nsteps: [{id: a, type: set, value: 1}]", "a JSON Schema for each", "inputs", None),
        ("name: w\ninputs: {a: string}\nsteps: [{id: a, type: set, value: 1}]", "such as {type: string}", "inputs.a", None),
        ("name: w\ninputs: {a: {type: strin}}\nsteps: [{id: a, type: set, value: 1}]", "no JSON type", "inputs.a.type", "string"),
        ("name: w\ninputs: {a: {type: string, default: 1}}\nsteps: [{id: a, type: set, value: 1}]", "default does not fit", "inputs.a.default", None),
        ("name: w\ninputs: {topic: {}}\nsteps: [{id: a, type: set, value: '${input.topik}'}]", "no input 'topik'", "steps[0].value", "topic"),
        ("name: w\ninputs: {topic: {}}\nsteps: [{id: a, type: set, value: '${topic}'}]", "no 'topic'", "steps[0].value", "input.topic"),
        ("name: w\ninputs: {a: {items: {type: strin}}}\nschedule: {cron: '@daily', input: {a: [1]}}\nsteps: [{id: a, type: set, value: 1}]", "no JSON type", "inputs.a.items.type", "string"),
        ("name: w\noutput: ${x}\nsteps: [{id: a, type: set, value: 1, output: xx}]", "no output 'x'", "output", "xx"),
        ("name: w\noutput: {a: ['${resutl}']}\nsteps: [{id: a, type: set, value: 1, output: result}]", "no output 'resutl'", "output.a[0]", "result"),
    ],
)  # fmt: skip
def test_one_mistake_at_the_top(text: str, message: str, path: str | None, suggestion: str | None) -> None:
    found = one(text)
    assert (
        message in found.message
        and (found.path, found.suggestion) == (path, suggestion)
        and found.line
        and found.column
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (steps("{id: a, type: set, value: '${y}'}", "{id: b, type: set, value: 1, output: y}"), "'b' may not have run"),
        (steps("{id: a, type: set, value: 1, output: x}", "{id: b, type: set, value: '${x}', needs: []}"), "name it in `needs`"),
        (steps("{id: a, type: set, value: 1, output: x}", "{id: b, type: set, value: 1, output: x}"), "already set by the step 'a'"),
        (steps("{id: a, type: if, condition: true, then: [{id: b, type: set, value: 1, output: x}, {id: c, type: set, value: 1, output: x}]}"), "already set by the step 'b'"),
        (steps("{id: a, type: if, condition: true, then: [{id: b, type: set, value: 1, output: x}], else: [{id: c, type: set, value: '${x}'}]}"), "'b' may not have run"),
        (steps("{id: a, type: if, condition: true, then: [{id: b, type: set, value: 1, output: x}]}", "{id: c, type: set, value: 1, output: x}"), "already set by the step 'b'"),
        (steps("{id: a, type: set, value: 1, needs: [c]}", "{id: b, type: set, value: 1}", "{id: c, type: set, value: 1}"), "wait for each other: a → c → b → a"),
        (steps("{id: a, type: set, value: 1, needs: [b, b]}", "{id: b, type: set, value: 1, needs: []}"), "named twice"),
    ],
)  # fmt: skip
def test_mistakes_between_steps(text: str, message: str) -> None:
    assert message in one(text).message


def test_every_mistake_is_reported_at_once_in_the_order_of_the_text() -> None:
    text = """\
name: Bad Name
budget_usd: x
steps:
  - id: one
    type: llm
    prompt: |
      Line one ${nope}
      ${input.x | uper}
      {% if y %}
    tempreature: 1
  - id: one
    type: lmm
    timeout: soon
    timeout: later
output: "${ok} and ${summry}"
"""
    found = mistakes(text)
    assert [(item.line, item.column, item.path, item.suggestion) for item in found] == [
        (1, 7, "name", "bad-name"),
        (2, 13, "budget_usd", None),
        (4, 5, "steps[0]", None),  # needs `model`
        (7, 16, "steps[0].prompt", None),
        (8, 7, "steps[0].prompt", "upper"),
        (9, 7, "steps[0].prompt", None),
        (9, 7, "steps[0].prompt", None),
        (10, 5, "steps[0].tempreature", "temperature"),
        (11, 9, "steps[1].id", None),
        (12, 11, "steps[1].type", "llm"),
        (13, 14, "steps[1].timeout", None),
        (14, 5, "steps[1].timeout", None),
        (15, 10, "output", None),
        (15, 20, "output", None),
    ]


def test_data_loads_like_text_and_its_source_loads_again() -> None:
    data = {
        "name": "w",
        "inputs": {"q": {"type": "string"}},
        "steps": [{"id": "a", "type": "set", "value": "é\u2028\x7f\U0001f600 ${input.q}", "output": "x"}],
        "output": "${x}",
    }
    found = load_data(data)
    assert found.steps[0].fields["value"] == data["steps"][0]["value"]  # type: ignore[index]
    again = load(found.source)
    assert [step.fields for step in again.steps] == [
        step.fields for step in found.steps
    ] and again.output == found.output
    with pytest.raises(UserError) as caught:
        load_data({"name": "w", "steps": [{"id": "a", "type": "set", "value": "${q}"}]})
    assert [(item.path, item.line, item.column) for item in caught.value.details] == [("steps[0].value", None, None)]


def test_the_name_it_is_stored_under_fills_in_and_has_to_agree() -> None:
    text = "steps: [{id: a, type: set, value: 1}]"
    assert (
        load(text, name="kept").name == "kept"
        and load_data({"steps": [{"id": "a", "type": "set", "value": 1}]}, name="x").name == "x"
    )
    assert mistakes("name: other\n" + text, name="kept")[0].suggestion == "kept"
    assert mistakes(text, name="Not Good")[0].suggestion == "not-good"


def test_describe_draws_a_caret_under_the_place() -> None:
    text = "name: w\nsteps:\n  - id: a\n    type: sett\n"
    assert describe(mistakes(text, origin="w.yaml"), text, "w.yaml") == (
        "w.yaml:4:11: there is no step type 'sett' (did you mean set?)\n        type: sett\n              ^"
    )
    assert describe([Mistake("wrong", "a.b")], text, "w.yaml") == "w.yaml: a.b: wrong"
    long = "name: w\nsteps: [" + " " * 500 + "{}]\n"
    assert all(len(line) < 200 for line in describe(mistakes(long), long, "x").splitlines())


def test_the_error_says_how_many_and_where_the_first_is() -> None:
    with pytest.raises(UserError, match=r"^w.yaml: there is no step type 'sett' \(line 2\)$"):
        load("name: w\nsteps: [{id: a, type: sett}]", origin="w.yaml")
    with pytest.raises(UserError, match=r", and 1 more$"):
        load("name: w\nsteps: [{id: a, type: sett}, {id: b, type: sett}]")


def test_a_file_of_200_steps_loads_quickly() -> None:
    text = "name: big\nsteps:\n" + "".join(
        f"  - id: s{n}\n    type: llm\n    model: local\n    prompt: |\n      Do ${{input.topic}} {{% if input.y %}}now {n}{{% endif %}}\n"
        f"      ${{{f'o{n - 1}' if n else 'input.z'}}}\n    output: o{n}\n    retry: {{max_attempts: 3}}\n"
        for n in range(200)
    )
    load("name: warm\nsteps: [{id: a, type: set, value: 1}]")
    started = time.perf_counter()
    load(text)
    assert time.perf_counter() - started < 0.5  # 40 ms here; room for a busy machine


def test_thousands_of_steps_are_no_more_than_linear_trouble() -> None:
    text = "name: big\nsteps:\n" + "".join(f"  - {{id: s{n}, type: set, value: 1}}\n" for n in range(5_001))
    started = time.perf_counter()
    assert "at most 5000 steps" in one(text).message
    assert time.perf_counter() - started < 5


def tree_of_ifs(depth: int, name: str) -> str:
    if depth == 0:
        return f"{{id: {name}, type: set, value: 1, output: x}}"
    then, other = tree_of_ifs(depth - 1, name + "a"), tree_of_ifs(depth - 1, name + "b")
    return f"{{id: {name}, type: if, condition: true, then: [{then}], else: [{other}]}}"


def hostile() -> dict[str, str]:
    head = "name: w\nsteps:\n  - id: a\n    type: set\n    value: "
    return {
        "one text of expressions": head + "${run.id}" * 50_000,
        "many texts": head + "[" + ", ".join(f"'${{run.id ~ {n}}}'" for n in range(20_000)) + "]",
        "unknown names": head + "[" + ", ".join(f"'${{nope{n}}}'" for n in range(20_000)) + "]",
        "unknown filters": head + "[" + ", ".join(f"'${{1|uper{n}}}'" for n in range(20_000)) + "]",
        "unknown keys": "\n".join(f"key{n}: 1" for n in range(30_000)),
        "duplicate keys": "a: 1\n" * 60_000,
        "one name set in many branches": steps(
            tree_of_ifs(10, "a"), *[f"{{id: r{n}, type: set, value: '${{x}}'}}" for n in range(1_000)]
        ),
        "many needs": steps(
            *[f"{{id: s{n}, type: set, value: 1, needs: [{', '.join(f's{m}' for m in range(n))}]}}" for n in range(300)]
        ),
        "near names": steps(
            *[f"{{id: step{n}, type: set, value: '${{outputt{n}}}', output: output{n}}}" for n in range(4_000)]
        ),
        "open brackets in an expression": head + "${" + "(" * 200_000,
        "open strings": head + "${'" * 100_000,
        "percent signs": head + "{% " * 100_000,
        "anchors": "\n".join(f"a{n}: &a{n} x" for n in range(30_000)),
        "flow": "[" + "[], " * 100_000 + "]",
        "schemas": "name: w\ninputs:\n"
        + "".join(f"  i{n}: {{type: string, pattern: 'a{n}'}}\n" for n in range(1_000))
        + "steps: [{id: a, type: set, value: 1}]",
    }


@pytest.mark.parametrize("what", hostile())
def test_hostile_texts_are_answered_in_bounded_time(what: str) -> None:
    started = time.perf_counter()
    only_user_errors(hostile()[what])
    assert time.perf_counter() - started < 20  # 1 s here, 4 s on a busy machine


def only_user_errors(text: str) -> Definition | None:
    try:
        return load(text)
    except UserError as error:
        assert error.code == "invalid_workflow" and error.details and all(item.line for item in error.details)
        assert describe(error.details, text, "x")
        return None


SPICE = st.sampled_from(["${", "}", "{%", "%}", "*a", "&a ", "!", ": ", "- ", "\n", "  ", "[", "]", "{", "'", '"', "|", ">", "#", "\t", "\x00", "é", "if", "null", "1e999", "${input.x}", "<<", "---\n", "@", "`"])  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=200)
    | st.lists(SPICE, max_size=60).map("".join)
    | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1"))
)
def test_any_text_gives_a_definition_or_a_user_error_with_lines(text: str) -> None:
    only_user_errors(text)
    only_user_errors(f"name: w\nsteps:\n  - {text}")


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SHIPPED),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 12), SPICE | st.just("")), min_size=1, max_size=4),
)
def test_any_damage_to_a_good_file_gives_a_definition_or_a_user_error_with_lines(
    path: Path, cuts: list[tuple[int, int, str]]
) -> None:
    text = path.read_text()
    for at, length, put in cuts:
        at %= len(text) or 1
        text = text[:at] + put + text[at + length :]
    only_user_errors(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | SPICE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | SPICE, inner, max_size=3),
    max_leaves=12,
)
KEYS = st.sampled_from(["id", "type", "if", "needs", "output", "timeout", "retry", "on_error", "prompt", "messages", "model", "schema", "value", "condition", "then", "else", "tool", "params", "temperature", "stop", "images", "logit_bias", "extra", "items", "steps", "url", "headers", "cases", "branches", "input", "workflow", "signal", "duration", "until", "max_iterations", "collect", "tools", "approve"])  # fmt: skip
odd_steps = st.dictionaries(KEYS, json_values, max_size=6).flatmap(
    lambda step: st.sampled_from(list(STEP_TYPES)).map(lambda kind: {"id": "a", "type": kind, **step})
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(odd_steps, max_size=3),
    st.dictionaries(
        st.sampled_from(["inputs", "output", "budget_usd", "deadline", "description", "name"]), json_values
    ),
)
def test_any_data_gives_a_definition_or_a_user_error(parts: list[dict[str, Any]], top: dict[str, Any]) -> None:
    try:
        found = load_data({"name": "w", "steps": parts, **top})
    except UserError as error:
        assert error.code == "invalid_workflow" and error.details
    else:
        assert load(found.source).steps[0].fields == found.steps[0].fields


def test_a_wait_for_the_signal_of_an_agents_calls() -> None:
    agent = "{id: a, type: agent, model: m, prompt: x, tools: [s/t]"
    wait = "{id: b, type: wait, signal: approve}"
    assert load(steps(f"{agent}}}", wait))
    found = mistakes(steps(f"{agent}, approve: [s/t]}}", wait))
    assert [one.path for one in found] == ["steps[1].signal"] and "agent" in found[0].message
