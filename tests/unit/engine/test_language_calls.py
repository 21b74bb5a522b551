"""Calls of other workflows: what is wrong with them before anything runs, and where it stands in the text."""

from dataclasses import dataclass
from time import thread_time

import pytest

from engine.agent_steps import agent_key, names_of_calls, turn_of
from engine.calls import call_mistakes
from engine.definition import Definition
from engine.errors import Mistake
from engine.loader import load, load_data
from engine.located import located
from engine.mistakes import describe

CHILD = """\
name: child
inputs:
  topic: {type: string, minLength: 1}
  count: {type: integer, default: 3}
  items: {$ref: "#/$defs/list", $defs: {list: {type: array}}, default: []}
steps: [{id: a, type: set, value: 1}]
"""


@dataclass(frozen=True)
class Library:
    texts: tuple[str, ...]

    def names(self) -> list[str]:
        return [load(text).name for text in self.texts]

    def definition(self, name: str) -> Definition | None:
        return next((load(text) for text in self.texts if load(text).name == name), None)


def calling(**fields: str) -> str:
    more = "".join(f", {key}: {value}" for key, value in fields.items())
    return f"name: w\nsteps:\n  - {{id: call, type: workflow{more}}}\n"


def found(text: str, *others: str) -> list[Mistake]:
    return located(load(text), call_mistakes(Library((text, *others)), load(text)))


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ("{topic: tea}", {}),
        ("{topic: '${input.topic}', count: '${input.n}', items: ['${input.x}']}", {}),
        ("'${input}'", {}),
        ("{topic: 'about ${input.topic}'}", {}),
        ("{}", {"topic": "needs it"}),
        ("{topik: tea}", {"topic": "needs it", "topik": "did you mean topic?"}),
        ("{topic: ''}", {"topic": "at least 1 character"}),
        ("{topic: tea, count: many}", {"count": "has to be integer, not string"}),
        ("{topic: tea, count: '${input.n} of them'}", {"count": "has to be integer, and a text"}),
        ("{topic: tea, items: 5}", {"items": "has to be array, not integer"}),
    ],
)
def test_an_input_is_checked_against_what_the_called_workflow_declares(given: str, wrong: dict[str, str]) -> None:
    mistakes = found(calling(workflow="child", input=given), CHILD)
    assert [mistake.path for mistake in mistakes] == [f"steps.call.input.{name}" for name in wrong]
    for mistake, clause in zip(mistakes, wrong.values(), strict=True):
        assert clause in mistake.message and mistake.line == 3 and mistake.column


def test_a_workflow_that_is_not_there_and_one_that_declares_nothing() -> None:
    (mistake,) = found(calling(workflow="chlid"), CHILD)
    assert (mistake.message, mistake.suggestion, mistake.line, mistake.column) == (
        "there is no workflow 'chlid', did you mean child?", "child", 3, calling(workflow="chlid").splitlines()[2].index("chlid") + 1,
    )  # fmt: skip
    assert describe([mistake], "", "w.yaml").count("did you mean") == 1
    assert found(calling(workflow="open", input="{a: 1}"), "name: open\nsteps: [{id: a, type: set, value: 1}]") == []


@pytest.mark.parametrize(
    ("call", "ends"),
    [
        ("{id: call, type: workflow, workflow: w}", False),
        ("{id: call, type: workflow, workflow: other}", False),
        ("{id: call, type: workflow, workflow: w, if: true}", False),
        ("{id: both, type: parallel, branches: {a: [{id: call, type: workflow, workflow: w}]}}", False),
        ("{id: call, type: workflow, workflow: w, if: input.depth < 3}", True),
        ("{id: call, type: workflow, workflow: w, on_error: continue}", True),
        ("{id: some, type: if, condition: input.more, then: [{id: call, type: workflow, workflow: w}]}", True),
        ("{id: each, type: foreach, items: '${input.parts}', steps: [{id: call, type: workflow, workflow: w}]}", True),
    ],
)
def test_a_workflow_that_calls_itself_in_every_run_is_told(call: str, ends: bool) -> None:
    text = f"name: w\nsteps:\n  - {call}\n"
    mistakes = found(text, "name: other\nsteps: [{id: back, type: workflow, workflow: w}]")
    assert ["would never end" in mistake.message and mistake.line == 3 for mistake in mistakes] == [True] * (not ends)


def test_places_are_those_of_the_text_and_none_for_data() -> None:
    text = """\
name: w
steps:
  - id: each
    type: foreach
    items: [1]
    steps:
      - id: pick
        type: switch
        value: ${item}
        cases:
          "a b": [{id: log, type: mcp_tool, server: s, tool: t, params: {path: x, deep: [{a: 1}]}}]
  - {id: log, type: llm, model: m, prompt: x}
"""
    line = text.splitlines()[10]
    asked = ["each.log.params.deep[0].a", "each.log.params.gone", "log.model", "nothing.at.all"]
    told = located(load(text), [Mistake("m", f"steps.{path}") for path in asked])
    assert [(one.path, one.line, one.column) for one in told] == [
        ("steps.nothing.at.all", None, None), ("steps.each.log.params.gone", 11, line.index("{path") + 1), ("steps.each.log.params.deep[0].a", 11, line.index("1}]") + 1),
        ("steps.log.model", 12, 33),
    ]  # fmt: skip
    data = {"name": "w", "steps": [{"id": "log", "type": "llm", "model": "m", "prompt": "x"}]}
    (one,) = located(load_data(data), [Mistake("m", "steps.log.model")])
    assert (one.line, one.column) == (None, None)


def test_the_names_of_a_turns_calls() -> None:
    assert names_of_calls(["Web.Search", "model", "web_search", "!!", "x" * 200]) == [
        "web_search", "model_2", "web_search_2", "call", "x" * 40,
    ]  # fmt: skip
    assert (agent_key("each[3].research[12].model"), turn_of("each[3].research[12].model")) == ("each[3].research", 12)


def test_places_of_thousands_of_mistakes_are_found_in_one_walk() -> None:
    lines = [f"  - {{id: s{number}, type: set, value: 1, needs: []}}\n" for number in range(3_000)]
    text = "name: w\nsteps:\n" + "".join(lines)
    mistakes = [Mistake("no", f"steps.s{number}.value") for number in range(3_000)]
    found: list[Mistake] = []
    ratios: list[float] = []
    for _ in range(3):  # the collector may strike in one of them
        begun = thread_time()
        definition = load(text)
        loaded = thread_time()
        found = located(definition, mistakes)
        ratios.append((thread_time() - loaded) / (loaded - begun))
    assert [mistake.line for mistake in found] == list(range(3, 3_003)) and found[-1].column == 35
    assert min(ratios) < 2
