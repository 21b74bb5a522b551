"""A definition as nodes and edges, as Mermaid text and as a terminal's tree."""

import re
from pathlib import Path

import pytest

from aigateway.workflow_tree import workflow_tree
from engine.loader import load
from engine.workflow_graph import workflow_graph

EXAMPLES = sorted((Path(__file__).parents[3] / "workflows").glob("*.yaml"))
TEXT = """
name: shown
steps:
  - {id: end, type: llm, model: local, prompt: hi}
  - {id: beside, type: mcp_tool, server: docs, tool: search, needs: [], if: "input.x == \\"<1>\\""}
  - id: choose
    type: switch
    needs: [end, beside]
    value: ${input.x}
    cases:
      to be: [{id: a_b, type: set, value: 1}]
      or "not": [{id: a, type: sleep, duration: 5s}]
  - id: each
    type: foreach
    items: ${input.items}
    steps:
      - {id: first, type: workflow, workflow: other}
      - {id: then, type: http, url: "https://example.com", method: POST}
on_failure:
  - {id: tell, type: wait, signal: seen}
"""


def test_nodes_say_where_they_stand_and_edges_join_steps_of_one_list() -> None:
    graph = workflow_graph(load(TEXT))
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert list(nodes) == [
        "end", "beside", "choose", "a_b", "a", "each", "each.first", "each.then", "tell",
    ]  # fmt: skip
    assert nodes["each.then"]["parent"] == "each" and nodes["each.then"]["branch"] == "steps"
    assert nodes["a"]["branch"] == 'cases.or "not"' and nodes["tell"]["phase"] == "on_failure"
    assert [nodes[name]["detail"] for name in ("end", "beside", "each", "each.first", "each.then", "tell")] == [
        "local", "docs/search", "${input.items}", "other", "POST https://example.com", "seen",
    ]  # fmt: skip
    assert {(edge["from"], edge["to"]) for edge in graph["edges"]} == {
        ("end", "choose"), ("beside", "choose"), ("choose", "each"), ("each.first", "each.then"),
    }  # fmt: skip


def test_the_tree_names_what_is_out_of_the_plain_order() -> None:
    lines = workflow_tree(workflow_graph(load(TEXT))).splitlines()
    assert lines[0] == "shown"
    assert lines[2] == '├─ beside  mcp_tool  docs/search  if input.x == "<1>"  (at once)'
    assert lines[3] == "├─ choose  switch  ${input.x}  (after end, beside)"
    assert lines[4:6] == ["│  to be:", "│  └─ a_b  set"]
    assert lines[8:11] == [
        "└─ each    foreach  ${input.items}",
        "   ├─ first  workflow  other",
        "   └─ then   http  POST https://example.com",
    ]
    assert lines[-2:] == ["on_failure:", "└─ tell  wait  seen"]


@pytest.mark.parametrize("text", [TEXT, *(path.read_text(encoding="utf-8") for path in EXAMPLES)])
def test_mermaid_text_is_closed_quoted_and_draws_every_step_once(text: str) -> None:
    graph = workflow_graph(load(text))
    lines: list[str] = graph["mermaid"].splitlines()
    opened = [line.split("[")[0].split()[1] for line in lines if line.strip().startswith("subgraph")]
    assert len(opened) == len(set(opened)) == sum(line.strip() == "end" for line in lines)
    drawn = [found[1] for line in lines if (found := re.match(r"\s*(s_\w+)[\[{(]", line))]
    holding = {node["parent"] for node in graph["nodes"]} - {None}
    assert len(drawn) == len(set(drawn)) == len(graph["nodes"]) - len(holding)
    for line in lines[1:]:
        assert line.count('"') % 2 == 0 and "<1>" not in line


def test_two_paths_never_share_a_name() -> None:
    steps = "[{id: a_b, type: set, value: 1}, {id: a, type: parallel, branches: {x: [{id: b, type: set, value: 1}]}}]"
    mermaid = workflow_graph(load(f"{{name: n, steps: {steps}}}"))["mermaid"]
    assert len(set(re.findall(r"^\s+(s_\w+)[\[]", mermaid, re.M))) == 2
