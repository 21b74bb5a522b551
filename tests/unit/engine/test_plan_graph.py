"""The edges of a definition turned round, and the rows of a list of steps."""

from engine.loader import load
from engine.plan import Graph, lay_out

NESTED = """
name: nested
steps:
  - {id: a, type: set, value: 1}
  - {id: b, type: set, value: 1, needs: []}
  - id: c
    type: if
    needs: [a, b]
    condition: "true"
    then:
      - {id: d, type: set, value: 1}
      - {id: e, type: set, value: 1}
    else:
      - {id: f, type: set, value: 1}
  - {id: g, type: set, value: 1}
"""


def test_who_waits_for_whom() -> None:
    graph = Graph(load(NESTED))
    waiting = {key: list(graph.dependents(key)) for key in "abcdefg"}
    assert waiting == {"a": ["c"], "b": ["c"], "c": ["g"], "d": ["e"], "e": [], "f": [], "g": []}
    assert [step.id for step in graph.siblings("e")] == ["d", "e"]


def test_a_list_is_laid_out_in_its_order_with_what_each_step_waits_on() -> None:
    rows = lay_out(load(NESTED).steps, prefix="", parent_key="outer", first_position=10)
    assert [(row.key, row.waiting_on, row.position, row.parent_key) for row in rows] == [
        ("a", 0, 10, "outer"),
        ("b", 0, 11, "outer"),
        ("c", 2, 12, "outer"),
        ("g", 1, 13, "outer"),
    ]
