"""`/v1/responses` as OpenAI's own client and plain HTTP see it, over each of the three upstream dialects."""

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from over_upstreams import DIALECTS, MODELS, Stand, stand
from pydantic import BaseModel
from upstreams.control import Fault

TOOLS: list[Any] = [
    {
        "type": "function",
        "name": "weather",
        "description": "The weather in a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
        "strict": False,
    }
]
PICTURE = "data:image/png;base64," + base64.b64encode(b"not really a picture").decode()


class Number(BaseModel):
    n: int


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("home")) as standing:
        yield standing


@pytest.fixture
def client(up: Stand) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{up.gateway.url}/v1", api_key="not-needed", max_retries=0) as client:
        yield client


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    return request.param


def events_of(up: Stand, **body: Any) -> list[dict[str, Any]]:
    with up.gateway.http.stream("POST", "/v1/responses", json={**body, "stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        frames = answer.read().decode().split("\n\n")
    events: list[dict[str, Any]] = []
    for frame in filter(None, frames):
        name, data = frame.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def test_plain_answer_and_its_booking(up: Stand, client: openai.OpenAI, dialect: str) -> None:
    answer = client.responses.with_raw_response.create(
        model=MODELS[dialect], instructions="Be brief.", input="good day [cached 2] [cache_write 1]", store=False
    )
    response = answer.parse()
    assert response.output_text == "Answer to: good day [cached 2] [cache_write 1]"
    assert (response.status, response.error, response.incomplete_details) == ("completed", None, None)
    assert response.instructions == "Be brief." and response.store is False  # type: ignore[attr-defined]
    (row,) = up.rows(answer.headers["x-request-id"])
    assert response.usage and response.usage.input_tokens == row["prompt_tokens"] == 8
    assert (
        response.usage.input_tokens_details.cached_tokens == row["cached_tokens"] == (0 if dialect == "ollama" else 2)
    )
    assert response.usage.output_tokens == row["completion_tokens"] == 8
    assert row["success"] and row["cost_source"] == "priced"
    assert answer.headers["x-aigateway-provider"] == dialect and "x-aigateway-dropped" not in answer.headers
    assert up.last_call(dialect)["picousd"] == round(row["cost_usd"] * 10**12)


def test_events_of_a_text_in_order(up: Stand, dialect: str) -> None:
    events = events_of(up, model=MODELS[dialect], input="one two")
    deltas = sum(event["type"] == "response.output_text.delta" for event in events)
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    *_, text_done, part_done, item_done, completed = events
    assert text == text_done["text"] == part_done["part"]["text"] == "Answer to: one two"
    assert completed["response"]["output"] == [item_done["item"]] and item_done["item"]["status"] == "completed"
    assert completed["response"]["id"] == events[0]["response"]["id"]
    assert completed["response"]["aigateway"]["cost_usd"] == pytest.approx(up.newest()["cost_usd"])
    assert len({event["item_id"] for event in events if "item_id" in event}) == 1


def test_events_of_two_calls_in_order(up: Stand, dialect: str) -> None:
    question = 'use tool weather with {"town": "A"} and use tool weather with {"town": "B"}'
    events = events_of(up, model=MODELS[dialect], input=question, tools=TOOLS)
    names = [event["type"] for event in events if not event["type"].endswith("arguments.delta")]
    one_call = ["response.output_item.added", "response.function_call_arguments.done", "response.output_item.done"]
    assert names == ["response.created", "response.in_progress", *one_call, *one_call, "response.completed"]
    for index, town in enumerate("AB"):
        mine = [event for event in events if event.get("output_index") == index]
        given = "".join(event["delta"] for event in mine if event["type"].endswith("arguments.delta"))
        assert json.loads(given) == json.loads(mine[-1]["item"]["arguments"]) == {"town": town}
        assert mine[0]["item"]["call_id"] == mine[-1]["item"]["call_id"] != mine[0]["item"]["id"]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_loop(client: openai.OpenAI, dialect: str, streamed: bool) -> None:
    question = 'use tool weather with {"town": "A"} and use tool weather with {"town": "B"}'
    items: list[Any] = [{"role": "user", "content": question}]

    def turn() -> Any:
        given: dict[str, Any] = {"model": MODELS[dialect], "input": items, "tools": TOOLS, "store": False}
        if not streamed:
            return client.responses.create(**given)
        with client.responses.stream(**given) as stream:
            return stream.get_final_response()

    response = turn()
    calls = [item for item in response.output if item.type == "function_call"]
    assert [json.loads(call.arguments) for call in calls] == [{"town": "A"}, {"town": "B"}]
    items += response.output
    parts = [{"type": "input_text", "text": "rain"}]
    for call, said in zip(calls, ("sun", parts), strict=True):
        items.append({"type": "function_call_output", "call_id": call.call_id, "output": said})
    assert turn().output_text == "The tool said: sun rain"


def test_reasoning_goes_to_and_fro(up: Stand, client: openai.OpenAI) -> None:
    for dialect in ("anthropic", "ollama"):
        given: dict[str, Any] = {"model": MODELS[dialect], "tools": TOOLS, "reasoning": {"effort": "low"}}
        items: list[Any] = [{"role": "user", "content": "[think 3] use tool weather"}]
        with client.responses.stream(input=items, **given) as stream:
            response = stream.get_final_response()
        reasoning, call = response.output
        assert reasoning.type == "reasoning" and call.type == "function_call"
        assert reasoning.summary[0].text.split() == ["thought0", "thought1", "thought2"]
        items += [*response.output, {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}]
        assert client.responses.create(input=items, **given).output_text == "The tool said: sun"
        before = up.last_call(dialect)["body"]["messages"][1]
        thought = before["content"][0]["thinking"] if dialect == "anthropic" else before["thinking"]
        assert thought.split() == ["thought0", "thought1", "thought2"]
        if dialect == "anthropic":
            assert before["content"][0]["signature"].startswith("sig-")
        elsewhere = client.responses.with_raw_response.create(input=items, **{**given, "model": MODELS["openai"]})
        assert elsewhere.headers["x-aigateway-dropped"] == "input.reasoning"


def test_structured_output(client: openai.OpenAI, dialect: str) -> None:
    parsed = client.responses.parse(model=MODELS[dialect], input="a number", text_format=Number)
    assert parsed.output_parsed == Number(n=1)
    with client.responses.stream(model=MODELS[dialect], input="a number", text_format=Number) as stream:
        assert stream.get_final_response().output_parsed == Number(n=1)


def test_the_clients_helpers_for_chat(up: Stand, client: openai.OpenAI, dialect: str) -> None:
    """What it puts together itself: parsed answers, streams with their tools, over the asynchronous client too."""
    chat, model = client.chat.completions, MODELS[dialect]
    say: list[Any] = [{"role": "user", "content": "a number"}]
    parsed = chat.parse(model=model, messages=say, response_format=Number).choices[0].message.parsed
    with chat.stream(model=model, messages=say, response_format=Number) as stream:
        assert parsed == stream.get_final_completion().choices[0].message.parsed == Number(n=1)
    tools: list[Any] = [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
        for name in ("one", "two")
    ]
    named: list[Any] = [{"type": "function", "function": {"name": "two"}}]
    choice: Any = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": named}}
    raw = chat.with_raw_response.create(model=model, messages=say, tools=tools, tool_choice=choice)
    calls = raw.parse().choices[0].message.tool_calls
    if dialect == "ollama":  # which has no word for it
        assert raw.headers["x-aigateway-dropped"] == "tool_choice" and calls is None
    else:
        assert [call.function.name for call in calls or () if call.type == "function"] == ["two"]
        with chat.stream(model=model, messages=say, tools=tools, tool_choice="required") as stream:
            told = stream.get_final_completion().choices[0].message.tool_calls
        assert told and told[0].function.arguments == "{}"

    async def main() -> str:
        async with openai.AsyncOpenAI(base_url=f"{up.gateway.url}/v1", api_key="none", max_retries=0) as other:
            stream = await other.chat.completions.create(model=model, messages=say, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(main()) == "Answer to: a number"


def test_pictures_go_along(client: openai.OpenAI, dialect: str) -> None:
    content: Any = [
        {"type": "input_text", "text": "what"},
        {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
    ]
    response = client.responses.create(model=MODELS[dialect], input=[{"role": "user", "content": content}])
    assert response.usage and response.usage.input_tokens == 86


def test_the_limit_makes_it_incomplete(up: Stand, client: openai.OpenAI, dialect: str) -> None:
    response = client.responses.create(model=MODELS[dialect], input="[words 9]", max_output_tokens=4)
    assert response.status == "incomplete" and response.usage and response.usage.output_tokens == 4
    assert response.incomplete_details and response.incomplete_details.reason == "max_output_tokens"
    last = events_of(up, model=MODELS[dialect], input="[words 9]", max_output_tokens=4)[-1]
    assert last["type"] == "response.incomplete" and last["response"]["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize("fault", ["cut", "malformed", "error_in_stream", "no_finish", "stall"])
def test_half_an_answer_is_never_a_whole_one(up: Stand, dialect: str, fault: str) -> None:
    up.upstreams[dialect].script(Fault(fault, after=2))
    last = events_of(up, model=MODELS[dialect], input="[words 6]")[-1]
    assert last["type"] == "response.failed" and last["response"]["status"] == "failed"
    assert last["response"]["error"]["code"] == "server_error" and last["response"]["error"]["message"]
    row = up.newest()
    assert not row["success"] and row["cost_source"] == "estimated"


def test_upstream_refusals_are_http_errors(up: Stand, client: openai.OpenAI, dialect: str) -> None:
    up.upstreams[dialect].script(*[Fault("status", status=429, headers={"Retry-After": "60"})] * 3)
    try:
        with pytest.raises(openai.RateLimitError):
            client.responses.create(model=MODELS[dialect], input="hello", stream=True)
    finally:
        up.upstreams[dialect].reset()


OPENAIS = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    503: openai.InternalServerError,
}


@pytest.mark.parametrize("status", OPENAIS)
def test_the_client_raises_its_own_class_for_each_status(up: Stand, status: int) -> None:
    """And asks once: what is refused for good, and what was tried to its end here, carries x-should-retry: false."""
    up.upstreams["openai"].script(Fault("status", status=status, headers={"Retry-After": "60"}))
    before = up.rows_so_far()
    with openai.OpenAI(base_url=f"{up.gateway.url}/v1", api_key="not-needed", max_retries=2) as client:
        with pytest.raises(OPENAIS[status]) as caught:
            client.responses.create(model=MODELS["openai"], input="hello")
    assert caught.value.response.headers["x-should-retry"] == "false" and up.rows_so_far() == before + 1
    error: Any = caught.value.body
    assert error.keys() == {"message", "type", "code", "param"}


def test_tokens_are_counted(up: Stand, client: openai.OpenAI, dialect: str) -> None:
    """By Anthropic; the strict OpenAI has no such route, as most servers of that dialect have none."""
    count = client.responses.input_tokens.with_raw_response.count
    counted = count(model=MODELS[dialect], input="one two three", instructions="four", tools=TOOLS)
    told, source = counted.parse(), counted.headers["x-aigateway-token-source"]
    assert told.object == "response.input_tokens"
    assert (told.input_tokens, source) == (4, "upstream") if dialect == "anthropic" else source == "estimate"
    if dialect != "ollama":  # which nobody asks
        [row] = up.rows(counted.headers["x-request-id"])
        assert (row["kind"], row["cost_usd"]) == ("count_tokens", 0)


def test_custom_tools_are_refused_where_they_cannot_be_carried(up: Stand) -> None:
    tool = {"type": "custom", "name": "patch"}
    for model in (MODELS["anthropic"], MODELS["ollama"]):
        body = {"model": model, "input": "x", "tools": [tool]}
        answer = up.gateway.http.post("/v1/responses", json=body)
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "tools", answer.text


def test_what_cannot_be_carried_is_named(up: Stand) -> None:
    body = {
        "model": MODELS["anthropic"],
        "input": [{"type": "message", "role": "user", "content": "hello"}],
        "store": True,
        "truncation": "auto",
        "include": ["file_search_call.results", "reasoning.encrypted_content"],
        "metadata": {"a": "b"},
        "prompt_cache_key": "k",
        "something_new": 1,
    }
    answer = up.gateway.http.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    named = "something_new, store, truncation, include.file_search_call.results, prompt_cache_key"
    assert answer.headers["x-aigateway-dropped"] == named
    assert answer.json()["metadata"] == {"a": "b"} and answer.json()["store"] is False


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0].role"),
        ({"stream": "yes"}, "stream"),
        ({"instructions": 5}, "instructions"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/input_tokens"])
def test_bad_bodies_name_the_field(up: Stand, path: str, change: dict[str, Any], param: str) -> None:
    client_body = {"model": MODELS["openai"], "input": "x", **change}
    before = up.rows_so_far()
    answer = up.gateway.http.post(path, json=client_body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param and answer.headers["x-should-retry"] == "false"
    assert up.rows_so_far() == before
