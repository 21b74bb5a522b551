import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mcp_bridge.offers import LONGEST_NAME, as_text, passed_name, run_answer, workflow_offer

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def test_plain_names_of_connected_tools_stay_readable() -> None:
    assert passed_name("brave-search", "web_search") == "brave-search__web_search"


@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80), st.text(min_size=1), st.text(min_size=1))
def test_every_connected_tool_has_a_name_of_its_own_that_clients_take(a: str, b: str, c: str, d: str) -> None:
    names = passed_name(a, b), passed_name(c, d)
    assert all(NAME.fullmatch(name) for name in names)
    assert all("__" in name or len(name) == LONGEST_NAME for name in names)
    assert (names[0] == names[1]) == ((a, b) == (c, d))


def test_two_ways_to_cut_the_same_characters_are_two_names() -> None:
    pairs = [("a", "b__c"), ("a__b", "c"), ("a_", "_b"), ("a", "__b"), ("a_", "b"), ("a", "_b")]
    assert len({passed_name(*pair) for pair in pairs}) == len(pairs)


def test_a_workflow_without_declared_inputs_takes_anything() -> None:
    assert workflow_offer("w", "", None).input_schema == {"type": "object"}


def test_references_move_along_with_their_schema() -> None:
    schema: dict[str, Any] = {"$ref": "#/$defs/x", "$defs": {"x": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}
    found = workflow_offer("w", "", {"a/b": schema}).input_schema["properties"]["a/b"]
    assert found["$ref"] == "#/properties/a~1b/$defs/x"
    assert found["$defs"]["x"]["anyOf"][0]["$ref"] == "#/properties/a~1b"


def test_a_run_that_cannot_go_on_by_itself_has_failed() -> None:
    def answer(status: str, **more: Any) -> Any:
        return run_answer({"id": "r1", "status": status, **more})

    assert (answer("succeeded", output={"a": 1}).text, answer("succeeded", output="text").text) == (
        '{\n  "a": 1\n}',
        "text",
    )
    failed = answer("failed", error={"step": "s", "class": "timeout", "message": "too slow"})
    assert (failed.text, failed.failed) == ("run r1 failed at step s: too slow", True)
    assert [answer(status).failed for status in ("paused", "cancelled", "running", "queued")] == [
        True,
        True,
        False,
        False,
    ]


def test_text_is_as_it_is() -> None:
    assert [as_text(value) for value in ("a", 1, None, [])] == ["a", "1", "null", "[]"]
