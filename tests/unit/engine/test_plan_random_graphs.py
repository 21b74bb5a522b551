"""The pure planner on random graphs: in whatever order steps end, each becomes ready exactly when the last that it needs has ended.

Nothing is stored: rows are `lay_out`'s, counters go down by `dependents`, and a model that knows neither says what has to be ready.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.definition import Definition, Step
from engine.loader import load_data
from engine.plan import Graph, address, index_of, lay_out, numbered, path_of, prefix_of

QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    count = iter(range(1000))

    def steps(depth: int) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        for _ in range(draw(st.integers(1, 6 if depth == 0 else 3))):
            step: dict[str, Any] = {"id": f"s{next(count)}", "type": "set", "value": 1}
            if depth < 3 and draw(st.integers(0, 3)) == 0:
                step = {"id": step["id"], **container(depth)}
            if draw(st.booleans()):
                earlier = [each["id"] for each in made]
                step["needs"] = draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else []
            made.append(step)
        return made

    def container(depth: int) -> dict[str, Any]:
        match draw(st.sampled_from(["if", "foreach", "parallel", "while"])):
            case "if":
                return {"type": "if", "condition": "true", "then": steps(depth + 1), "else": steps(depth + 1)}
            case "foreach":
                return {"type": "foreach", "items": [1], "steps": steps(depth + 1)}
            case "parallel":
                return {"type": "parallel", "branches": {"left": steps(depth + 1), "right": steps(depth + 1)}}
            case _:
                return {"type": "while", "condition": "true", "max_iterations": 3, "steps": steps(depth + 1)}

    return load_data({"name": "random", "steps": steps(0)})


def play(graph: Graph, steps: Sequence[Step], prefix: str, chance: Random) -> None:
    """One list of steps to its end, and every list inside it."""
    rows = lay_out(steps, prefix=prefix, parent_key=prefix.rstrip(".") or None, first_position=7)
    assert [row.position for row in rows] == list(range(7, 7 + len(steps)))
    waiting = {row.key: row.waiting_on for row in rows}
    needs = {prefix + step.id: {prefix + need for need in step.needs} for step in steps}
    ended: set[str] = set()
    while len(ended) < len(rows):
        ready = sorted(key for key in waiting if waiting[key] == 0 and key not in ended)
        assert ready == sorted(key for key in needs if needs[key] <= ended and key not in ended)
        assert ready, "a graph without a circle always has a step to run"
        key = chance.choice(ready)
        assert graph.step(key).id == key.removeprefix(prefix) and graph.siblings(key) == tuple(steps)
        inside(graph, key, chance)
        ended.add(key)
        for dependent in graph.dependents(key):
            waiting[dependent] -= 1
    assert set(waiting.values()) == {0}


def inside(graph: Graph, key: str, chance: Random) -> None:
    step = graph.step(key)
    for branch, inner in step.branches.items():
        match step.type:
            case "foreach" | "while":
                part = numbered(key, chance.randrange(50))
            case "parallel":
                part = f"{key}.{branch.removeprefix('branches.')}"
            case _:
                play(graph, inner, prefix_of(key), chance)
                continue
        assert path_of(part).startswith(path_of(key)) and graph.step(part) is step
        play(graph, inner, f"{part}.", chance)


def check_addresses(graph: Graph) -> None:
    """A path inside what repeats is found again from a key inside it, in its own iteration and the one before."""
    for path in graph.paths():
        parts = path.split(".")
        keys = [numbered(part, 3) if place < len(parts) - 1 else part for place, part in enumerate(parts)]
        repeats = all(
            graph.step(".".join(parts[: place + 1])).type in ("foreach", "while") for place in range(len(parts) - 1)
        )
        if not repeats or len(parts) == 1:
            continue
        key = ".".join(keys)
        assert address(prefix_of(key), path) == key and path_of(key) == path and index_of(prefix_of(key)) == 3
        before = ".".join([*keys[:-2], numbered(parts[-2], 2), keys[-1]])
        assert address(prefix_of(key), path, back=1) == before and address(prefix_of(key), path, back=4) is None


def check(definition: Definition, seed: int) -> None:
    graph = Graph(definition)
    assert sorted(graph.paths()) == sorted(step.path for step in definition.walk())
    play(graph, definition.steps, "", Random(seed))
    check_addresses(graph)


def times(count: int) -> Callable[[Any], Any]:
    return settings(max_examples=count, deadline=None, suppress_health_check=QUIET)


@times(2_000)
@given(definition=definitions(), seed=st.integers(0, 2**32))
def test_two_thousand_plans(definition: Definition, seed: int) -> None:
    check(definition, seed)


@pytest.mark.chaos
@times(100_000)
@given(definition=definitions(), seed=st.integers(0, 2**32))
def test_a_hundred_thousand_plans(definition: Definition, seed: int) -> None:
    check(definition, seed)
