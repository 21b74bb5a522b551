"""`workflow/NAME` as a model, as OpenAI's and Anthropic's own clients see it."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from gateway import Gateway, gateway
from services import wait_until

MODELS = {
    "told": {"reply": "forty two", "input": 1, "output": 2, "tokens_in": 10, "tokens_out": 3},
    "broken": {"fail": [400] * 50},
}
WORKFLOWS: dict[str, dict[str, Any]] = {
    "ask": {"steps": [{"id": "answer", "type": "llm", "model": "sim/told", "prompt": "${input.message}"}]},
    "calls": {"steps": [{"id": "other", "type": "workflow", "workflow": "ask", "input": {"message": "${input.message}"}}]},
    "roles": {"steps": [{"id": "count", "type": "set", "value": {"text": "${input.message}", "all": "${input.messages}"}}]},
    "topical": {
        "inputs": {"topic": {"type": "string"}, "size": {"type": "integer", "default": 3}},
        "steps": [{"id": "say", "type": "set", "value": "${input.topic} ${input.size}"}],
    },
    "listing": {
        "inputs": {"messages": {"type": "array"}},
        "steps": [{"id": "say", "type": "set", "value": "${input}"}],
    },
    "numbers": {
        "inputs": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "steps": [{"id": "add", "type": "set", "value": "${input.a + input.b}"}],
    },
    "fails": {"steps": [{"id": "bad", "type": "llm", "model": "sim/broken", "prompt": "x"}]},
    "poor": {"budget_usd": 0, "steps": [{"id": "dear", "type": "llm", "model": "sim/told", "prompt": "x"}]},
    "waits": {"steps": [{"id": "first", "type": "set", "value": 1}, {"id": "hold", "type": "wait", "signal": "go"}]},
}  # fmt: skip


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("home")
    (folder / "workflows").mkdir()
    for name, definition in WORKFLOWS.items():
        (folder / "workflows" / f"{name}.yaml").write_text(json.dumps({"name": name, **definition}))
    with gateway(folder, {"providers": {"sim": {"type": "simulated", "models": MODELS}}}) as installed:
        installed.serve(workers=1)
        yield installed


@pytest.fixture
def client(up: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{up.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(up: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=up.url, api_key="none", max_retries=0) as client:
        yield client


def say(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def lines(up: Gateway, body: dict[str, Any], path: str = "/v1/chat/completions") -> list[str]:
    with up.http.stream("POST", path, json={"stream": True, **body}) as answer:
        assert answer.status_code == 200 and answer.headers["x-aigateway-run-id"], answer.read()
        return [line for line in answer.iter_lines() if line]


def told(lines: list[str]) -> list[Any]:
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


def test_a_plain_answer_carries_output_usage_cost_and_run(up: Gateway, client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="workflow/ask", messages=say("what?"), temperature=0.5, metadata={"team": "a"}, tools=[]
    )
    answer = raw.parse()
    assert answer.model == "workflow/ask" and answer.object == "chat.completion"
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("forty two", "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (10, 3, 13)
    run = up.http.get(f"/v1/runs/{raw.headers['x-aigateway-run-id']}").json()
    calls = up.http.get(f"/v1/requests/{raw.headers['x-request-id']}").json()["data"]
    assert calls and {call["run_id"] for call in calls} == {run["id"]}
    assert run["status"] == "succeeded" and run["tags"] == {"team": "a"}
    assert run["input"] == {"message": "what?", "messages": say("what?")}
    assert answer.aigateway["run_id"] == run["id"] and answer.aigateway["cost_usd"] == run["cost_usd"] > 0  # type: ignore[attr-defined]
    assert float(raw.headers["x-aigateway-cost-usd"]) == run["cost_usd"]
    assert raw.headers["x-aigateway-dropped"] == "temperature"


def test_the_declared_inputs_decide_what_is_given(client: openai.OpenAI) -> None:
    def ask(name: str, messages: list[Any]) -> str | None:
        return client.chat.completions.create(model=f"workflow/{name}", messages=messages).choices[0].message.content

    talk = [{"role": "system", "content": "s"}, *say("one"), {"role": "assistant", "content": "x"}]
    last = [{"role": "user", "content": [{"type": "text", "text": "two "}, {"type": "text", "text": "three"}]}]
    assert json.loads(ask("roles", talk + last) or "") == {"text": "two three", "all": talk + last}
    assert ask("topical", talk + last) == "two three 3"
    assert ask("listing", say("hi")) == '{"messages":[{"role":"user","content":"hi"}]}'


def test_what_a_chat_call_cannot_give_is_refused_by_name(up: Gateway, client: openai.OpenAI) -> None:
    runs = len(up.http.get("/v1/runs").json()["data"])
    with pytest.raises(openai.BadRequestError, match=r"numbers.*a \(integer\), b \(integer\)"):
        client.chat.completions.create(model="workflow/numbers", messages=say("1"))
    with pytest.raises(openai.BadRequestError, match="last user message"):
        client.chat.completions.create(model="workflow/ask", messages=[{"role": "system", "content": "s"}])
    with pytest.raises(openai.NotFoundError, match="topical") as caught:
        client.chat.completions.create(model="workflow/topicl", messages=say("1"))
    assert caught.value.code == "model_not_found"
    assert len(up.http.get("/v1/runs").json()["data"]) == runs


def test_models_are_listed(client: openai.OpenAI) -> None:
    listed = {model.id for model in client.models.list()}
    assert {"workflow/ask", "workflow/research-assistant", "sim/told"} <= listed
    assert client.models.retrieve("workflow/ask").owned_by == "workflow"
    with pytest.raises(openai.NotFoundError, match="topical"):
        client.models.retrieve("workflow/topicl")


def test_a_stream_tells_progress_in_comments_and_the_output_as_content(up: Gateway, client: openai.OpenAI) -> None:
    body = {"model": "workflow/ask", "messages": say("hi"), "stream_options": {"include_usage": True}}
    seen = lines(up, body)
    assert seen[0].startswith("data: ") and told(seen)[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [line for line in seen if line.startswith(": step.")] == [": step.started answer", ": step.succeeded answer"]
    assert seen[-1] == "data: [DONE]"
    chunks = told(seen)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] == 13
    assert chunks[-1]["aigateway"]["cost_usd"] > 0 and chunks[-1]["aigateway"]["run_id"]
    streamed = client.chat.completions.create(model="workflow/ask", messages=say("hi"), stream=True)
    pieces = [chunk.choices[0] for chunk in streamed]
    assert "".join(piece.delta.content or "" for piece in pieces) == "forty two" and pieces[-1].finish_reason == "stop"


def test_messages_and_responses_answer_in_their_own_shape(
    up: Gateway, client: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    raw = claude.messages.with_raw_response.create(model="workflow/ask", max_tokens=9, messages=say("hi"), system="s")
    message = raw.parse()
    assert (message.type, message.stop_reason, message.content[0].type) == ("message", "end_turn", "text")
    assert message.content[0].text == "forty two" and message.usage.input_tokens == 10  # type: ignore[union-attr]
    run = up.http.get(f"/v1/runs/{raw.headers['x-aigateway-run-id']}").json()
    assert [m["role"] for m in run["input"]["messages"]] == ["system", "user"] and run["input"]["message"] == "hi"
    with claude.messages.stream(model="workflow/ask", max_tokens=9, messages=say("hi")) as stream:
        assert "".join(stream.text_stream) == "forty two"
        assert stream.get_final_message().usage.output_tokens == 3
    response = client.responses.create(model="workflow/ask", input="hi")
    assert response.output_text == "forty two" and response.usage is not None and response.usage.total_tokens == 13
    kinds: list[str] = []
    for event in client.responses.create(model="workflow/ask", input="hi", stream=True):
        kinds.append(event.type)
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"


def test_a_run_without_output_is_an_error_that_names_it(up: Gateway, client: openai.OpenAI) -> None:
    def status(name: str) -> tuple[int, str, str]:
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model=f"workflow/{name}", messages=say("x"))
        error = caught.value
        assert error.response.headers["x-aigateway-run-id"] in error.message
        assert error.response.headers["x-should-retry"] == "false"
        return error.status_code, str(error.code), error.message

    assert status("fails")[:2] == (502, "run_failed") and "step bad" in status("fails")[2]
    assert status("poor")[:2] == (402, "budget_exceeded") and "the run's 0 USD only 0 are left" in status("poor")[2]
    budget = {"name": "asks", "scope": "workflow", "match": "ask", "limit_usd": 0, "period": "day"}
    assert up.http.put("/v1/budgets", json=budget).status_code == 200
    try:
        limited = status("ask")
        waited = up.http.post("/v1/workflow/ask", json={"input": {"message": "x"}})
    finally:
        assert up.http.put("/v1/budgets", json=[]).status_code == 200
    assert limited[:2] == (402, "budget_exceeded")
    for message in (limited[2], waited.json()["error"]["message"]):
        assert "daily limit reached (asks)" in message and "resets tomorrow" in message, message
    for name, code in (("fails", "run_failed"), ("poor", "budget_exceeded")):
        seen = lines(up, {"model": f"workflow/{name}", "messages": say("x")})
        assert told(seen)[-1]["error"]["code"] == code and "[DONE]" not in seen[-1]
    seen = lines(up, {"model": "workflow/fails", "messages": say("x"), "max_tokens": 5}, "/v1/messages")
    assert told(seen)[-1]["type"] == "error" and "step bad" in told(seen)[-1]["error"]["message"]
    seen = lines(up, {"model": "workflow/fails", "input": "x"}, "/v1/responses")
    assert told(seen)[-1]["type"] == "response.failed"


def test_a_client_that_gives_up_is_told_first_and_the_run_goes_on(up: Gateway) -> None:
    with openai.OpenAI(base_url=f"{up.url}/v1", api_key="none", max_retries=0, timeout=2.0) as hurried:
        with pytest.raises(openai.APIStatusError, match="goes on") as caught:
            hurried.chat.completions.create(model="workflow/waits", messages=say("x"))
    assert (caught.value.status_code, caught.value.code) == (504, "run_not_finished")
    run_id = caught.value.response.headers["x-aigateway-run-id"]
    assert up.http.post(f"/v1/runs/{run_id}/signals/go", json={"ok": 1}).status_code == 202
    assert up.finished(run_id)["output"] == {"ok": 1}


def test_a_client_that_leaves_does_not_stop_the_run_and_a_cancel_is_told(up: Gateway) -> None:
    with up.http.stream(
        "POST", "/v1/chat/completions", json={"model": "workflow/waits", "messages": say("x"), "stream": True}
    ) as answer:
        run_id = answer.headers["x-aigateway-run-id"]
    assert up.http.get(f"/v1/runs/{run_id}").json()["status"] in ("queued", "running", "waiting")
    up.http.post(f"/v1/runs/{run_id}/signals/go", json="gone")
    assert up.finished(run_id)["output"] == "gone"
    found: list[httpx2.Response] = []
    body = {"model": "workflow/waits", "messages": say("cancel me")}
    waiting = threading.Thread(
        target=lambda: found.append(
            httpx2.post(f"{up.url}/v1/chat/completions", json=body, timeout=30, trust_env=False)
        )
    )
    waiting.start()

    def open_run() -> Any:
        rows = up.http.get("/v1/runs", params={"workflow": "waits", "limit": 1}).json()["data"]
        return rows[0]["id"] if rows[0]["input"]["message"] == "cancel me" else None

    wait_until(lambda: bool(open_run()), "the run is there", 10)
    up.http.post(f"/v1/runs/{open_run()}/cancel")
    waiting.join(10)
    assert found[0].status_code == 409 and found[0].json()["error"]["code"] == "run_cancelled"


def test_a_step_that_asks_a_workflow_as_a_model_is_refused_at_submission(up: Gateway) -> None:
    loop = {"name": "loop", "steps": [{"id": "me", "type": "llm", "model": "workflow/loop", "prompt": "x"}]}
    answer = up.http.post("/v1/runs", json={"workflow": loop})
    assert answer.status_code == 400 and "type `workflow`" in answer.json()["error"]["message"]


def keyed(up: Gateway, name: str, **limits: Any) -> tuple[str, dict[str, str]]:
    made = up.http.post("/v1/keys", json={"name": name, **limits}).json()
    return made["id"], {"authorization": f"Bearer {made['key']}"}


def test_a_key_needs_the_workflow_among_its_models_and_nothing_else(up: Gateway) -> None:
    """The grant is for what the stored workflow does, those that it calls too: not for what the key's holder makes of it."""
    key_id, granted = keyed(up, "yes", allowed_models=["workflow/calls"])
    _, other = keyed(up, "no", allowed_models=["sim/*"])

    def ask(headers: dict[str, str], model: str = "workflow/calls") -> httpx2.Response:
        return up.http.post("/v1/chat/completions", json={"model": model, "messages": say("x")}, headers=headers)

    assert ask(other).status_code == 403 and ask(other).json()["error"]["code"] == "model_not_allowed"
    assert [ask(granted, model).status_code for model in ("workflow/ask", "sim/told")] == [403, 403]
    answer = ask(granted)
    assert answer.json()["choices"][0]["message"]["content"] == "forty two", answer.text
    rows = up.http.get("/v1/requests", params={"key": key_id}).json()["data"]
    assert [row["workflow_name"] for row in rows] == ["ask"] and rows[0]["cost_usd"] > 0
    mine = {"name": "calls", "steps": [{"id": "own", "type": "llm", "model": "sim/told", "prompt": "x"}]}
    run_id = up.http.post("/v1/runs", json={"workflow": mine}, headers=granted).json()["id"]
    error = up.finished(run_id)["error"]
    assert (error["step"], "may not use sim/told" in error["message"]) == ("own", True)
    assert up.http.put("/v1/workflows/calls", json=mine, headers=granted).status_code == 403
    assert up.http.delete("/v1/workflows/calls", headers=granted).status_code == 403
    first = ask(granted).headers["x-aigateway-run-id"]
    forked = {"from_step": "answer", "models": {"answer": "sim/broken"}}
    inner = up.http.get(f"/v1/runs/{first}/steps").json()["data"]
    assert inner and rows[0]["run_id"] != first
    new = up.http.post(f"/v1/runs/{rows[0]['run_id']}/fork", json=forked, headers=granted).json()["id"]
    assert "may not use sim/broken" in up.finished(new)["error"]["message"]


