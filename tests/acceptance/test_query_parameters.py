"""What a query string and stored text may hold, and methods that a path does not have: told in the one error shape, alike everywhere.

And a submission that is asked for again when its workflow is gone.
"""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from gateway import Gateway, gateway


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("home"), {}) as installed:
        installed.serve(workers=0)
        yield installed


def error_of(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


def sent(up: Gateway, path: str, body: bytes) -> Any:
    return up.http.post(path, content=body, headers={"content-type": "application/json"})


def refused(up: Gateway, path: str) -> dict[str, Any]:
    answer = up.http.get(path)
    assert answer.status_code == 400, (path, answer.text)
    assert set(answer.json()["error"]) >= {"message", "type", "code", "param"}
    return answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("/v1/runs?limt=5", "limit"),
        ("/v1/runs?workflw=x", "workflow"),
        ("/v1/spend?groupby=day", "group_by"),
        ("/v1/spend.csv?sinse=2026-01-01", "since"),
        ("/v1/requests?modell=x", "model"),
        ("/v1/requests.csv?knd=chat", "kind"),
        ("/v1/keys?cursr=x", "cursor"),
        ("/v1/budgets?limits=1", "limit"),
        ("/v1/runs/00000000-0000-0000-0000-000000000000?wiat=1", "wait"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(up: Gateway, path: str, near: str) -> None:
    error = refused(up, path)
    assert f"`{near}`" in error["message"] and error["param"] == path.partition("?")[2].partition("=")[0]


def test_a_key_where_none_is_known_is_refused_too(up: Gateway) -> None:
    assert "known here: none" in refused(up, "/v1/workflows/schema.json?zzz=1")["message"]
    assert up.http.post("/v1/messages/count_tokens?beta=true", json={"model": "simulated/echo", "messages": [
        {"role": "user", "content": "x"}]}).status_code == 200  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/runs", "/v1/requests", "/v1/keys", "/v1/budgets", "/v1/schedules"])
def test_a_cursor_that_no_page_told_is_refused(up: Gateway, path: str) -> None:
    for cursor in ("garbage", "", "zzzzzzzz-0000-0000-0000-000000000000", "a' OR 1=1"):
        error = up.http.get(path, params={"cursor": cursor})
        assert error.status_code == 400 and error.json()["error"]["param"] == "cursor", cursor
    assert up.http.get(path, params={"cursor": "019a0000-0000-7000-8000-000000000000"}).json()["data"] == []


def test_the_ledger_is_narrowed_by_kind(up: Gateway) -> None:
    talk = {"model": "simulated/echo", "messages": [{"role": "user", "content": "x"}]}
    assert up.http.post("/v1/chat/completions", json=talk).status_code == 200
    assert len(up.http.get("/v1/requests", params={"kind": "chat"}).json()["data"]) == 1
    assert up.http.get("/v1/requests", params={"kind": "tool"}).json()["data"] == []
    assert refused(up, "/v1/requests?kind=chatt")["param"] == "kind"
    lines = up.http.get("/v1/requests.csv", params={"kind": "embeddings"}).text.splitlines()
    assert len(lines) == 1 and "saved_usd" in lines[0]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/runs", "/v1/models"])
def test_a_method_that_a_path_does_not_have(up: Gateway, path: str) -> None:
    for method in ("PATCH", "DELETE", "PROPFIND"):
        answer = up.http.request(method, path)
        assert answer.status_code == 405, (method, path, answer.text)
        assert method in answer.json()["error"]["message"] and answer.headers["allow"]
    if path == "/v1/runs":
        assert answer.headers["allow"] == "GET, HEAD, POST"  # its routes are several


def test_head_is_get_without_its_body(up: Gateway) -> None:
    for path in ("/health", "/v1/models", "/metrics"):
        answer = up.http.head(path)
        assert (answer.status_code, answer.content) == (200, b"") and int(answer.headers["content-length"]) > 50, path
    run_id = up.submit({"name": "w", "steps": [{"id": "s", "type": "wait", "signal": "go"}]}, {})
    events = up.http.head(f"/v1/runs/{run_id}/events", headers={"accept": "text/event-stream"}, timeout=5)
    assert events.status_code == 200 and up.http.head("/v1/nothing").status_code == 404


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("/v1/chat/completions", b'{"model": }', "line 1 column 11"),
        ("/v1/runs", b'{\n "workflow": }', "line 2 column 14"),
        ("/v1/messages", b'{"model": "\xff"}', "not UTF-8 from byte 11"),
        ("/v1/runs", b'{"workflow": "\xff"}', "not UTF-8 from byte 14"),
        ("/v1/runs", b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_body_that_is_no_json_is_told_with_its_place(up: Gateway, path: str, content: bytes, words: str) -> None:
    answer = up.http.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and words in answer.json()["error"]["message"], answer.text
    assert path == "/v1/messages" or answer.json()["error"]["code"] == "invalid_json"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/runs", "/mcp"])
def test_a_compressed_body_is_refused_by_its_header(up: Gateway, path: str) -> None:
    packed = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = up.http.post(path, content=gzip.compress(b"{}"), headers=packed)
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    assert "gzip" in answer.json()["error"]["message"]


def test_mcp_takes_json_alone_and_says_so_in_the_one_shape(up: Gateway) -> None:
    answer = up.http.post("/mcp", content=b"hello", headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (415, "content-type")


def test_a_budget_twice_in_one_list_is_refused_with_its_place(up: Gateway) -> None:
    answer = up.http.put("/v1/budgets", json=[{"name": "a", "limit_usd": 1}, {"name": "a", "limit_usd": 2}])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "[1].name")
    assert up.http.get("/v1/budgets").json()["data"] == []


def test_pages_of_other_sites_need_a_key_and_may_then_read_the_answer(up: Gateway) -> None:
    """As a browser does it: it asks first, without the key, and hides an answer that does not let the page in."""
    page = {"origin": "https://app.example"}
    asks = {**page, "access-control-request-method": "POST", "access-control-request-headers": "authorization,x-other"}
    told = up.http.options("/v1/chat/completions", headers=asks)
    assert (told.status_code, told.headers["access-control-allow-origin"]) == (204, "*")
    assert told.headers["access-control-allow-headers"] == "authorization,x-other"
    secret = up.http.post("/v1/keys", json={"name": "page"}).json()["key"]
    talk = {"model": "simulated/echo", "messages": [{"role": "user", "content": "x"}]}
    for key, status, readable in ((secret, 200, "*"), ("sk-nobody", 403, None)):
        for stream in (False, True):
            body = {**talk, "stream": stream}
            sent = up.http.post("/v1/chat/completions", json=body, headers={**page, "authorization": f"Bearer {key}"})
            assert (sent.status_code, sent.headers.get("access-control-allow-origin")) == (status, readable)
    local = up.http.post("/v1/chat/completions", json=talk, headers={"origin": "http://localhost:3000"})
    assert (local.status_code, local.headers["access-control-allow-origin"]) == (200, "*")
    missing = up.http.get("/v1/models/none", headers={**page, "authorization": f"Bearer {secret}"})
    assert (missing.status_code, missing.headers["access-control-allow-origin"]) == (404, "*")
    assert up.http.options("/dashboard", headers=asks).status_code == 403
    assert "access-control-allow-origin" not in up.http.get("/v1/models").headers


def test_an_idempotency_key_outlives_the_workflow(up: Gateway) -> None:
    definition = {"name": "brief", "steps": [{"id": "a", "type": "set", "value": 1}]}
    up.http.put("/v1/workflows/brief", json=definition)
    asked: dict[str, Any] = {
        "json": {"workflow": "brief", "tags": {"a": "b"}},
        "headers": {"idempotency-key": "brief-1"},
    }
    first = up.http.post("/v1/runs", **asked)
    up.http.put("/v1/workflows/brief", json=definition | {"inputs": {"n": {"type": "integer"}}})
    assert (
        up.http.post("/v1/runs", **asked).json()["id"] == first.json()["id"]
    )  # with an input that it would refuse now
    assert up.http.delete("/v1/workflows/brief").status_code == 204
    again = up.http.post("/v1/runs", **asked)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    error_of(up.http.post("/v1/runs", **asked | {"json": {"workflow": "brief"}}), 409)
    error_of(up.http.post("/v1/runs", json={"workflow": "brief"}), 404)


def test_text_that_postgresql_cannot_hold_is_refused_by_field_and_kept_in_values(up: Gateway) -> None:
    start = {"workflow": "research-assistant", "input": {"topic": "tea"}}
    bodies: dict[str, dict[str, Any]] = {"workflow": {"workflow": "\0"}, "tags.a": start | {"tags": {"a": "\0"}}}
    for param, body in {**bodies, "webhook_url": start | {"webhook_url": "https://example.com/\0"}}.items():
        error = error_of(up.http.post("/v1/runs", json=body), 400)
        assert error["param"] == param and "NUL" in error["message"]
    for path, param in {"runs/a%00b": "run_id", "runs?workflow=%00": "workflow", "requests?tag=a:%00": "tag"}.items():
        assert error_of(up.http.get(f"/v1/{path}"), 400)["param"] == param
    chat = {"model": "simulated/echo", "messages": [{"role": "user", "content": "a\0"}], "metadata": {"k": "v\0"}}
    assert up.http.post("/v1/chat/completions", json=chat).json()["choices"][0]["message"]["content"] == "a\0"
    assert (
        error_of(up.http.post("/v1/chat/completions", json=chat | {"model": "simulated/\0"}), 404)["param"] == "model"
    )


def test_values_that_json_can_spell_and_no_utf8_can_hold_break_no_answer(up: Gateway) -> None:
    """Half of a surrogate pair in a value is kept, and written so that any client reads it; in text that is looked for it is refused."""
    text = "name: odd\nsteps:\n  - {id: hold, type: wait, signal: go}\n"
    assert up.http.put("/v1/workflows/odd", content=text).status_code == 201
    run = sent(up, "/v1/workflow/odd?wait=0", b'{"input": {"text": "\\ud800"}}').json()["links"]["self"]
    assert up.http.get("/v1/runs?workflow=odd").json()["data"][0]["input"] == {"text": "\ud800"}
    for answer in (up.http.get(run), up.http.post(f"{run}/pause"), up.http.post(f"{run}/cancel")):
        assert answer.json()["input"] == {"text": "\ud800"}
    assert up.http.get(f"{run}/steps").status_code == 200
    unknown = b'{"from_step": "\\ud800"}'
    assert "\ud800" in error_of(sent(up, f"{run}/fork", unknown), 400)["message"]
    fields = {"workflow": b'"\\ud800"', "webhook_url": b'"https://example.com/\\ud800"', "tags.a": b'{"a": "\\udfff"}'}
    for param, value in fields.items():
        body = b'{"workflow": "odd", "%s": %s}' % (param.partition(".")[0].encode(), value)
        error = error_of(sent(up, "/v1/runs", body), 400)
        assert error["param"] == param and "surrogate" in error["message"]


def test_values_deeper_than_answers_can_be_are_refused_by_field(up: Gateway) -> None:
    text = "name: deep\nsteps:\n  - {id: hold, type: wait, signal: go}\n"
    assert up.http.put("/v1/workflows/deep", content=text).status_code == 201
    fits, deeper = json.loads("[" * 199 + "]" * 199), json.loads("[" * 300 + "]" * 300)
    started = up.http.post("/v1/workflows/deep/runs", json={"input": {"of": fits}})
    run = started.json()["links"]["self"]
    bodies: dict[str, Any] = {
        "workflows/deep/runs": {"input": {"of": deeper}},
        "schedules": {"workflow": "deep", "cron": "@daily", "input": {"of": deeper}},
    }
    for path, body in {**bodies, f"{run[4:]}/fork": {"from_step": "hold", "input": {"of": deeper}}}.items():
        error = error_of(up.http.post(f"/v1/{path}", json=body), 400)
        assert error["param"] == "input" and "200 levels" in error["message"]
    assert "200 levels" in error_of(up.http.post(f"{run}/signals/go", json=deeper), 400)["message"]
    assert up.http.get("/v1/runs?workflow=deep").json()["data"][0]["input"] == {"of": fits}


def test_the_short_way_and_the_documented_route_say_the_same(up: Gateway) -> None:
    """A parameter with its default goes the long way through FastAPI (`api.hot_runs`): but for the run it is the same answer."""
    text = "name: twice\nsteps:\n  - {id: hold, type: wait, signal: go}\n"
    assert up.http.put("/v1/workflows/twice", content=text).status_code == 201
    body = {"input": {"big": 2**70, "text": "ä\u2028"}, "tags": {"a": "b"}, "start_at": "2099-01-01T00:00:00+02:00"}
    short, long = (up.http.post(f"/v1/workflows/twice/runs{query}", json=body) for query in ("", "?dry_run=false"))
    told = [(one.status_code, one.text.replace(one.json()["id"], "ID")) for one in (short, long)]
    assert told[0] == told[1]
    assert short.headers["location"] == short.json()["links"]["self"]

    run = f"/v1/runs/{short.json()['id']}"
    shown = [up.http.get(run + query) for query in ("", "?wait=0", "?wait=0.0000000")]
    assert [one.json() for one in shown] == [shown[0].json()] * 3
    assert shown[0].json()["input"] == body["input"]
    waited = [up.http.post(f"/v1/workflow/twice?wait={wait}", json=body) for wait in ("0.01", "0.0100000")]
    assert [one.status_code for one in waited] == [202, 202]
    assert [one.json().keys() for one in waited] == [short.json().keys()] * 2
    missing = [up.http.get(f"/v1/runs/none{query}") for query in ("", "?wait=0.0000000")]
    assert missing[0].status_code == 404 and missing[0].json() == missing[1].json()


def test_a_run_has_the_newest_version_however_often_it_was_started(up: Gateway) -> None:
    text = "name: renewed\nsteps:\n  - {id: hold, type: wait, signal: go}\n"
    for version in (1, 2):
        up.http.put("/v1/workflows/renewed", content=text + f"description: v{version}\n")
        started = [up.http.post("/v1/workflows/renewed/runs").json()["links"]["self"] for _ in range(2)]
        assert [up.http.get(run).json()["version"] for run in started] == [version, version]
    assert up.http.delete("/v1/workflows/renewed").is_success
    assert up.http.post("/v1/workflows/renewed/runs").status_code == 404
