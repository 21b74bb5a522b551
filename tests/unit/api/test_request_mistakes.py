"""Bodies, parameters and headers that are refused: each names the field, in plain words, with the nearest name that is known."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from stage import Stage
from starlette.testclient import TestClient

from api.app import create_app
from engine.store.migrate import upgrade

ECHO = "name: echo\ninputs: {topic: {type: string}}\nsteps:\n  - {id: tell, type: set, value: '${input.topic}'}\n"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    url = f"sqlite:///{tmp_path_factory.mktemp('mistakes') / 'x.db'}"
    upgrade(url)
    stage = Stage(url)
    with TestClient(create_app(stage.services())) as found:
        assert found.put("/v1/workflows/echo", content=ECHO).status_code == 201
        yield found
    stage.close()


RUNS = "/v1/workflows/echo/runs"


@pytest.mark.parametrize(
    ("path", "body", "param", "message"),
    [
        (RUNS, {"inputs": {}}, "inputs", "inputs: unknown field, did you mean `input`?"),
        ("/v1/workflow/echo", {"Priority": "low"}, "Priority", "Priority: unknown field, did you mean `priority`?"),
        ("/v1/runs", {}, "workflow", "workflow: is required"),
        ("/v1/runs", {"workflow": 5}, "workflow", "workflow: must be text (a number needs quotes)"),
        (RUNS, {"priority": "urgent"}, "priority", "priority: must be low, normal or high"),
        (RUNS, {"budget_usd": -1}, "budget_usd", "budget_usd: must be at least 0"),
        (RUNS, {"budget_usd": "much"}, "budget_usd", "budget_usd: must be a number"),
        (RUNS, {"tags": ["a"]}, "tags", "tags: must be an object"),
        (RUNS, {"tags": {"a": 1}}, "tags.a", "tags.a: must be text (a number needs quotes)"),
        (RUNS, {"tags": {"body": 1}}, "tags.body", "tags.body: must be text (a number needs quotes)"),
        (RUNS, {"start_at": "soon"}, "start_at", "start_at: must be a time such as 2026-11-22T07:00:00Z"),
        (
            RUNS,
            {"start_at": "2030-01-01T00:00:00"},
            "start_at",
            "start_at: needs a time zone, as in 2026-11-22T07:00:00Z",
        ),
        ("/v1/runs/x/fork", None, None, "a JSON body is required, with `from_step`"),
        ("/v1/keys", {"name": ""}, "name", "name: must not be empty"),
        ("/v1/keys", {"name": "k" * 101}, "name", "name: must have at most 100 characters"),
        ("/v1/keys", {"name": "k", "max_parallel": 1.5}, "max_parallel", "max_parallel: must be a whole number"),
        ("/v1/keys", {"name": "k", "budget_period": "day"}, "budget_period", "budget_period needs budget_usd: how much a period"),
        ("/v1/mcp/tools/search", {"query": "tea"}, "query", "query: unknown field; known here: `params`, `server`, `timeout_s`"),
        ("/v1/runs", {"workflow": {"name": "x", "steps": [{"id": "a", "type": "sett"}]}}, "steps[0].type", None),
    ],
)  # fmt: skip
def test_a_bad_body_names_the_field(
    client: TestClient, path: str, body: Any, param: str | None, message: str | None
) -> None:
    answer = client.post(path, json=body) if body is not None else client.post(path)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert message is None or error["message"] == message


@pytest.mark.parametrize("query", ["tag=a:b&tag=c:d", "limit=1&limit=2", "status=failed&status=queued"])
def test_a_parameter_is_given_once(client: TestClient, query: str) -> None:
    error = client.get(f"/v1/runs?{query}").json()["error"]
    name = query.partition("=")[0]
    assert (error["param"], error["message"]) == (name, f"`{name}` is given more than once")


def test_a_list_of_budgets_names_the_entry_and_its_field(client: TestClient) -> None:
    wrong = client.put("/v1/budgets", json=[{"name": "a", "limit_usd": 1}, {"name": "b", "limit_us": 1}])
    told = {one["path"]: (one["message"], one["suggestion"]) for one in wrong.json()["error"]["details"]}
    assert told == {
        "[1].limit_usd": ("is required", None),
        "[1].limit_us": ("unknown field, did you mean `limit_usd`?", "limit_usd"),
    }


def test_a_definition_is_refused_under_the_path_of_its_first_mistake(client: TestClient) -> None:
    wrong = client.put("/v1/workflows/bad", content="name: bad\nsteps:\n  - {id: a, type: set, value: '${nope}'}\n")
    assert wrong.json()["error"]["param"] == wrong.json()["error"]["details"][0]["path"] == "steps[0].value"


def test_every_example_of_a_body_is_one_that_its_route_reads(client: TestClient) -> None:
    """What an example names may not be there (404, 409); none may be refused for its fields."""
    document = client.get("/openapi.json").json()
    tried = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is None or not path.startswith("/v1/"):
                continue
            for example in _examples(body, document["components"]["schemas"]):
                answer = client.request(method, path.replace("{name}", "hello"), json=example)
                code = answer.json().get("error", {}).get("code")
                assert code not in ("invalid_request", "invalid_json"), (path, answer.text)
                tried += 1
    assert tried >= 12


def _examples(body: dict[str, Any], named: dict[str, Any]) -> list[Any]:
    if "example" in body:
        return [body["example"]]
    forms = [body["schema"], *body["schema"].get("anyOf", []), *body["schema"].get("oneOf", [])]
    named_forms = [named[form["$ref"].rpartition("/")[2]] for form in forms if "$ref" in form]
    found = [example for form in named_forms for example in form.get("examples", [])]
    assert found, json.dumps(body)
    return found
