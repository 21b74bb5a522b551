"""`/v1/messages` as Anthropic's own client and plain HTTP see it, over each of the three upstream dialects."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from over_upstreams import DIALECTS, MODELS, Stand, stand
from upstreams.control import Fault

TOOLS: list[Any] = [
    {
        "name": "weather",
        "description": "The weather in a town.",
        "input_schema": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    }
]
PICTURE = base64.b64encode(b"not really a picture").decode()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("home")) as standing:
        yield standing


@pytest.fixture
def client(up: Stand) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=up.gateway.url, api_key="not-needed", max_retries=0) as client:
        yield client


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    return request.param


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {"max_tokens": 100, "messages": [{"role": "user", "content": text}], **more}


def events_of(up: Stand, body: dict[str, Any], **headers: str) -> list[tuple[str, dict[str, Any]]]:
    with up.gateway.http.stream("POST", "/v1/messages", json={**body, "stream": True}, headers=headers) as answer:
        frames = answer.read().decode().split("\n\n")
    pairs = [frame.split("\n") for frame in frames if frame]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]


def test_plain_answer_and_its_booking(up: Stand, client: anthropic.Anthropic, dialect: str) -> None:
    answer = client.messages.with_raw_response.create(
        model=MODELS[dialect], system="Be brief.", **ask("good day [cached 2] [cache_write 1]")
    )
    message = answer.parse()
    assert [block.type for block in message.content] == ["text"]
    assert message.content[0].text == "Answer to: good day [cached 2] [cache_write 1]"  # type: ignore[union-attr]
    assert (message.type, message.role, message.stop_reason) == ("message", "assistant", "end_turn")
    (row,) = up.rows(answer.headers["x-request-id"])
    cached = {"ollama": (0, 0)}.get(dialect, (2, 1))
    usage = message.usage
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == cached
    assert usage.input_tokens + sum(cached) == row["prompt_tokens"] == 8
    assert usage.output_tokens == row["completion_tokens"] == 8
    assert row["kind"] == "chat" and row["success"] and row["cost_source"] == "priced"
    assert float(answer.headers["x-aigateway-cost-usd"]) == pytest.approx(row["cost_usd"])
    assert answer.headers["x-aigateway-provider"] == dialect and answer.headers["x-aigateway-attempts"] == "1"
    assert message._request_id == answer.headers["x-request-id"]
    assert up.last_call(dialect)["picousd"] == round(row["cost_usd"] * 10**12)


def test_streamed_answer_and_its_booking(up: Stand, client: anthropic.Anthropic, dialect: str) -> None:
    with client.messages.stream(model=MODELS[dialect], **ask("one two three [cached 2]")) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == "Answer to: one two three [cached 2]"
    assert message.stop_reason == "end_turn"
    row = up.newest()
    assert row["streamed"] and row["success"] and row["completion_tokens"] == message.usage.output_tokens == 7
    read = message.usage.cache_read_input_tokens or 0
    assert message.usage.input_tokens + read == row["prompt_tokens"] == 5
    assert read == row["cached_tokens"] == (0 if dialect == "ollama" else 2)


def test_events_come_in_order(up: Stand, dialect: str) -> None:
    events = events_of(up, {"model": MODELS[dialect], **ask('use tool weather with {"town": "A"}'), "tools": TOOLS})
    names = [name for name, _ in events]
    assert all(name == data["type"] for name, data in events)
    names = [name for name in names if name != "ping"]
    deltas = names.count("content_block_delta")
    assert names == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * deltas,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    told = dict(events)
    assert told["message_start"]["message"]["content"] == []
    assert told["content_block_start"]["content_block"]["type"] == "tool_use"
    assert told["message_delta"]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert told["message_stop"]["aigateway"]["cost_usd"] > 0
    given = "".join(d["delta"]["partial_json"] for n, d in events if n == "content_block_delta")
    assert json.loads(given) == {"town": "A"}


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_loop(up: Stand, client: anthropic.Anthropic, dialect: str, streamed: bool) -> None:
    question = 'use tool weather with {"town": "A"} and use tool weather with {"town": "B"}'
    messages: list[Any] = [{"role": "user", "content": question}]

    def turn() -> Any:
        given: dict[str, Any] = {"model": MODELS[dialect], "max_tokens": 100, "messages": messages, "tools": TOOLS}
        if not streamed:
            return client.messages.create(**given)
        with client.messages.stream(**given) as stream:
            return stream.get_final_message()

    message = turn()
    assert message.stop_reason == "tool_use"
    calls = [block for block in message.content if block.type == "tool_use"]
    assert [(call.name, call.input) for call in calls] == [("weather", {"town": "A"}), ("weather", {"town": "B"})]
    results = [
        {"type": "tool_result", "tool_use_id": calls[0].id, "content": "sunny"},
        {
            "type": "tool_result",
            "tool_use_id": calls[1].id,
            "content": [{"type": "text", "text": "no such town"}],
            "is_error": True,
        },
    ]
    messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
    last = turn()
    said = "no such town" if dialect == "anthropic" else "Error: no such town"
    assert last.content[0].text == f"The tool said: sunny {said}"
    assert last.stop_reason == "end_turn"


def test_thinking_goes_to_and_fro(up: Stand, client: anthropic.Anthropic) -> None:
    for dialect in ("anthropic", "ollama"):
        given: dict[str, Any] = {
            "model": MODELS[dialect],
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            **ask("[think 3] use tool weather", tools=TOOLS),
        }
        with client.messages.stream(**given) as stream:
            message = stream.get_final_message()
        thought, call = message.content
        assert thought.type == "thinking" and thought.thinking.split() == ["thought0", "thought1", "thought2"]
        assert bool(thought.signature) == (dialect == "anthropic")
        given["messages"] = [
            *given["messages"],
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sun"}]},  # type: ignore[union-attr]
        ]
        assert client.messages.create(**given).content[-1].text == "The tool said: sun"  # type: ignore[union-attr]
        kept = up.last_call(dialect)["body"]["messages"][1]
        assert kept["content"][0]["signature"] == thought.signature if dialect == "anthropic" else kept["thinking"]
    # A conversation that began elsewhere goes on at Anthropic, without what only the other could have signed.
    answer = client.messages.with_raw_response.create(**{**given, "model": MODELS["anthropic"]})
    assert answer.headers["x-aigateway-dropped"] == "thinking"


def test_pictures_and_documents(up: Stand, client: anthropic.Anthropic, dialect: str) -> None:
    source: Any = {"type": "base64", "media_type": "image/png", "data": PICTURE}
    content: Any = [
        {"type": "text", "text": "what"},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "some words here"}},
        {"type": "image", "source": source},
    ]
    if dialect == "anthropic":
        content.pop(1)  # its stand-in knows no documents of plain text
    message = client.messages.create(
        model=MODELS[dialect], max_tokens=50, messages=[{"role": "user", "content": content}]
    )
    assert message.usage.input_tokens == 86 + (0 if dialect == "anthropic" else 3)


def test_native_bodies_are_passed_on_as_they_are(up: Stand) -> None:
    body = {
        "stop_sequences": ["zzz"],
        "model": MODELS["anthropic"],
        "metadata": {"user_id": "u"},
        "max_tokens": 9,
        "system": [{"type": "text", "text": "long", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "top_k": 3,
        "messages": [{"role": "user", "content": "hello"}],
    }
    answer = up.gateway.http.post("/v1/messages", json=body, headers={"x-api-key": "x", "anthropic-beta": "some-beta"})
    assert answer.status_code == 200, answer.text
    call = up.last_call("anthropic")
    assert call["body"] == {**body, "model": "claude-sonnet-5-5"} and list(call["body"]) == list(body)
    assert call["headers"]["anthropic-version"] == "2023-06-01" and call["headers"]["anthropic-beta"] == "some-beta"
    assert call["headers"]["x-api-key"] == "test-key" and "Authorization" not in call["headers"]
    assert "x-aigateway-dropped" not in answer.headers
    assert answer.json()["id"] == f"msg_{call['number']}"


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
def test_versions_are_passed_on(up: Stand, version: str) -> None:
    body = {"model": MODELS["anthropic"], **ask("hello")}
    answer = up.gateway.http.post(
        "/v1/messages", json=body, headers={"authorization": "Bearer x", "anthropic-version": version}
    )
    assert answer.status_code == 200 and up.last_call("anthropic")["headers"]["anthropic-version"] == version


def test_what_cannot_be_carried_is_named(up: Stand) -> None:
    body = ask("hello", top_k=3, service_tier="standard_only", inference_geo="eu", metadata={"user_id": "u"})
    body["system"] = [{"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}]
    answer = up.gateway.http.post("/v1/messages", json={"model": MODELS["openai"], **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-aigateway-dropped"] == "inference_geo, cache_control, top_k, service_tier"
    assert up.last_call("openai")["body"]["user"] == "u"
    with up.gateway.http.stream(
        "POST", "/v1/messages", json={"model": MODELS["ollama"], **body, "stream": True}
    ) as live:
        live.read()
        assert live.headers["x-aigateway-dropped"] == "inference_geo, cache_control, service_tier"
    assert up.last_call("ollama")["body"]["options"]["top_k"] == 3


def test_structured_output(client: anthropic.Anthropic, dialect: str) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    message = client.messages.create(
        model=MODELS[dialect], output_config={"format": {"type": "json_schema", "schema": schema}}, **ask("a number")
    )
    assert json.loads(message.content[0].text) == {"n": 1}  # type: ignore[union-attr]


def test_the_limit_is_a_stop_reason(client: anthropic.Anthropic, dialect: str) -> None:
    message = client.messages.create(model=MODELS[dialect], **ask("[words 9]", max_tokens=4))
    assert message.stop_reason == "max_tokens" and message.usage.output_tokens == 4


def test_models_are_listed_as_anthropics_client_reads_them(up: Stand, client: anthropic.Anthropic) -> None:
    listed = list(client.models.list(limit=3))  # page by page
    assert {"either", "openai/gpt-6-luna", "anthropic/claude-sonnet-5-5"} < {model.id for model in listed}
    assert len(listed) > 3 and len({model.id for model in listed}) == len(listed)
    one = client.models.retrieve("openai/gpt-6-luna")
    assert (one.type, one.display_name, one.lifecycle, one.created_at.year) == (
        "model",
        "openai/gpt-6-luna",
        "active",
        2025,
    )
    assert up.gateway.http.get("/v1/models", params={"after_id": "none"}).json()["error"]["param"] == "after_id"


def test_tokens_are_counted(up: Stand, client: anthropic.Anthropic) -> None:
    messages: Any = [{"role": "user", "content": "one two three"}]
    before = up.rows_so_far()
    counted = client.messages.with_raw_response.count_tokens(model=MODELS["anthropic"], messages=messages, tools=TOOLS)
    assert counted.parse().input_tokens == 3 and counted.headers["x-aigateway-token-source"] == "upstream"
    guessed = client.messages.with_raw_response.count_tokens(model=MODELS["openai"], messages=messages)
    assert guessed.parse().input_tokens > 3 and guessed.headers["x-aigateway-token-source"] == "estimate"
    [row] = up.rows(counted.headers["request-id"])
    assert (row["kind"], row["cost_source"], row["cost_usd"], row["success"]) == ("count_tokens", "free", 0, True)
    assert up.rows_so_far() == before + 1  # what is estimated here calls nobody


@pytest.mark.parametrize(("kind", "status"), [("rate_limit_error", 429), ("overloaded_error", 503), ("api_error", 502)])
def test_upstream_failures_keep_the_shape(
    up: Stand, client: anthropic.Anthropic, dialect: str, kind: str, status: int
) -> None:
    sent = {429: 429, 503: 529 if dialect == "anthropic" else 503, 502: 500}[status]
    up.upstreams[dialect].script(*[Fault("status", status=sent, headers={"Retry-After": "60"})] * 3)
    try:
        with pytest.raises(anthropic.APIStatusError) as caught:
            client.messages.create(model=MODELS[dialect], **ask("hello"))
    finally:
        up.upstreams[dialect].reset()
    body: Any = caught.value.body
    assert caught.value.status_code == status and body["type"] == "error" and body["error"]["type"] == kind
    assert body["request_id"] == caught.value.response.headers["x-request-id"]
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert not any(row["success"] for row in up.rows(body["request_id"]))


@pytest.mark.parametrize("fault", ["cut", "malformed", "error_in_stream", "no_finish", "stall"])
def test_half_an_answer_is_never_a_whole_one(up: Stand, client: anthropic.Anthropic, dialect: str, fault: str) -> None:
    up.upstreams[dialect].script(Fault(fault, after=8, status=529, message="Too busy.", type="overloaded_error"))
    with pytest.raises(anthropic.APIStatusError) as caught:
        with client.messages.stream(model=MODELS[dialect], **ask("[words 12]")) as stream:
            for _ in stream:
                pass
    body: Any = caught.value.body
    assert body["type"] == "error" and body["error"]["message"]
    row = up.newest()
    assert not row["success"] and row["cost_source"] == "estimated" and row["completion_tokens"] >= 5
    up.upstreams[dialect].script(Fault(fault, after=8))
    names = [name for name, _ in events_of(up, {"model": MODELS[dialect], **ask("[words 12]")})]
    assert names[-1] == "error" and "message_stop" not in names


def test_a_stream_without_its_last_word_is_whole(up: Stand, client: anthropic.Anthropic) -> None:
    up.upstreams["anthropic"].script(Fault("no_done"))
    with client.messages.stream(model=MODELS["anthropic"], **ask("hello")) as stream:
        assert stream.get_final_message().stop_reason == "end_turn"
    up.upstreams["openai"].script(Fault("no_usage"))
    with client.messages.stream(model=MODELS["openai"], **ask("hello")) as stream:
        assert stream.get_final_message().usage.output_tokens > 0


def test_failover_crosses_dialects(up: Stand, client: anthropic.Anthropic) -> None:
    up.upstreams["anthropic"].script(*[Fault("status", status=529)] * 3)
    try:
        answer = client.messages.with_raw_response.create(model="either", **ask("hello", system="s"))
    finally:
        up.upstreams["anthropic"].reset()
    assert answer.parse().content[0].text == "Answer to: hello"  # type: ignore[union-attr]
    assert answer.headers["x-aigateway-provider"] == "openai" and int(answer.headers["x-aigateway-attempts"]) > 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages.0"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"stream": "yes"}, "stream"),
        ({"tools": {}}, "tools"),
        ({"system": 5}, "system"),
    ],
)
def test_bad_bodies_name_the_field(up: Stand, change: dict[str, Any], named: str) -> None:
    before = up.rows_so_far()
    answer = up.gateway.http.post("/v1/messages", json={"model": MODELS["openai"], **ask("x"), **change})
    assert answer.status_code == 400, answer.text
    body = answer.json()
    assert body.keys() == {"type", "error", "request_id"} and body["error"]["type"] == "invalid_request_error"
    assert body["error"]["message"].startswith(f"{named}: ")
    assert answer.headers["x-should-retry"] == "false" and answer.headers["request-id"] == body["request_id"]
    assert up.rows_so_far() == before


def test_other_refusals_keep_the_shape(up: Stand) -> None:
    http = up.gateway.http
    unknown = http.post("/v1/messages", json={"model": "nothing", **ask("x")})
    assert unknown.status_code == 404 and unknown.json()["error"]["type"] == "not_found_error"
    broken = http.post("/v1/messages", content=b"{")
    assert broken.status_code == 400 and broken.json()["error"]["type"] == "invalid_request_error"
    method = http.get("/v1/messages")
    assert method.status_code == 405 and method.json()["type"] == "error"
    version = http.post("/v1/messages", json={"model": "x", **ask("x")}, headers={"anthropic-version": "1999-01-01"})
    assert version.status_code == 400 and "2026-10-21" in version.json()["error"]["message"]
    server_tool = {"model": MODELS["openai"], **ask("x", tools=[{"type": "web_search_20250305", "name": "web_search"}])}
    refused = http.post("/v1/messages", json=server_tool)
    assert refused.status_code == 400 and refused.json()["error"]["message"].startswith("tools.0: ")


def test_the_bill_equals_the_ledger(up: Stand, client: anthropic.Anthropic) -> None:
    for control in up.upstreams.values():
        control.reset()
    before = up.rows_so_far()
    for dialect in DIALECTS:
        client.messages.create(
            model=MODELS[dialect], **ask("[cached 1] [cache_write 2] [cache_write_1h 3] [think 2] words and more words")
        )
        with client.messages.stream(model=MODELS[dialect], **ask("[cached 3] [words 8]")) as stream:
            stream.until_done()
    rows = up.gateway.http.get("/v1/requests", params={"limit": 6}).json()["data"]
    hours = {row["provider"]: row["cache_write_1h_tokens"] for row in rows if not row["streamed"]}
    assert hours == {"anthropic": 3, "openai": 0, "ollama": 0}
    assert up.rows_so_far() == before + 6 and all(row["cost_source"] == "priced" for row in rows)
    assert sum(round(row["cost_usd"] * 10**12) for row in rows) == up.billed()
