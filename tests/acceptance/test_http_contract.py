"""The HTTP contract from outside: shapes, statuses, headers, and what bad input is answered."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from gateway import Gateway, gateway
from services import PostgresServer

CONFIG: dict[str, Any] = {
    "providers": {
        "sim": {
            "type": "simulated",
            "models": {
                "echo": {"input": 1, "output": 2, "chunks": 3},
                "flaky": {"reply": "ok", "fail": [500, 429]},
                "down": {"fail": [500] * 50},
                "slow": {"reply": "slow", "delay": "3s"},
                "caller": {"tool_calls": [{"name": "look_up", "arguments": {"word": "tea"}}]},
            },
        },
        "away": {"type": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": "x"},
    },
    "models": {"fast": {"targets": ["sim/down", "sim/echo"]}, "local": "sim/echo"},
}

DOUBLE = """
name: double
inputs: {n: {type: integer}, word: {type: string, default: hello}}
steps:
  - {id: twice, type: set, value: "${input.n * 2}", output: doubled}
  - id: say
    type: llm
    model: local
    prompt: "{% if doubled > 10 %}large{% else %}small{% endif %} ${input.word}"
output: {doubled: "${doubled}", said: "${steps.say.output}"}
"""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def up(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    environment: dict[str, str] = {}
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        environment["AIGATEWAY_DATABASE_URL"] = server.url("http_contract")
        server.execute("CREATE DATABASE http_contract")
    with gateway(tmp_path_factory.mktemp("home"), CONFIG, **environment) as installed:
        installed.serve()
        answer = installed.http.put("/v1/workflows/double", content=DOUBLE)
        assert answer.status_code == 201, answer.text
        yield installed


@pytest.fixture
def client(up: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{up.url}/v1", api_key="not-needed", max_retries=0)


def error_of(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert {"message", "type", "code", "param"} <= error.keys(), error
    assert answer.headers["x-request-id"]
    return error


def newest_run(up: Gateway) -> str | None:
    runs = up.http.get("/v1/runs", params={"limit": 1}).json()["data"]
    return runs[0]["id"] if runs else None


def test_openai_client_unmodified(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "one two three"}]
    answer = client.chat.completions.create(model="sim/echo", messages=messages)
    assert answer.choices[0].message.content == "one two three"
    assert answer.usage and answer.usage.total_tokens == 6
    assert answer.aigateway["cost_usd"] == pytest.approx(3e-6 + 6e-6, rel=1e-12)  # type: ignore[attr-defined]
    listed = list(client.models.list())
    assert all(model.model_fields_set >= {"id", "object", "created", "owned_by"} for model in listed)
    models = [model.id for model in listed]
    assert {"fast", "sim/echo", "simulated/echo"} <= set(models)
    with pytest.raises(openai.NotFoundError, match="sim/echo"):
        client.chat.completions.create(model="echho", messages=messages)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="sim/nothing", messages=messages)


def test_openai_client_streaming_and_tools(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "one two three"}]
    chunks = list(client.chat.completions.create(model="sim/echo", messages=messages, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.choices for chunk in chunks)  # no usage chunk that nobody asked for
    asked = client.chat.completions.create(
        model="sim/echo", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    last = list(asked)[-1]
    assert last.choices == [] and last.usage and last.usage.total_tokens == 6
    assert last.aigateway["cost_usd"] == pytest.approx(9e-6)  # type: ignore[attr-defined]
    tool: Any = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    called = client.chat.completions.create(model="sim/caller", messages=messages, tools=[tool])
    assert called.choices[0].finish_reason == "tool_calls"
    assert called.choices[0].message.tool_calls[0].function.name == "look_up"  # type: ignore[index,union-attr]


def test_chat_headers_failover_and_the_ledger(up: Gateway) -> None:
    body = {"model": "fast", "messages": [{"role": "user", "content": "hi"}]}
    answer = up.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    headers = answer.headers
    assert (headers["x-aigateway-provider"], headers["x-aigateway-model"]) == ("sim", "echo")
    assert headers["x-aigateway-cost-usd"] == "0.000003"
    assert float(headers["x-aigateway-overhead-ms"]) >= 0
    attempts = up.http.get(f"/v1/requests/{headers['x-request-id']}").json()["data"]
    assert len(attempts) == int(headers["x-aigateway-attempts"]) == len(answer.json()["aigateway"]["attempts"]) > 1
    assert [row["success"] for row in attempts] == [False] * (len(attempts) - 1) + [True]
    assert attempts[-1]["cost_source"] == "priced" and attempts[0]["error_class"] == "server_error"
    assert 'aigateway_failovers_total{model="down",provider="sim"} 1.0' in up.http.get("/metrics").text
    assert all(row["requested_model"] == "fast" for row in attempts)


def test_exhausted_chain_and_silent_provider(up: Gateway) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}]}
    down = up.http.post("/v1/chat/completions", json=body | {"model": "sim/down"})
    assert error_of(down, 502)["type"] == "server_error"
    assert down.headers["x-should-retry"] == "false"
    away = up.http.post("/v1/chat/completions", json=body | {"model": "away/some-model"})
    error_of(away, 503)
    beyond_measure = {"max_tokens": 10**12, "n": 10**12}  # what they could cost has to fit a column all the same
    error_of(up.http.post("/v1/chat/completions", json=body | beyond_measure | {"model": "away/some-model"}), 503)


@pytest.mark.parametrize(
    ("content", "status", "param"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (b"{}", 400, "model"),
        (b'{"model": 5}', 400, "model"),
        (b'{"model": "sim/echo"}', 400, "messages"),
        (b'{"model": "sim/echo", "messages": []}', 400, "messages"),
        (b'{"model": "sim/echo", "messages": ["hi"]}', 400, "messages[0]"),
        (b'{"model": "sim/echo", "messages": [{"role": "user", "content": "x"}], "stream": "yes"}', 400, "stream"),
        (b'{"model": "nothing", "messages": [{"role": "user", "content": "x"}]}', 404, "model"),
        (b'{"model": "sim/%s", "messages": [{"role": "user", "content": "x"}]}' % (b"x" * 600), 404, "model"),
    ],
    ids=lambda value: value[:60].decode() if isinstance(value, bytes) else None,
)
def test_bad_chat_bodies(up: Gateway, content: bytes, status: int, param: str | None) -> None:
    before = len(up.http.get("/v1/requests", params={"limit": 200}).json()["data"])
    answer = up.http.post("/v1/chat/completions", content=content)
    assert error_of(answer, status)["param"] == param
    assert answer.headers["x-should-retry"] == "false"
    assert len(up.http.get("/v1/requests", params={"limit": 200}).json()["data"]) == before


def test_info_health_ready_and_unknown_routes(up: Gateway) -> None:
    assert up.http.get("/").json()["name"] == "aigateway"
    health = up.http.get("/health").json()
    assert health["status"] == "healthy" and {"timestamp", "version"} <= health.keys()
    ready = up.http.get("/ready")
    assert ready.status_code == 200 and ready.json()["workers"] == 1
    assert [up.http.head(path).status_code for path in ("/", "/health", "/ready")] == [200] * 3
    error_of(up.http.get("/v1/nothing"), 404)
    error_of(up.http.get("/v1/chat/completions"), 405)
    assert "/v1/chat/completions" in up.http.get("/openapi.json").json()["paths"]


def test_run_from_submission_to_history(up: Gateway) -> None:
    answer = up.http.post("/v1/workflows/double/runs", json={"input": {"n": 21}, "tags": {"team": "a"}})
    assert answer.status_code == 202
    body = answer.json()
    assert answer.headers["location"] == body["links"]["self"] == f"/v1/runs/{body['id']}"
    run = up.finished(body["id"])
    assert run["output"] == {"doubled": 42, "said": "large hello"}
    assert run["workflow"] == "double" and run["version"] == 1 and run["tags"] == {"team": "a"}
    assert run["tokens"] == run["usage"]["total_tokens"] == 4 and run["cost_usd"] == pytest.approx(6e-6)
    assert run["latency_ms"] > 0 and run["error"] is None
    steps = up.steps(run["id"])
    assert list(steps) == ["twice", "say"]
    (attempt,) = steps["say"]["attempts"]
    assert attempt["number"] == 1 and attempt["status"] == "succeeded" and attempt["worker"]
    (call,) = attempt["calls"]
    assert call["model"] == "echo" and call["run_id"] == run["id"] and call["step_id"] == "say"
    events = up.http.get(f"/v1/runs/{run['id']}/events").json()["data"]
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events][:2] == ["run.submitted", "run.started"]
    assert events[-1]["type"] == "run.succeeded"
    pages = [up.http.get(f"/v1/runs/{run['id']}/events", params={"limit": 3}).json()]
    while (cursor := pages[-1]["next_cursor"]) is not None:
        pages.append(up.http.get(f"/v1/runs/{run['id']}/events", params={"limit": 3, "cursor": cursor}).json())
    assert [event for page in pages for event in page["data"]] == events and len(pages) > 1
    for kind in ("application/json", "text/event-stream"):
        headers = {"accept": kind, "last-event-id": str(2**31)}
        assert up.http.get(f"/v1/runs/{run['id']}/events", headers=headers).status_code == 400
    resumed = {"accept": "text/event-stream", "last-event-id": "2"}
    # No silence before the end: what was asked for is known to be whole once the run has ended.
    with up.http.stream("GET", f"/v1/runs/{run['id']}/events", headers=resumed, timeout=5) as live:
        text = live.read().decode()
    assert text.startswith("id: 3\n") and f"id: {len(events)}\n" in text
    listed = up.http.get("/v1/runs", params={"tag": "team:a", "workflow": "double"}).json()
    assert [row["id"] for row in listed["data"]] == [run["id"]] and listed["next_cursor"] is None


def test_pages_of_runs(up: Gateway) -> None:
    ids = [up.submit("double", {"n": n}, tags={"pages": "yes"}) for n in range(5)]
    first = up.http.get("/v1/runs", params={"tag": "pages:yes", "limit": 3}).json()
    rest = up.http.get("/v1/runs", params={"tag": "pages:yes", "limit": 3, "cursor": first["next_cursor"]}).json()
    assert [row["id"] for row in first["data"] + rest["data"]] == ids[::-1]
    assert rest["next_cursor"] is None


def test_every_list_has_pages(up: Gateway) -> None:
    """What is in the pages is what is in the list; without a limit a page has 50."""
    _, run = (up.finished(up.submit("double", {"n": n})) for n in range(2))
    for n in range(3):
        named = {"name": f"listed-{n}", "steps": [{"id": "a", "type": "set", "value": 1}]}
        assert up.http.put(f"/v1/workflows/listed-{n}", json=named).status_code == 201
        assert up.http.put("/v1/workflows/changed", json=named | {"name": "changed"}).status_code in (200, 201)
        assert up.http.put("/v1/workflows/changed", json=named | {"name": "changed", "deadline": 9 + n}).is_success
        cron = {"workflow": "listed-0", "name": f"yearly-{n}", "cron": "0 0 1 1 *"}
        assert up.http.post("/v1/schedules", json=cron).status_code == 201
        assert up.http.post("/v1/keys", json={"name": f"listed-{n}", "budget_usd": 1}).status_code == 201
    lists = ["workflows", "workflows/changed/versions", "schedules", "keys", "budgets", "requests", "runs"]
    for path in [*lists, f"runs/{run['id']}/steps", f"runs/{run['id']}/webhooks", "mcp/servers", "mcp/tools", "spend"]:
        whole = up.http.get(f"/v1/{path}", params={"limit": 200}).json()
        page = up.http.get(f"/v1/{path}", params={"limit": 1}).json()
        assert whole["next_cursor"] is None and page["object"] == "list", (path, page)
        rows = page["data"]
        while page["next_cursor"] is not None:
            page = up.http.get(f"/v1/{path}", params={"limit": 1, "cursor": page["next_cursor"]}).json()
            rows += page["data"]
        assert rows == whole["data"] and (len(rows) > 1 or path not in (*lists, "steps")), path
        for wrong in ({"limit": 0}, {"limit": 201}, {"cursor": "nowhere"}):
            error_of(up.http.get(f"/v1/{path}", params=wrong), 400)
    names = [entry["name"] for entry in up.http.get("/v1/workflows", params={"limit": 4}).json()["data"]]
    assert names == ["listed-2", "listed-1", "changed", "listed-0"]


def test_synchronous_workflow(up: Gateway) -> None:
    answer = up.http.post("/v1/workflow/double", json={"input": {"n": 1, "word": "tea"}})
    body = answer.json()
    assert answer.status_code == 200 and body["output"]["said"] == "small tea"
    assert [step["id"] for step in body["metrics"]["steps"]] == ["twice", "say"]
    assert body["metrics"]["total_tokens"] == 4
    late = up.http.post("/v1/workflow/slow", json={"input": {}}, params={"wait": 0.1})
    error_of(late, 404)
    inline = {"name": "slowly", "steps": [{"id": "wait", "type": "llm", "model": "sim/slow", "prompt": "x"}]}
    assert up.http.put("/v1/workflows/slowly", json=inline).status_code == 201
    past = up.http.post("/v1/workflow/slowly", params={"wait": 0.2}, json={})
    assert past.status_code == 202 and past.json()["links"]["self"].endswith(past.json()["id"])
    assert up.finished(past.json()["id"])["output"] == "slow"


def test_failed_run_answers_502_and_can_be_retried(up: Gateway) -> None:
    broken = {
        "name": "broken",
        "steps": [
            {"id": "first", "type": "set", "value": 1},
            {"id": "ask", "type": "llm", "model": "sim/down", "prompt": "x", "retry": {"max_attempts": 1}},
        ],
    }
    assert up.http.put("/v1/workflows/broken", json=broken).status_code == 201
    answer = up.http.post("/v1/workflow/broken", json={})
    error = error_of(answer, 502)
    assert error["step"] == "ask" and error["class"] == "server_error" and answer.json()["metrics"]["steps"]
    run_id = answer.json()["run_id"]
    retried = up.http.post(f"/v1/runs/{run_id}/retry")
    assert retried.status_code == 202 and retried.json()["status"] in (
        "running",
        "failed",
    )  # it may have failed again by now
    assert up.finished(run_id)["status"] == "failed"
    steps = up.steps(run_id)
    assert len(steps["first"]["attempts"]) == 1 and len(steps["ask"]["attempts"]) == 2
    error_of(up.http.post(f"/v1/runs/{run_id}/cancel"), 409)
    error_of(up.http.post(f"/v1/runs/{run_id}/resume"), 409)


def test_durable_retry_of_a_flaky_step(up: Gateway) -> None:
    flaky = {
        "name": "flaky",
        "steps": [
            {
                "id": "ask",
                "type": "llm",
                "model": "sim/flaky",
                "prompt": "x",
                "retry": {"max_attempts": 3, "initial": "10ms"},
            }
        ],
    }
    run = up.finished(up.submit(flaky, {}))
    assert run["status"] == "succeeded" and run["version"] is None
    assert [a["status"] for a in up.steps(run["id"])["ask"]["attempts"]] == ["failed", "failed", "succeeded"]


def test_idempotency_key(up: Gateway) -> None:
    headers = {"idempotency-key": "order-1"}
    first = up.http.post("/v1/workflows/double/runs", json={"input": {"n": 1}}, headers=headers)
    again = up.http.post("/v1/workflows/double/runs", json={"input": {"n": 1}}, headers=headers)
    assert first.json()["id"] == again.json()["id"] and again.status_code == 202
    error_of(up.http.post("/v1/workflows/double/runs", json={"input": {"n": 2}}, headers=headers), 409)


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/workflows/dubble/runs", {"input": {"n": 1}}, 404, "workflow"),
        ("/v1/workflows/double/runs", {"input": {}}, 400, "input.n"),
        ("/v1/workflows/double/runs", {"input": {"n": "x"}}, 400, "input.n"),
        ("/v1/workflows/double/runs", {"input": {"n": 1, "m": 2}}, 400, "input.m"),
        ("/v1/workflows/double/runs", {"inputs": {"n": 1}}, 400, "inputs"),
        ("/v1/workflows/double/runs", {"input": {"n": 1}, "budget_usd": -1}, 400, "budget_usd"),
        ("/v1/workflows/double/runs", {"input": {"n": 1}, "priority": "urgent"}, 400, "priority"),
        ("/v1/workflows/double/runs", {"input": {"n": 1}, "webhook_url": "ftp://x"}, 400, "webhook_url"),
        ("/v1/workflows/double/runs", {"input": {"n": 1}, "webhook_url": "http://127.0.0.1/x"}, 400, "webhook_url"),
        ("/v1/workflows/double/runs", {"input": {"n": 1}, "start_at": "9999-12-31T23:59:59-14:00"}, 400, "start_at"),
        ("/v1/workflows/double/runs", {"input": {"n": 1}, "start_at": "0001-01-01T00:00:00+14:00"}, 400, "start_at"),
        ("/v1/runs", {"input": {}}, 400, "workflow"),
        ("/v1/runs", {"workflow": 5}, 400, "workflow"),
        (
            "/v1/runs",
            {"workflow": {"name": "x", "steps": [{"id": "a", "type": "llm", "model": "nothing", "prompt": "x"}]}},
            400,
            "steps.a.model",
        ),
        (
            "/v1/runs",
            {"workflow": {"name": "x", "steps": [{"id": "a", "type": "mcp_tool", "server": "no", "tool": "x"}]}},
            400,
            "steps.a.server",
        ),
    ],
)
def test_bad_submissions_leave_nothing(up: Gateway, path: str, body: dict[str, Any], status: int, param: str) -> None:
    before = newest_run(up)
    assert error_of(up.http.post(path, json=body), status)["param"] == param
    assert newest_run(up) == before


def test_a_body_without_its_content_type_is_told_so(up: Gateway) -> None:
    unread = up.http.post("/v1/runs", content=b'{"workflow": "double"}', headers={"content-type": "text/plain"})
    assert "content-type: application/json" in error_of(unread, 400)["message"]
    assert error_of(up.http.post("/v1/runs", json=[1]), 400)["message"] == "the body has to be a JSON object"


def test_bad_yaml_names_every_mistake_with_its_place(up: Gateway) -> None:
    text = "name: bad\nsteps:\n  - id: a\n    type: lllm\n    prompt: x\n  - id: b\n    type: set\n    value: ${steps.c.output}\n"
    error = error_of(up.http.put("/v1/workflows/bad", content=text), 400)
    places = [(mistake["line"], mistake["path"]) for mistake in error["details"]]
    assert len(places) >= 2 and all(line for line, _ in places)
    assert any("llm" in (mistake["suggestion"] or mistake["message"]) for mistake in error["details"])
    error_of(up.http.get("/v1/workflows/bad"), 404)
    error_of(up.http.post("/v1/workflows/validate", content="steps: ["), 400)
    warned = up.http.post(
        "/v1/workflows/validate", content="name: w\nsteps: [{id: a, type: llm, model: nothing, prompt: x}]"
    )
    assert warned.status_code == 200 and "nothing" in warned.json()["warnings"][0]["message"]
    unreached = "name: w\nsteps:\n  - {id: each, type: foreach, items: [1], steps: [{id: a, type: llm, model: no, prompt: x, if: false}]}"
    told = up.http.post("/v1/workflows/validate", content=unreached).json()["warnings"]
    assert [(one["path"], one["line"], one["column"]) for one in told] == [
        ("steps[0].steps[0].if", 3, 96), ("steps.each.a.model", 3, 77),
    ]  # fmt: skip


def test_versions_are_pinned(up: Gateway) -> None:
    one = "name: pinned\nsteps: [{id: a, type: set, value: 1}]"
    assert up.http.put("/v1/workflows/pinned", content=one).status_code == 201
    assert up.http.put("/v1/workflows/pinned", content=one).status_code == 200
    changed = up.http.put("/v1/workflows/pinned", content=one.replace("1", "2"))
    assert changed.status_code == 200 and changed.json()["version"] == 2
    versions = up.http.get("/v1/workflows/pinned/versions").json()["data"]
    assert [row["version"] for row in versions] == [2, 1]
    graph = up.http.get("/v1/workflows/pinned/graph").json()
    assert (
        graph["version"] == 2 and [node["id"] for node in graph["nodes"]] == ["a"] and "flowchart" in graph["mermaid"]
    )
    error_of(up.http.get("/v1/workflows/pined/graph"), 404)
    assert up.finished(up.submit("pinned", {}))["version"] == 2
    assert up.http.delete("/v1/workflows/pinned").status_code == 204
    error_of(up.http.get("/v1/workflows/pinned"), 404)


def test_ledger_queries_and_csv(up: Gateway) -> None:
    chat = {"model": "sim/echo", "messages": [{"role": "user", "content": "hi"}]}
    for _ in range(3):
        assert up.http.post("/v1/chat/completions", json=chat).status_code == 200
    rows = up.http.get("/v1/requests", params={"model": "echo", "limit": 2}).json()
    assert len(rows["data"]) == 2 and rows["next_cursor"]
    lines = up.http.get("/v1/requests.csv", params={"model": "echo"}).text.splitlines()
    names = lines[0].split(",")
    seed = "id timestamp workflow_name model prompt_tokens completion_tokens total_tokens cost_usd latency_ms success error"
    assert set(seed.split()) <= set(names) and len(lines) > 2
    spend = up.http.get("/v1/spend", params={"group_by": "day,model"}).json()["data"]
    assert any(row["model"] == "echo" and row["cost_usd"] > 0 and row["day"] for row in spend)
    every = up.http.get("/v1/spend", params={"group_by": "day,model,provider,workflow,key,tag"}).json()["data"]
    assert {"day", "model", "provider", "workflow", "key", "tag", "cost_usd"} <= every[0].keys()
    error_of(up.http.get("/v1/spend", params={"group_by": "moon"}), 400)
    error_of(up.http.get("/v1/requests", params={"since": "yesterday"}), 400)
    error_of(up.http.get("/v1/requests", params={"limit": 0}), 400)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/embeddings", "/v1/runs", "/mcp"])
def test_a_body_that_is_too_large_is_refused_in_the_routes_own_shape(up: Gateway, path: str) -> None:
    """By its length before it is read, and where that is not told, once it is too long."""
    piece = b"x" * 1024 * 1024
    for content in (piece * 33, (piece for _ in range(33))):
        for more in ({}, {"idempotency-key": "large"}):
            answer = up.http.post(path, content=content, headers={"content-type": "application/json", **more})
            assert answer.status_code == 413 and answer.headers["x-should-retry"] == "false", answer.text
            if path == "/v1/messages":
                assert answer.json()["error"]["type"] == "request_too_large"
            else:
                assert error_of(answer, 413)["code"] == "body_too_large"
            if not isinstance(content, bytes):
                break  # it can be read once


def test_what_no_header_can_hold_is_replaced_there(up: Gateway) -> None:
    """A model's name is the client's text, and is told in a header: a line break in it neither ends the header nor the answer."""
    for name in ("a\0b", "a\r\nx-evil: 1", "\x7f", "\u4e2d\n"):
        body = {"model": f"simulated/{name}", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        for path, stream in (("/v1/chat/completions", False), ("/v1/chat/completions", True), ("/v1/messages", False)):
            answer = up.http.post(path, json={**body, "stream": stream})
            assert answer.status_code in (200, 400, 404) and "x-evil" not in answer.headers, answer.text
            assert "?" in answer.headers.get("x-aigateway-model", "?"), answer.headers


def test_a_chat_call_has_its_metadata_as_tags(up: Gateway) -> None:
    """In the ledger and its queries, and for budgets; what does not fit a tag is none."""
    say: dict[str, Any] = {"model": "sim/echo", "messages": [{"role": "user", "content": "hi"}]}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", {**say, "metadata": {"team": "red:1", "number": 5}}),
        ("/v1/messages", {**say, "max_tokens": 9, "metadata": {"user_id": "ann"}}),
        ("/v1/responses", {"model": "sim/echo", "input": "hi", "metadata": {"team": "red:1"}}),
        ("/v1/chat/completions", {**say, "metadata": {"team": "red"}, "stream": True}),
    ]
    for path, body in asked:
        assert up.http.post(path, json=body).status_code == 200
    for tag, calls in (("team:red:1", 2), ("user_id:ann", 1), ("team:red", 1), ("team:Red", 0), ("number:5", 0)):
        params = {"tag": tag}
        rows = up.http.get("/v1/requests", params=params).json()["data"]
        key, _, value = tag.partition(":")
        assert [row["tags"][key] for row in rows] == [value] * calls
        assert len(up.http.get("/v1/requests.csv", params=params).text.splitlines()) == calls + 1
        sums = up.http.get("/v1/spend", params={"group_by": "model", **params}).json()["data"]
        assert sum(row["calls"] for row in sums) == calls
        lines = up.http.get("/v1/spend.csv", params={"group_by": "model", **params}).text.splitlines()
        assert len(lines) == 1 + bool(calls)
    for path in ("/v1/requests", "/v1/requests.csv", "/v1/spend", "/v1/spend.csv"):
        assert error_of(up.http.get(path, params={"tag": "team"}), 400)["param"] == "tag"
    budget = {"name": "green", "limit_usd": 0.000001, "scope": "tag", "match": "team:green"}
    assert up.http.put("/v1/budgets", json=budget).status_code == 200
    refused = up.http.post("/v1/chat/completions", json={**say, "metadata": {"team": "green"}})
    assert error_of(refused, 402)["code"] == "budget_exceeded"
    assert up.http.post("/v1/chat/completions", json={**say, "metadata": {"team": "red"}}).status_code == 200


def test_wrong_configuration_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "aigateway.yaml").write_text("server:\n  prot: 1\n")
    installed = Gateway(tmp_path)
    done = installed.run("serve")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "aigateway.yaml:2" in done.stderr and "port" in done.stderr and "prot" in done.stderr
    assert json.loads(json.dumps(done.stdout)) == ""
    installed.http.close()


def test_a_dry_run_tells_the_cost_and_spends_nothing(up: Gateway) -> None:
    steps = [
        {
            "id": "one",
            "type": "llm",
            "model": "sim/echo",
            "prompt": "About ${input.x}",
            "max_tokens": 10,
            "output": "a",
        },
        {"id": "two", "type": "llm", "model": "sim/echo", "prompt": "${a}", "max_tokens": 10},
    ]
    body = {"workflow": {"name": "dry", "inputs": {"x": {"type": "string"}}, "steps": steps}, "input": {"x": "owls"}}
    before = up.http.get("/v1/runs", params={"workflow": "dry"}).json()["data"]
    answer = up.http.post("/v1/runs", params={"dry_run": "true"}, json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert [step["messages"][-1]["content"] for step in told["steps"]] == ["About owls", "${a}"]
    assert 0 < told["cost_usd"]["low"] < told["cost_usd"]["high"] < 0.01 and told["cost_unknown_steps"] == 0
    assert up.http.get("/v1/runs", params={"workflow": "dry"}).json()["data"] == before == []
    ran = up.finished(up.submit(body["workflow"], {"x": "owls"}))
    assert told["cost_usd"]["low"] <= ran["cost_usd"] <= told["cost_usd"]["high"]
    error_of(up.http.post("/v1/runs", params={"dry_run": "true"}, json={**body, "input": {}}), 400)
    shown = up.run("run", "double", "-i", "n:=6", "--dry-run")
    assert shown.returncode == 0 and "user: large hello" in shown.stdout and "all: " in shown.stdout, shown