def test_a_key_sees_the_models_that_it_may_use(up: Gateway) -> None:
    _, granted = keyed(up, "seer", allowed_models=["workflow/calls", "sim/t*"])
    seen = {model["id"] for model in up.http.get("/v1/models", headers=granted).json()["data"]}
    assert seen == {"workflow/calls", "sim/told"}
    assert {"workflow/ask", "sim/broken"} < {model["id"] for model in up.http.get("/v1/models").json()["data"]}
    for model, status in (
        ("workflow/calls", 200),
        ("sim/told", 200),
        ("workflow/ask", 404),
        ("sim/broken", 404),
        ("x", 404),
    ):
        answer = up.http.get(f"/v1/models/{model}", headers=granted)
        assert answer.status_code == status, (model, answer.text)
        assert status == 200 or answer.json()["error"]["code"] == "model_not_found"


def test_a_key_over_its_rate_is_told_at_once_and_no_run_is_started(up: Gateway) -> None:
    key_id, hurried = keyed(up, "hurried", requests_per_minute=1)
    body = {"model": "workflow/ask", "messages": say("x")}
    once = {**hurried, "idempotency-key": "the same"}
    first = up.http.post("/v1/chat/completions", json=body, headers=once)
    assert (first.status_code, first.headers["x-ratelimit-remaining-requests"]) == (200, "0")
    runs = len(up.http.get("/v1/runs").json()["data"])
    for path, more in (("/v1/chat/completions", {"stream": True}), ("/v1/messages", {"max_tokens": 5})):
        refused = up.http.post(path, json=body | more, headers=hurried)
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 30, refused.text
    assert up.http.post("/v1/chat/completions", json=body, headers=once).status_code == 200  # its own run, again
    assert len(up.http.get("/v1/runs").json()["data"]) == runs
    assert len(up.http.get("/v1/requests", params={"key": key_id}).json()["data"]) == 1
