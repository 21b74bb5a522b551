"""YAML 1.2 as the loader reads it: scalars, keys, places, bounds."""

import json

import pytest

from engine.yaml12 import MAX_DEPTH, Node, read_data, read_yaml, resolve


def read(text: str) -> object:
    node, mistakes = read_yaml(text)
    assert node is not None and not mistakes, mistakes
    return node.plain()


def messages(text: str) -> list[str]:
    return [mistake.message for mistake in read_yaml(text)[1]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"), ("Yes", "Yes"),
        ("true", True), ("True", True), ("FALSE", False), ("tRue", "tRue"),
        ("null", None), ("~", None), ("NULL", None), ("nUll", "nUll"),
        ("0o17", 15), ("017", 17), ("0x1F", 31), ("-7", -7), ("+7", 7), ("0b11", "0b11"), ("-0o7", "-0o7"),
        ("1:30", "1:30"), ("190:20:30", "190:20:30"), ("1_000", "1_000"),
        ("1e3", 1000.0), ("1.", 1.0), (".5", 0.5), ("-.5e-1", -0.05), ("1.2.3", "1.2.3"), (".", "."), ("e3", "e3"),
        ("2026-11-22", "2026-11-22"), ("=", "="), ("<<", "<<"), ("é", "é"), ("١٢", "١٢"), ("-", "-"),
    ],
)  # fmt: skip
def test_a_plain_scalar_means_what_the_core_schema_says(text: str, value: object) -> None:
    found = resolve(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", [".inf", "-.Inf", ".nan", "1e999", "1" * 200, "0x" + "f" * 50])
def test_a_number_that_json_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="number"):
        resolve(text)
    assert messages(f"a: {text}")


def test_words_of_yaml_1_1_are_text_as_keys_and_values() -> None:
    assert read("on: yes\nno: off") == {"on": "yes", "no": "off"}


def test_quoted_scalars_are_text() -> None:
    assert read("""["1", 'true', "null"]""") == ["1", "true", "null"]
    assert read("a: |\n  1\n") == {"a": "1\n"}


def test_a_duplicate_key_is_named_with_both_lines_and_the_first_value_stays() -> None:
    node, mistakes = read_yaml("a: 1\nb:\n  c: 1\n  c: {d: 2}\ne: 3\n")
    assert node is not None and node.plain() == {"a": 1, "b": {"c": 1}, "e": 3}
    assert [(found.message, found.path, found.line, found.column) for found in mistakes] == [
        ("the key 'c' is given twice, first in line 3", "b.c", 4, 3)
    ]


@pytest.mark.parametrize("text", ["1: a", "true: a", "null: a", "1.5: a", "? : a", ".inf: a"])
def test_keys_that_are_no_text_are_refused(text: str) -> None:
    assert any("a key has to be text" in message for message in messages(text))


@pytest.mark.parametrize("text", ["[a]: b", "{a: b}: c", "? - a\n: b", "&x a: 1\n*x : 2"])
def test_keys_that_are_no_scalars_are_refused(text: str) -> None:
    assert messages(text)


@pytest.mark.parametrize("text", ["a: !!python/object:os.system x", "a: !!str 1", "!x {a: 1}", "a: ! b", "!!set {a}"])
def test_tags_are_refused(text: str) -> None:
    assert any("tags are not allowed" in message for message in messages(text))


def test_aliases_share_the_value() -> None:
    assert read("a: &x {b: 1}\nc: *x\nd: [*x, *x]") == {"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}, {"b": 1}]}


@pytest.mark.parametrize("text", ["a: &x [*x]", "&x {a: *x}", "a: *nowhere", "*a"])
def test_wrong_aliases_are_refused(text: str) -> None:
    assert messages(text)


def test_a_billion_laughs_is_refused_before_anybody_walks_it() -> None:
    lines = ['a0: &a0 ["lol"]'] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert messages("\n".join(lines)) == ["the text is too large once its aliases are expanded"]


def test_aliases_of_a_long_text_count_by_its_length() -> None:
    assert messages(f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 100)}]")


def test_depth_is_bounded() -> None:
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    for text in ("[" * 500_000, "- " * 5_000 + "a", "{a: " * 500, "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)):
        assert messages(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: [", 2), ("a: 1\nb: c: d", 2), ("a: 1\n\tb: 2", 2), ("a: 1\nb: '", 2), ("a: \x07", 1), ("x\n\x00", 2), ("", 1),
     ("# nothing", 1), ("a: 1\n---\nb: 2", 2), ("a: \ud800", 1)],
)  # fmt: skip
def test_text_that_is_no_yaml_names_a_line(text: str, line: int) -> None:
    node, mistakes = read_yaml(text)
    assert node is None and mistakes[-1].line == line and mistakes[-1].column is not None


def test_a_text_that_is_too_long_is_refused() -> None:
    assert messages("a: " + "x" * 1_100_000)


@pytest.mark.parametrize("text", ['v: ${ {"a": 1}.a }', "p: {q: ${input.x}}"])
def test_an_unquoted_expression_gets_a_hint(text: str) -> None:
    assert "quotes around" in messages(text)[0]


def test_a_byte_order_mark_is_left_out_and_places_count_from_one() -> None:
    node, _ = read_yaml("\ufeffa:\n  - b: ü\n    c: d\n")
    assert node is not None and node.items is None
    inner = (node.entries or {})["a"].items or []
    assert inner[0].place is not None and (inner[0].place.line, inner[0].place.column) == (2, 5)
    assert (inner[0].keys["c"].line, inner[0].keys["c"].column) == (3, 5)


def test_plain_data_reads_the_same_without_places() -> None:
    data = {"a": [1, None, True, "x", 1.5], "b": {"c": {}}}
    node, mistakes = read_data(data)
    assert not mistakes and isinstance(node, Node) and node.plain() == data and node.place is None
    assert read(json.dumps(data)) == data


def test_plain_data_that_is_no_json_is_refused() -> None:
    deep: list[object] = []
    for _ in range(100):
        deep = [deep]
    circle: list[object] = []
    circle.append(circle)
    for data in (
        {1: 2},
        {"a": object()},
        {"a": float("nan")},
        {"a": 2**70},
        deep,
        circle,
        {"a": "\ud800"},
        {"\ud800": 1},
    ):
        assert read_data(data)[1]
