"""The exact cache as clients see it: one upstream call, hits that are booked with what they saved, nothing across tenants."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from over_upstreams import MODELS, Stand, stand
from services import wait_until
from upstreams.control import Fault

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture
def up(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    models = {
        "kept": {"targets": [MODELS["openai"]], "cache": "1h"},
        "brief": {"targets": [MODELS["openai"]], "cache": "1s"},
    }
    with stand(tmp_path_factory.mktemp("home"), database_url=database_url, models=models) as standing:
        yield standing


def ask(
    up: Stand, text: str, *, cache: str | None = None, path: str = "/v1/chat/completions", **more: Any
) -> httpx2.Response:
    headers = {} if cache is None else {"x-aigateway-cache": cache}
    secret = more.pop("secret", None)
    if secret:
        headers["authorization"] = f"Bearer {secret}"
    body = {"model": "kept", "messages": [{"role": "user", "content": text}], **more}
    return up.gateway.http.post(path, json=body, headers=headers)


def calls(up: Stand) -> int:
    return sum(control.state()["total"] for control in up.upstreams.values())


def test_the_cache(up: Stand) -> None:
    """One start serves all of it."""
    a_hit_is_booked_with_what_it_saved(up)
    streamed_and_plain_share_an_entry(up)
    what_is_asked_decides(up)
    the_header_decides(up)
    tenants_share_nothing(up)
    every_dialect(up)
    failures_are_not_kept(up)
    entries_expire(up)


def a_hit_is_booked_with_what_it_saved(up: Stand) -> None:
    first, again = ask(up, "one two"), ask(up, "one two", user="somebody else", metadata={"a": "b"})
    assert first.headers["x-aigateway-cache"] == "miss" and again.headers["x-aigateway-cache"] == "hit"
    assert calls(up) == 1
    told, retold = first.json(), again.json()
    paid, saved = told.pop("aigateway"), retold.pop("aigateway")
    assert told == retold
    assert saved["cost_usd"] == 0 and saved["cost_source"] == "cached" and saved["saved_usd"] == paid["cost_usd"] > 0
    assert again.headers["x-aigateway-cost-usd"] == "0"
    (row,) = up.rows(again.headers["x-request-id"])
    assert (row["cost_usd"], row["cost_source"], row["kind"], row["success"]) == (0, "cached", "chat", True)
    assert row["saved_usd"] == paid["cost_usd"] and row["requested_model"] == "kept"
    (day,) = up.gateway.http.get("/v1/spend", params={"group_by": "day"}).json()["data"]
    assert (day["calls"], day["cost_usd"], day["saved_usd"]) == (2, paid["cost_usd"], paid["cost_usd"])


def streamed_and_plain_share_an_entry(up: Stand) -> None:
    before = calls(up)
    client = openai.OpenAI(base_url=f"{up.gateway.url}/v1", api_key="x", max_retries=0)

    def streamed(text: str, **more: Any) -> tuple[str, Any, list[Any]]:
        body: Any = {
            "model": "kept",
            "messages": [{"role": "user", "content": text}],
            "stream_options": {"include_usage": True},
        }
        chunks = list(client.chat.completions.create(stream=True, **body, **more))
        choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
        calls = [call for choice in choices for call in choice.delta.tool_calls or []]
        assert choices[-1].finish_reason == ("tool_calls" if calls else "stop")
        return "".join(choice.delta.content or "" for choice in choices), chunks[-1], calls

    plain = client.chat.completions.create(model="kept", messages=[{"role": "user", "content": "plain first"}])
    text, last, _ = streamed("plain first")
    assert text == plain.choices[0].message.content and last.usage == plain.usage and last.aigateway["saved_usd"] > 0
    text, last, _ = streamed("stream first")
    plain = client.chat.completions.create(model="kept", messages=[{"role": "user", "content": "stream first"}])
    assert plain.choices[0].message.content == text and plain.usage == last.usage
    assert plain.choices[0].finish_reason == "stop" and plain.id == last.id
    wish = 'use tool weather with {"a": 1} and use tool weather with {"b": 2}'
    _, _, first = streamed(wish, tools=TOOLS)
    _, _, second = streamed(wish, tools=TOOLS)
    plain = client.chat.completions.create(model="kept", messages=[{"role": "user", "content": wish}], tools=TOOLS)  # type: ignore[arg-type]
    arguments = [json.loads(call.function.arguments) for call in plain.choices[0].message.tool_calls or []]  # type: ignore[union-attr]
    assert arguments == [{"a": 1}, {"b": 2}] and plain.choices[0].message.content is None
    assert [json.loads(call.function.arguments) for call in second] == arguments and len(
        {call.id for call in first}
    ) >= 2
    assert client.responses.create(model="kept", input="plain first").output_text == "Answer to: plain first"
    assert calls(up) == before + 3
    client.close()


def what_is_asked_decides(up: Stand) -> None:
    before = calls(up)
    assert ask(up, "same", temperature=0.5).status_code == 200
    for more in ({"temperature": 0.6}, {"max_tokens": 5}, {"seed": 1}, {"n": 2}, {"model": "brief"}):
        assert ask(up, "same", **{"temperature": 0.5, **more}).headers["x-aigateway-cache"] == "miss"
    assert ask(up, "same", temperature=0.5, max_tokens=None).headers["x-aigateway-cache"] == "hit"
    assert calls(up) == before + 6


def the_header_decides(up: Stand) -> None:
    before = calls(up)
    bare = {"model": MODELS["openai"]}
    assert "x-aigateway-cache" not in ask(up, "header", **bare).headers
    answers = [ask(up, "header", cache="10m", **bare).headers["x-aigateway-cache"] for _ in range(2)]
    assert answers == ["miss", "hit"]
    assert ask(up, "header", cache="refresh, 5m", **bare).headers["x-aigateway-cache"] == "miss"
    assert "x-aigateway-cache" not in ask(up, "header", cache="no-store", **bare).headers
    assert calls(up) == before + 4
    for bad in ("soon", "10m 5m", "-1s", ""):
        refused = ask(up, "header", cache=bad)
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "x-aigateway-cache", bad
    assert ask(up, "header", cache="refresh", **bare).status_code == 400
    assert ask(up, "header", cache="refresh").headers["x-aigateway-cache"] == "miss"


def tenants_share_nothing(up: Stand) -> None:
    made = [up.gateway.http.post("/v1/keys", json={"name": name, **more}).json()["key"]
            for name, more in (("one", {}), ("two", {}), ("narrow", {"allowed_models": ["other"]}))]  # fmt: skip
    assert [ask(up, "tenant", secret=key).headers["x-aigateway-cache"] for key in made[:2]] == ["miss", "miss"]
    assert ask(up, "tenant", secret=made[0]).headers["x-aigateway-cache"] == "hit"
    assert ask(up, "tenant", secret=made[2]).status_code == 403
    limited = up.gateway.http.post("/v1/keys", json={"name": "few", "requests_per_minute": 2}).json()["key"]
    assert [ask(up, "few", secret=limited).status_code for _ in range(3)] == [200, 200, 429]


def every_dialect(up: Stand) -> None:
    before = calls(up)
    claude = anthropic.Anthropic(base_url=up.gateway.url, api_key="x", max_retries=0)
    for dialect in ("anthropic", "openai", "ollama"):
        body: Any = {"model": MODELS[dialect], "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
        header = {"x-aigateway-cache": "1h"}
        plain = [claude.messages.create(**body, extra_headers=header).to_dict() for _ in range(2)]
        assert plain[0]["content"] == plain[1]["content"] and plain[0]["usage"] == plain[1]["usage"]
        streams: list[Any] = []
        for _ in range(2):
            with claude.messages.stream(**body, extra_headers=header) as stream:
                streams.append(
                    (stream.get_final_text(), stream.get_final_message().usage, stream.get_final_message().stop_reason)
                )
        assert streams[0] == streams[1] and streams[0][0] == "Answer to: hello"
    assert calls(up) == before + 6
    claude.close()


def failures_are_not_kept(up: Stand) -> None:
    control = up.upstreams["openai"]
    control.script(Fault("cut", after=2))
    broken = ask(up, "[words 8]", stream=True)
    assert "error" in broken.text
    assert ask(up, "[words 8]", stream=True).headers["x-aigateway-cache"] == "miss"
    control.script(*[Fault("status", status=500)] * 3)
    assert ask(up, "fails").status_code == 502
    assert ask(up, "fails").headers["x-aigateway-cache"] == "miss"


def entries_expire(up: Stand) -> None:
    answers = [ask(up, "short", model="brief").headers["x-aigateway-cache"] for _ in range(2)]
    assert answers == ["miss", "hit"]
    wait_until(lambda: ask(up, "short", model="brief").headers["x-aigateway-cache"] == "miss", "it expires", 10)
