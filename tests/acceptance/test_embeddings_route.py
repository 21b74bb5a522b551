"""`/v1/embeddings` as OpenAI's own client and plain HTTP see it."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from over_upstreams import Stand, stand
from upstreams.control import Fault

OPENAI, OLLAMA = "openai/text-embedding-3-small", "ollama/llama3.2:1b"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("home")) as standing:
        yield standing


@pytest.fixture
def client(up: Stand) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{up.gateway.url}/v1", api_key="not-needed", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("model", [OPENAI, OLLAMA, "simulated/echo"])
def test_floats_and_base64_are_the_same_vectors(client: openai.OpenAI, model: str) -> None:
    texts = ["one two", "three"]
    packed = client.embeddings.create(model=model, input=texts)  # the client asks for base64 by itself
    plain = client.embeddings.create(model=model, input=texts, encoding_format="float")
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6) and len(one.embedding) == 8
    assert packed.data[0].embedding != packed.data[1].embedding and [row.index for row in packed.data] == [0, 1]
    assert packed.usage.prompt_tokens == packed.usage.total_tokens == 3
    assert len(client.embeddings.create(model=model, input="x", dimensions=4).data[0].embedding) == 4


def test_it_is_booked(up: Stand, client: openai.OpenAI) -> None:
    answer = client.embeddings.with_raw_response.create(model=OPENAI, input="one two three", user="u")
    (row,) = up.rows(answer.headers["x-request-id"])
    assert (row["kind"], row["prompt_tokens"], row["completion_tokens"]) == ("embeddings", 3, 0)
    assert row["success"] and row["cost_source"] == "priced" and row["cost_usd"] == pytest.approx(3e-6)
    assert answer.headers["x-aigateway-cost-usd"] == "0.000003"
    assert answer.headers["x-aigateway-provider"] == "openai" and answer.headers["x-aigateway-attempts"] == "1"
    assert up.last_call("openai")["body"]["user"] == "u"
    assert answer.parse().aigateway["cost_usd"] == row["cost_usd"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("given", [[5, 6, 7], [[5, 6], [7]]])
def test_token_lists_go_to_who_takes_them(up: Stand, client: openai.OpenAI, given: Any) -> None:
    assert client.embeddings.create(model=OPENAI, input=given).usage.prompt_tokens == 3
    assert up.last_call("openai")["body"]["input"] == given
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model=OLLAMA, input=given)


def test_a_null_is_not_passed_on(up: Stand) -> None:
    body = {"model": OPENAI, "input": "x", "encoding_format": None, "dimensions": None}
    assert up.gateway.http.post("/v1/embeddings", json=body).status_code == 200
    assert up.last_call("openai")["body"] == {"model": "text-embedding-3-small", "input": "x"}


def test_failures_are_retried_and_booked(up: Stand, client: openai.OpenAI) -> None:
    up.upstreams["openai"].script(Fault("status", status=500))
    answer = client.embeddings.with_raw_response.create(model=OPENAI, input="x")
    assert answer.headers["x-aigateway-attempts"] == "2"
    assert [row["success"] for row in up.rows(answer.headers["x-request-id"])] == [False, True]
    up.upstreams["openai"].script(Fault("status", status=400, message="Not today", code="why"))
    with pytest.raises(openai.BadRequestError, match="Not today"):
        client.embeddings.create(model=OPENAI, input="x")


def test_anthropic_has_none(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no embeddings") as caught:
        client.embeddings.create(model="anthropic/claude-sonnet-5-5", input="x")
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [[1], "a"]}, "input"),
        ({"input": [True]}, "input"),
        ({"input": {"a": 1}}, "input"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"encoding_format": ["float"]}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": "8"}, "dimensions"),
    ],
)
def test_bad_bodies_name_the_field(up: Stand, change: dict[str, Any], param: str) -> None:
    before = up.rows_so_far()
    answer = up.gateway.http.post("/v1/embeddings", json={"model": OPENAI, "input": "x", **change})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param and answer.headers["x-should-retry"] == "false"
    assert up.rows_so_far() == before
