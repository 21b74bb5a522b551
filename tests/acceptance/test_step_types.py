"""The shipped examples and every step type over HTTP, on real processes, the simulated provider and a real MCP server."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, gateway
from services import wait_until

JSON = {"content-type": "application/json"}
INVOICE = '{"total_cents": 300, "positions": [{"name": "tea", "cents": 100}, {"name": "cake", "cents": 200}]}'
WRONG = '{"total_cents": 300, "positions": [{"name": "tea", "cents": 100}]}'


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    models = {
        "invoice": {"reply": INVOICE},
        "wrong": {"reply": WRONG},
        "paid": {"reply": "ok", "input": 1, "output": 2},
    }
    config = {
        "providers": {"sim": {"type": "simulated", "models": models}},
        "models": {"local": "simulated/echo"},
        "mcp_servers": {"git": {"command": sys.executable, "args": ["-P", "-m", "mcp_server_git"]}},
        "webhooks": {"allow_private_networks": True},
    }
    with gateway(tmp_path_factory.mktemp("step-types"), config) as up:
        up.serve(workers=2)
        yield up


def status_of(up: Gateway, run_id: str) -> str:
    return str(up.http.get(f"/v1/runs/{run_id}").json()["status"])


def waiting(up: Gateway, run_id: str) -> None:
    wait_until(lambda: status_of(up, run_id) == "waiting", "the run waits", 20)


def outcome(up: Gateway, steps: list[dict[str, Any]], run_input: Any = None) -> dict[str, Any]:
    return up.finished(up.submit({"name": "inline", "steps": steps}, run_input or {}))


def test_translate_many(up: Gateway) -> None:
    run = up.finished(up.submit("translate-many", {"texts": [f"text {number}" for number in range(30)]}), wait_s=60)
    assert run["status"] == "succeeded", run["error"]
    assert [(entry["text"], entry["place"]) for entry in run["output"]] == [(f"text {n}", n) for n in range(30)]
    steps = up.steps(run["id"])
    assert "each[3].translate" in steps and steps["each[3].translate"]["parent"] == "each"
    assert "each[3]" not in steps
    calls = len(up.http.get("/v1/requests", params={"run": run["id"], "limit": 200}).json()["data"])
    assert calls == 30
    again = up.finished(up.submit("translate-many", {"texts": ["text 1", "text 2"]}))
    assert [entry["translation"] for entry in again["output"]] == [e["translation"] for e in run["output"][1:3]]
    assert up.http.get("/v1/requests", params={"run": again["id"]}).json()["data"] == []  # the results were kept


@pytest.mark.parametrize(
    ("payload", "sent"),
    [({"approved": True, "text": "mine"}, "mine"), ({"approved": True}, "draft"), ({"approved": False}, None)],
)
def test_approve_before_send(up: Gateway, payload: Any, sent: str | None) -> None:
    run_id = up.submit("approve-before-send", {"request": "When do you open?"})
    waiting(up, run_id)
    path = f"/v1/runs/{run_id}/signals"
    wrong = up.http.post(f"{path}/approval", json={"approved": "yes"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "payload.approved")
    unknown = up.http.post(f"{path}/aproval", json=payload)
    assert (unknown.status_code, "approval" in unknown.json()["error"]["message"]) == (400, True)
    assert up.http.post(f"{path}/approval", content="{").status_code == 400
    assert up.http.post(f"{path}/approval", json=payload).status_code == 202
    run = up.finished(run_id)
    assert run["output"]["sent"] == (run["output"]["draft"] if sent == "draft" else sent)
    assert up.http.post(f"{path}/approval", json=payload).status_code == 409


@pytest.mark.parametrize(("model", "difference", "asked"), [("sim/invoice", 0, 1), ("sim/wrong", 200, 3)])
def test_extract_to_json(up: Gateway, model: str, difference: int, asked: int) -> None:
    run = up.finished(up.submit("extract-to-json", {"text": "tea 1, cake 2", "model": model}))
    assert run["status"] == "succeeded", run["error"]
    assert run["output"]["difference"] == difference
    assert len(up.http.get("/v1/requests", params={"run": run["id"]}).json()["data"]) == asked


def test_code_review(up: Gateway, tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    for number in range(2):
        (tmp_path / "notes.txt").write_text(f"note {number}\n")
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-qm", f"Note number {number}"], check=True)
    run = up.finished(up.submit("code-review", {"repository": str(tmp_path)}))
    assert run["status"] == "succeeded", run["error"]
    assert set(run["output"]["reviews"]) == {"correctness", "clarity"}
    assert "note 1" in run["output"]["reviews"]["correctness"]
    assert {"reviewers.correctness.review", "reviewers.clarity.review"} <= set(up.steps(run["id"]))


def test_a_sleeping_run_is_woken(up: Gateway) -> None:
    run = outcome(up, [{"id": "nap", "type": "sleep", "duration": "300ms"}, {"id": "after", "type": "set", "value": 1}])
    assert (run["output"], run["latency_ms"] >= 300) == (1, True)


def test_start_at(up: Gateway) -> None:
    at = datetime.now(UTC) + timedelta(seconds=1)
    body = {"name": "later", "steps": [{"id": "a", "type": "set", "value": 1}]}
    run_id = up.submit(body, {}, start_at=at.isoformat())
    assert status_of(up, run_id) == "queued"
    run = up.finished(run_id)
    assert datetime.fromisoformat(run["started_at"]) >= at
    answer = up.http.post("/v1/runs", json={"workflow": body, "start_at": "tomorrow"})
    assert answer.status_code in (400, 422) and "start_at" in answer.text


def test_pictures_go_with_the_prompt(up: Gateway) -> None:
    step = {
        "id": "see",
        "type": "llm",
        "model": "simulated/echo",
        "prompt": "What is ${input.name}?",
        "images": "${input.photo}",
    }
    definition = {"name": "see", "steps": [step]}
    photo = "data:image/png;base64,iVBORw0KGgo="
    given = {**definition, "steps": [{**step, "extra": {"service_tier": "flex"}}]}
    seen = up.finished(up.submit(given, {"name": "this", "photo": photo}))
    assert seen["output"] == "What is this?"
    refused = up.finished(up.submit(definition, {"name": "this", "photo": "photo.png"}))
    assert refused["status"] == "failed" and "images has to be" in refused["error"]["message"]


def test_an_http_step(up: Gateway) -> None:
    steps = [{"id": "get", "type": "http", "url": f"{up.url}/health"}]
    run = outcome(up, steps)
    assert (run["output"]["status"], run["output"]["body"]["status"]) == (200, "healthy")
    [call] = up.steps(run["id"])["get"]["attempts"][0]["calls"]
    assert (call["kind"], call["model"], call["cost_usd"], call["success"]) == ("http", "GET 127.0.0.1", 0, True)
    missing = [{"id": "get", "type": "http", "url": f"{up.url}/v1/runs/none", "output": "x"}]
    assert outcome(up, missing)["error"]["message"].startswith("HTTP 404")
    expected = [{**missing[0], "expect_status": [200, 404]}]
    assert outcome(up, expected)["output"]["status"] == 404
    post = {
        "id": "post",
        "type": "http",
        "method": "POST",
        "url": f"{up.url}/v1/workflows/validate",
        "json": {"name": "x"},
    }
    assert outcome(up, [{**post, "expect_status": [200, 400, 422]}])["output"]["headers"]["content-type"]


def test_a_child_run_is_rolled_up_and_cancelled_with_its_parent(up: Gateway) -> None:
    child = {"name": "child", "steps": [{"id": "ask", "type": "llm", "model": "sim/paid", "prompt": "hi"}]}
    assert up.http.put("/v1/workflows/child", json=child).status_code in (200, 201)
    run = outcome(up, [{"id": "call", "type": "workflow", "workflow": "child"}])
    step = up.steps(run["id"])["call"]
    assert run["output"] == "ok" and run["cost_usd"] == step["cost_usd"] > 0
    passed_on = {"id": "call", "type": "workflow", "workflow": "child", "input": "${input.given}"}
    assert outcome(up, [passed_on], {"given": {"a": 1}})["status"] == "succeeded"
    wrong = outcome(up, [passed_on], {"given": [1]})["error"]
    assert (wrong["class"], wrong["message"]) == (
        "invalid_request", "${input.given}: input has to be an object, not a list",
    )  # fmt: skip
    slow = {"name": "slow", "steps": [{"id": "nap", "type": "sleep", "duration": "1h"}]}
    up.http.put("/v1/workflows/slow", json=slow)
    parent = up.submit({"name": "parent", "steps": [{"id": "call", "type": "workflow", "workflow": "slow"}]}, {})
    waiting(up, parent)
    inner = up.steps(parent)["call"]["run"]
    assert up.http.post(f"/v1/runs/{parent}/cancel").status_code == 202
    wait_until(lambda: status_of(up, inner) == "cancelled", "the child is cancelled", 2)


def test_a_fork_pays_for_nothing_before_its_step(up: Gateway) -> None:
    steps = [
        {"id": "first", "type": "llm", "model": "sim/paid", "prompt": "one", "output": "one"},
        {"id": "second", "type": "llm", "model": "sim/paid", "prompt": "two ${one}"},
    ]
    run = outcome(up, steps)
    path = f"/v1/runs/{run['id']}/fork"
    answer = up.http.post(path, json={"from_step": "second", "models": {"second": "simulated/echo"}})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/runs/{answer.json()['id']}"
    forked = up.finished(answer.json()["id"])
    assert (forked["output"], forked["forked_from"]) == ("two ok", run["id"])
    calls = up.http.get("/v1/requests", params={"run": forked["id"]}).json()["data"]
    assert [call["step_id"] for call in calls] == ["second"]
    wrong = up.http.post(path, json={"from_step": "secnd"})
    assert (wrong.status_code, "second" in wrong.json()["error"]["message"]) == (400, True)
    model = up.http.post(path, json={"from_step": "second", "models": {"second": "nothing/x"}})
    assert model.status_code in (400, 404)


def test_a_tools_parameters_are_checked_before_anything_runs(up: Gateway) -> None:
    step = {"id": "log", "type": "mcp_tool", "server": "git", "tool": "git_log", "params": {"max_count": "many"}}
    definition = {"name": "typed", "steps": [step]}
    wait_until(lambda: up.http.get("/v1/mcp/tools", timeout=30).json()["data"], "the server has told its tools", 30)
    told = up.http.post("/v1/workflows/validate", json=definition, timeout=30).json()
    paths = [warning["path"] for warning in told["warnings"]]
    assert paths == ["steps.log.params.repo_path", "steps.log.params.max_count"], told
    refused = up.http.post("/v1/runs", json={"workflow": definition})
    error = refused.json()["error"]
    assert refused.status_code == 400 and error["param"] == "steps.log.params.repo_path", error
    assert "has to be integer, not string" in error["details"][1]["message"]
    inside = {"id": "each", "type": "foreach", "items": [1], "steps": [{**step, "params": {"repo_path": 1}}]}
    del inside["steps"][0]["server"]
    refused = up.http.post("/v1/runs", json={"workflow": {"name": "typed", "steps": [inside]}})
    assert refused.json()["error"]["param"] == "steps.each.log.params.repo_path", refused.text
    for params, told in (
        (
            {"repo_path": "${input.path}", "max_count": "${input.many}"},
            "git/git_log: ${input.many}: params.max_count has to be",
        ),
        ("${input.path}", "${input.path}: params has to be an object, not text"),
        ("${input.rest}", "git/git_log: ${input.rest}: params 'repo_path' is a required property"),
    ):
        run = outcome(up, [{**step, "params": params}], {"path": "/", "many": "many", "rest": {}})
        assert run["error"]["class"] == "invalid_request" and run["error"]["message"].startswith(told), run["error"]
        assert all(not attempt["calls"] for attempt in up.steps(run["id"])["log"]["attempts"])
    unknown = {"name": "typed", "steps": [{**step, "tool": "git_lgo"}]}
    error = up.http.post("/v1/runs", json={"workflow": unknown}).json()["error"]
    assert error["code"] == "tool_not_found" and "git_log" in error["message"]
    deep = up.http.post(
        "/v1/mcp/tools/git_log", content='{"params": {"a": %s}}' % ("[" * 300 + "]" * 300), headers=JSON
    )
    assert deep.status_code in (400, 422) and "nested too deeply" in deep.json()["error"]["message"], deep.text
    called = up.http.post("/v1/mcp/tools/git_log", json={"params": {"max_count": "many"}})
    error = called.json()["error"]
    assert (called.status_code, error["param"]) == (400, "params.repo_path"), error
    assert [mistake["path"] for mistake in error["details"]] == ["params.repo_path", "params.max_count"]


def test_definitions_that_would_be_stored_together_are_checked_together(up: Gateway) -> None:
    parent = "name: above\nsteps:\n  - {id: call, type: workflow, workflow: below, input: {n: text}}\n"
    child = "name: below\ninputs: {n: {type: integer}}\nsteps: [{id: a, type: set, value: 1}]\n"

    def warned(body: dict[str, object]) -> list[str]:
        answer = up.http.post("/v1/workflows/validate", json=body)
        assert answer.status_code == 200, answer.text
        return [one["message"] for one in answer.json()["warnings"]]

    assert "there is no workflow 'below'" in warned({"definition": parent})[0]
    assert warned({"definition": parent, "beside": [child]}) == ["below, n: has to be integer, not string"]
    assert warned({"definition": parent.replace("text", "5"), "beside": ["name: [", child]}) == []
    for wrong in ({"definition": parent, "beside": child}, {"definition": parent, "besides": []}, {"definition": 5}):
        refused = up.http.post("/v1/workflows/validate", json=wrong)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_request"), refused.text
    (up.folder / "above.yaml").write_text(parent)
    (up.folder / "below.yaml").write_text(child)
    up.environment["AIGATEWAY_URL"] = up.url
    told = up.run("workflows", "validate", "above.yaml", "below.yaml")
    alone = up.run("workflows", "validate", "above.yaml")
    del up.environment["AIGATEWAY_URL"]
    assert told.returncode == 0 and told.stdout == "above.yaml: ok, 1 warning\nbelow.yaml: ok\n", told
    assert "above.yaml:3:" in told.stderr and "n: has to be integer, not string" in told.stderr
    assert "there is no workflow" in alone.stderr


def test_a_page_of_steps_has_fifty_unless_told_otherwise(up: Gateway) -> None:
    inner = {"id": "one", "type": "set", "value": "${item}"}
    each = {"id": "each", "type": "foreach", "items": "${range(230)}", "steps": [inner]}
    run_id = up.submit({"name": "many", "steps": [each]}, {})
    assert up.finished(run_id)["status"] == "succeeded"
    page = up.http.get(f"/v1/runs/{run_id}/steps").json()
    assert len(page["data"]) == 50 and page["next_cursor"] == page["data"][-1]["id"]
    steps = up.steps(run_id)
    assert list(steps)[:50] == [step["id"] for step in page["data"]] and len(steps) == 1 + 230
