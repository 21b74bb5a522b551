"""`Idempotency-Key` on the hot routes: the same answer again, one upstream call, over several processes and both databases."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from gateway import Gateway, gateway
from services import wait_until
from upstreams.control import Fault
from upstreams.openai import OpenAIUpstream

MODEL = "up/gpt-6-luna"


@dataclass
class Stand:
    """Two gateways on one database, over one upstream."""

    first: Gateway
    second: Gateway
    upstream: OpenAIUpstream

    def calls(self) -> int:
        return self.upstream.control.count()


@pytest.fixture
def up(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with OpenAIUpstream() as upstream:
        provider = {"type": "openai", "base_url": upstream.base_url, "api_key": upstream.key}
        config = {"database_url": database_url, "providers": {"up": provider}, "log": {"level": "warning"}}
        folders = [tmp_path_factory.mktemp("home") for _ in range(2)]
        with gateway(folders[0], config) as first, gateway(folders[1], config) as second:
            first.serve(workers=1)
            second.serve(workers=0)
            yield Stand(first, second, upstream)


def say(text: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}


def post(
    up: Gateway, body: dict[str, Any], key: str, path: str = "/v1/chat/completions", **headers: str
) -> httpx2.Response:
    return up.http.post(path, json=body, headers={"idempotency-key": key, **headers})


def test_the_same_key_and_body_are_one_call(up: Stand) -> None:
    """One start of two gateways serves all of it; the last part kills one."""
    first = post(up.first, say("once"), "a")
    again = post(up.second, dict(reversed(say("once").items())), "a")
    assert first.status_code == again.status_code == 200 and first.content == again.content
    assert "x-aigateway-replayed" not in first.headers and again.headers["x-aigateway-replayed"] == "true"
    assert again.headers["x-aigateway-cost-usd"] == "0"
    assert (
        again.headers["x-aigateway-original-request-id"]
        == first.headers["x-request-id"]
        != again.headers["x-request-id"]
    )
    assert up.calls() == 1
    other = post(up.second, say("twice"), "a")
    assert other.status_code == 409 and other.json()["error"]["code"] == "idempotency_key_reused"
    assert other.json()["error"]["param"] == "Idempotency-Key" and other.headers["x-should-retry"] == "false"
    assert post(up.first, say("once"), "b").status_code == 200 and up.calls() == 2
    for bad in ("", "x" * 256):
        assert post(up.first, say("once"), bad).json()["error"]["param"] == "Idempotency-Key"
    streamed_and_all_dialects(up)
    keys_do_not_share(up)
    failures_are_not_pinned(up)
    it_waits_for_the_first(up)
    a_client_that_leaves_comes_back_for_its_answer(up)
    a_workflow_is_run_once(up)
    an_answer_that_is_too_large_is_not_paid_for_twice(up)
    the_claim_of_a_killed_process_is_taken_over(up)


def streamed_and_all_dialects(up: Stand) -> None:
    before = up.calls()
    clients = [openai.OpenAI(base_url=f"{one.url}/v1", api_key="x", max_retries=0) for one in (up.first, up.second)]
    key = {"extra_headers": {"Idempotency-Key": "stream"}}
    texts: list[str] = []
    for client in clients:
        body: Any = say("[words 12]", stream=True, stream_options={"include_usage": True})
        chunks = list(client.chat.completions.create(**body, **key))
        assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 12
        texts.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]))
    assert texts[0] == texts[1] != "" and up.calls() == before + 1
    anthropics = [anthropic.Anthropic(base_url=one.url, api_key="x", max_retries=0) for one in (up.first, up.second)]
    for claude in anthropics:
        body = {**say("hello"), "max_tokens": 50, "extra_headers": {"Idempotency-Key": "messages"}}
        with claude.messages.stream(**body) as stream:
            assert stream.get_final_text() == "Answer to: hello"
    for client in clients:
        answer = client.responses.create(model=MODEL, input="hi", extra_headers={"Idempotency-Key": "responses"})
        assert answer.output_text == "Answer to: hi"
        vectors = client.embeddings.create(
            model="up/text-embedding-3-small", input="hi", extra_headers={"Idempotency-Key": "vectors"}
        )
        assert vectors.data
    assert up.calls() == before + 4
    reused = post(up.first, {"model": MODEL, "max_tokens": 5, "messages": []}, "messages", "/v1/messages")
    assert reused.status_code in (400, 409) and reused.json()["type"] == "error"
    for one in (*clients, *anthropics):
        one.close()


def keys_do_not_share(up: Stand) -> None:
    before = up.calls()
    secrets = [up.first.http.post("/v1/keys", json={"name": name}).json()["key"] for name in ("one", "two")]
    for secret in secrets:
        answer = post(up.first, say("private"), "mine", authorization=f"Bearer {secret}")
        assert answer.status_code == 200 and "x-aigateway-replayed" not in answer.headers
    assert post(up.first, say("other"), "mine").status_code == 200
    assert up.calls() == before + 3


def failures_are_not_pinned(up: Stand) -> None:
    control = up.upstream.control
    control.script(*[Fault("status", status=500)] * 3)
    assert post(up.first, say("shaky"), "shaky").status_code == 502
    assert post(up.first, say("shaky"), "shaky").status_code == 200
    control.script(Fault("cut", after=2))
    broken = post(up.first, say("[words 9]", stream=True), "cut")
    assert broken.status_code == 200 and "error" in broken.text and "[DONE]" not in broken.text
    whole = post(up.second, say("[words 9]", stream=True), "cut")
    assert "x-aigateway-replayed" not in whole.headers and whole.text.endswith("data: [DONE]\n\n")
    control.script(Fault("status", status=422, message="no such thing"))
    before = up.calls()
    refused = [post(one, say("refused"), "refused") for one in (up.first, up.second)]
    assert [answer.status_code for answer in refused] == [422, 422] and up.calls() == before + 1
    assert post(up.first, {**say("x"), "model": "nothing"}, "unknown").status_code == 404
    assert post(up.first, say("x"), "unknown").status_code == 200  # nobody was asked: the key is still free


def it_waits_for_the_first(up: Stand) -> None:
    before = up.calls()
    up.upstream.control.script(Fault("delay", delay_s=1.0))
    answers: list[httpx2.Response] = []

    def ask(where: Gateway) -> None:
        headers = {"idempotency-key": "together"}
        answers.append(
            httpx2.post(
                f"{where.url}/v1/chat/completions", json=say("slow"), headers=headers, timeout=30, trust_env=False
            )
        )

    threads = [threading.Thread(target=ask, args=(where,)) for where in (up.first, up.second) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {answer.status_code for answer in answers} == {200} and len({answer.content for answer in answers}) == 1
    assert up.calls() == before + 1
    assert len([answer for answer in answers if "x-aigateway-replayed" not in answer.headers]) == 1


def a_client_that_leaves_comes_back_for_its_answer(up: Stand) -> None:
    before = up.calls()
    up.upstream.control.script(Fault("delay", delay_s=0.7))
    headers = {"idempotency-key": "impatient"}
    with pytest.raises(httpx2.TimeoutException):
        up.first.http.post("/v1/chat/completions", json=say("later"), headers=headers, timeout=0.3)
    assert post(up.second, say("later"), "impatient").headers["x-aigateway-replayed"] == "true"
    assert up.calls() == before + 1


def a_workflow_is_run_once(up: Stand) -> None:
    flow = {"name": "hold", "steps": [{"id": "hold", "type": "wait", "signal": "go"}]}
    assert up.first.http.put("/v1/workflows/hold", json=flow).status_code == 201
    body = {"model": "workflow/hold", "messages": [{"role": "user", "content": "x"}]}
    late = post(up.first, body, "run", **{"x-stainless-read-timeout": "1"})
    assert late.status_code == 504
    run_id = late.headers["x-aigateway-run-id"]
    up.first.http.post(f"/v1/runs/{run_id}/signals/go", json="done")
    done = post(up.second, body, "run")
    assert done.json()["choices"][0]["message"]["content"] == "done"
    assert done.headers["x-aigateway-run-id"] == run_id


def an_answer_that_is_too_large_is_not_paid_for_twice(up: Stand) -> None:
    body = {**say("x" * (5 * 1024 * 1024)), "model": "simulated/echo"}
    first, again = post(up.first, body, "large"), post(up.second, body, "large")
    assert first.status_code == 200 and len(first.content) > 5 * 1024 * 1024
    assert again.status_code == 409 and again.json()["error"]["code"] == "answer_not_kept"
    assert first.headers["x-request-id"] in again.json()["error"]["message"]


def the_claim_of_a_killed_process_is_taken_over(up: Stand) -> None:
    before = up.calls()
    up.upstream.control.script(Fault("hang"))
    threading.Thread(target=lambda: _quietly(up.second), daemon=True).start()
    up.upstream.control.wait(lambda control: control.count() == before + 1)
    up.second.processes[-1].kill()
    begun = time.monotonic()
    answer = post(up.first, say("mortal"), "mortal")
    assert answer.status_code == 200 and time.monotonic() - begun < 10
    wait_until(lambda: "unknown" in _states(up.first), "the lost call is booked", 15)


def _quietly(where: Gateway) -> None:
    with pytest.raises(httpx2.HTTPError):
        post(where, say("mortal"), "mortal")


def _states(up: Gateway) -> list[str]:
    return [row["status"] for row in up.http.get("/v1/requests").json()["data"]]
