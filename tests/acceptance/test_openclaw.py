"""What OpenClaw sends, and what it needs back (docs/openclaw.md; how it behaves: its own documentation of models and failover)."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from over_upstreams import DIALECTS, MODELS, Stand, stand
from upstreams.control import Fault

PAGE = (Path(__file__).parents[2] / "docs" / "openclaw.md").read_text()
PICTURE = "data:image/png;base64," + base64.b64encode(b"not really a picture").decode()
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
        "strict": False,
    },
}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    fast = {f"fast-{name}": model for name, model in MODELS.items()}
    with stand(tmp_path_factory.mktemp("home"), models={"fast": MODELS["openai"], **fast}) as standing:
        yield standing


@pytest.fixture
def snippet() -> dict[str, Any]:
    found = re.search(r"<!-- tested: openclaw -->\n```json\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def body(model: str, messages: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "system", "content": "You are an agent."}, *messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 8192,
        "store": False,
        **more,
    }


def chunks(up: Stand, asked: dict[str, Any]) -> list[dict[str, Any]]:
    with up.gateway.http.stream(
        "POST", "/v1/chat/completions", json=asked, headers={"authorization": "Bearer x"}
    ) as answer:
        text = answer.read().decode()
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream"), text
    frames = [frame for frame in text.split("\n\n") if frame]
    assert frames[-1] == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-1]]


def deltas(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in told if chunk["choices"]]


def whole_and_well_formed(told: list[dict[str, Any]], finish_reason: str) -> None:
    assert {(chunk["id"], chunk["object"]) for chunk in told} == {(told[0]["id"], "chat.completion.chunk")}
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in told if chunk["choices"]]
    assert [reason for reason in reasons if reason] == [finish_reason] and reasons[-1] == finish_reason
    assert told[-1]["choices"] == [] and not any(chunk.get("usage") for chunk in told[:-1])
    usage = told[-1]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


def test_the_snippet_names_what_there_is(up: Stand, snippet: dict[str, Any]) -> None:
    provider = snippet["models"]["providers"]["aigateway"]
    assert provider["baseUrl"].endswith("/v1") and provider["api"] == "openai-completions"
    listed = {model["id"] for model in up.gateway.http.get("/v1/models").json()["data"]}
    assert {model["id"] for model in provider["models"]} <= listed
    assert snippet["agents"]["defaults"]["model"]["primary"] == "aigateway/fast"
    for model in provider["models"]:
        assert {"id", "name", "reasoning", "input", "contextWindow", "maxTokens", "cost"} <= model.keys()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_turn_with_a_picture_and_an_effort(up: Stand, dialect: str) -> None:
    parts = [{"type": "text", "text": "look [cached 2]"}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    asked = body(f"fast-{dialect}", [{"role": "user", "content": parts}], reasoning_effort="low", tools=[TOOL])
    told = chunks(up, asked)
    whole_and_well_formed(told, "stop")
    assert "".join(delta.get("content") or "" for delta in deltas(told)) == "Answer to: look [cached 2]"
    if dialect != "ollama":
        assert told[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 2


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_tool_loop_that_ends_without_tools(up: Stand, dialect: str) -> None:
    question = {
        "role": "user",
        "content": 'use tool weather with {"town": "A"} and use tool weather with {"town": "B"}',
    }
    told = chunks(up, body(f"fast-{dialect}", [question], tools=[TOOL]))
    whole_and_well_formed(told, "tool_calls")
    pieces = [piece for delta in deltas(told) for piece in delta.get("tool_calls") or []]
    indexes = [piece["index"] for piece in pieces]
    assert indexes == sorted(indexes) and set(indexes) == {0, 1}
    calls: list[dict[str, Any]] = []
    for index in (0, 1):
        own = [piece for piece in pieces if piece["index"] == index]
        assert own[0]["id"] and own[0]["function"]["name"] == "weather" and not any(p.get("id") for p in own[1:])
        arguments = "".join(piece["function"].get("arguments") or "" for piece in own)
        calls.append({"id": own[0]["id"], "type": "function", "function": {"name": "weather", "arguments": arguments}})
    assert [json.loads(call["function"]["arguments"])["town"] for call in calls] == ["A", "B"]
    picture = [
        {"type": "text", "text": "The pictures of the tool results:"},
        {"type": "image_url", "image_url": {"url": PICTURE}},
    ]
    history = [
        question,
        {"role": "assistant", "content": None, "tool_calls": calls},
        *({"role": "tool", "tool_call_id": call["id"], "content": "sunny"} for call in calls),
        {"role": "user", "content": picture},
    ]
    told = chunks(up, body(f"fast-{dialect}", history, tools=[]))
    whole_and_well_formed(told, "stop")


def test_thoughts_are_told_apart(up: Stand) -> None:
    told = chunks(up, body("fast-ollama", [{"role": "user", "content": "why? [think 5]"}], reasoning_effort="high"))
    whole_and_well_formed(told, "stop")
    assert "".join(delta.get("reasoning_content") or delta.get("reasoning") or "" for delta in deltas(told))


def test_a_broken_stream_has_no_finish_reason(up: Stand) -> None:
    up.upstreams["openai"].script(Fault("cut", after=2))
    answer = up.gateway.http.post("/v1/chat/completions", json=body("fast", [{"role": "user", "content": "[words 9]"}]))
    frames = [frame.removeprefix("data: ") for frame in answer.text.split("\n\n") if frame]
    assert "[DONE]" not in frames and "error" in json.loads(frames[-1])
    assert not any(choice["finish_reason"] for frame in frames[:-1] for choice in json.loads(frame)["choices"])


def test_a_spent_budget_reads_like_a_limit_that_comes_back(up: Stand) -> None:
    key = {"name": "claw", "budget_usd": 0.000001, "budget_period": "day"}
    secret = up.gateway.http.post("/v1/keys", json=key).json()["key"]
    headers = {"authorization": f"Bearer {secret}"}
    asked = body("fast", [{"role": "user", "content": "hi"}])
    answer = up.gateway.http.post("/v1/chat/completions", json=asked, headers=headers)
    assert answer.status_code == 402 and answer.headers["x-should-retry"] == "false"
    message = answer.json()["error"]["message"].lower()
    assert "daily limit reached" in message and "resets" in message
    assert not any(word in message for word in ("insufficient", "credit", "balance", "billing", "payment"))
    few = up.gateway.http.post("/v1/keys", json={"name": "few", "requests_per_minute": 1}).json()["key"]
    headers = {"authorization": f"Bearer {few}"}
    statuses = [up.gateway.http.post("/v1/chat/completions", json=asked, headers=headers) for _ in range(2)]
    assert statuses[1].status_code == 429 and int(statuses[1].headers["retry-after"]) <= 60
    assert "rate limit" in statuses[1].json()["error"]["message"]
