"""Routing as users see it: strategies, budgets that pass a target over, rests shared by processes, limits in headers, strange input."""

import http.server
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, gateway
from receiver import Receiver
from services import wait_until

CONFIG: dict[str, Any] = {
    "providers": {
        "sim": {
            "type": "simulated",
            "models": {
                "dear": {"reply": "dear", "input": 1000, "output": 2000},
                "cheap": {"reply": "cheap", "input": 1, "output": 2},
                "free": {"reply": "free"},
                "small": {"reply": "small", "context_length": 50, "tools": False, "images": False},
                "slow": {"reply": "slow", "delay": "300ms"},
                "broken": {"fail": [503] * 20},
            },
        },
        "nobody": {"type": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": "x"},
    },
    "models": {
        "by-weight": {"strategy": "weighted", "targets": [{"model": "sim/cheap", "weight": 3}, "sim/free"]},
        "fastest": {"strategy": "least_latency", "targets": ["sim/slow", "sim/free"]},
        "idlest": {"strategy": "least_busy", "targets": ["sim/slow", "sim/free"]},
        "cheapest": {"strategy": "cheapest", "targets": ["nobody/unpriced", "sim/dear", "sim/cheap"]},
        "able": {"targets": ["sim/small", "sim/free"]},
        "thrifty": {"targets": ["sim/dear", "sim/free"]},
        "flaky": {"targets": ["sim/broken", "sim/free"]},
        "unreachable": {"targets": ["ollama", "sim/free"]},
    },
    "budgets": [{"name": "tiny", "limit_usd": 0.01, "period": "day", "scope": "model", "match": "sim/dear"}],
    "webhooks": {"allow_private_networks": True},
}
WORKFLOW = """
name: thrifty
budget_usd: 0.001
steps:
  - {id: only, type: llm, model: thrifty, prompt: hello}
output: ${steps.only.output}
"""
DEEP = "[" * 5000 + "]" * 5000


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """An upstream that points somewhere else."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(307)
        self.send_header("Location", "http://127.0.0.1:9/other")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture(scope="module")
def alerts() -> Iterator[Receiver]:
    with Receiver(200).listening() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, alerts: Receiver) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("home")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    elsewhere = {"type": "openai", "base_url": f"http://127.0.0.1:{server.server_port}/v1", "api_key": "x"}
    config = {**CONFIG, "providers": {**CONFIG["providers"], "elsewhere": elsewhere}}
    config["webhooks"] = {**CONFIG["webhooks"], "alert_url": alerts.url}
    with gateway(folder, config) as installed:
        installed.serve(workers=1)
        yield installed
    server.shutdown()
    server.server_close()


def ask(home: Gateway, model: str, text: str = "hi", key: str | None = None, **more: Any) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return home.http.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"} if key else {})


def reply(home: Gateway, model: str, text: str = "hi", **more: Any) -> str:
    answer = ask(home, model, text, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def test_each_strategy_chooses_as_it_says(home: Gateway) -> None:
    drawn = Counter(reply(home, "by-weight") for _ in range(60))
    assert set(drawn) == {"cheap", "free"} and drawn["cheap"] > drawn["free"]
    assert reply(home, "cheapest") == "cheap"
    first_two = {reply(home, "fastest") for _ in range(2)}  # neither is known: each is tried
    assert first_two == {"slow", "free"}
    assert [reply(home, "fastest") for _ in range(5)] == ["free"] * 5
    answers: list[str] = []
    asking = [threading.Thread(target=lambda: answers.append(reply(home, "idlest"))) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert {"slow", "free"} == set(answers)


def test_who_cannot_take_it_is_left_out(home: Gateway) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert reply(home, "able") == "small"
    assert reply(home, "able", "word " * 100) == "free"
    assert reply(home, "able", tools=[tool]) == "free"
    seen = [{"role": "user", "content": [{"type": "text", "text": "look"}, picture]}]
    assert reply(home, "able", messages=seen) == "free"


def test_a_budget_passes_a_target_over_and_refuses_where_none_fits(home: Gateway) -> None:
    assert reply(home, "thrifty") == "free"
    alone = ask(home, "sim/dear")
    assert (alone.status_code, alone.json()["error"]["code"]) == (402, "budget_exceeded")
    assert alone.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", {"max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/messages", {"max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/embeddings", {"input": "hi " * 1000}),
        ("/v1/chat/completions", {"stream": True, "messages": [{"role": "user", "content": "hi"}]}),
    ],
)
def test_no_route_goes_past_a_budget(home: Gateway, path: str, body: dict[str, Any]) -> None:
    answer = home.http.post(path, json={"model": "sim/dear", **body})
    assert answer.status_code == 402, answer.text


def test_a_run_under_a_budget_takes_the_target_that_fits(home: Gateway) -> None:
    home.http.put("/v1/workflows/thrifty", content=WORKFLOW, headers={"content-type": "application/yaml"})
    done = home.http.post("/v1/workflow/thrifty?wait=30", json={"input": {}}).json()
    assert (done["status"], done["output"]) == ("succeeded", "free")


def test_a_target_whose_provider_cannot_be_asked_does_not_stand_in_the_way(home: Gateway) -> None:
    assert reply(home, "unreachable") == "free"
    assert ask(home, "ollama").status_code == 503


def test_who_fails_rests_and_everybody_can_see_it(home: Gateway) -> None:
    assert reply(home, "flaky") == "free"
    assert ask(home, "flaky").headers["x-aigateway-attempts"] == "1"  # the one that rests was not asked

    def resting() -> list[dict[str, Any]]:
        providers = home.http.get("/v1/providers").json()["data"]
        return next(row["resting"] for row in providers if row["id"] == "sim")

    wait_until(lambda: bool(resting()), "the rest is told", 5)
    [row] = resting()
    assert (row["model"], row["state"], row["error_class"], row["rests"]) == ("broken", "cooling", "overloaded", 1)
    gauge = 'aigateway_provider_resting{model="broken",provider="sim",state="cooling"} 1.0'
    assert gauge in home.http.get("/metrics").text
    statuses = {row["id"]: row["status"] for row in home.http.get("/v1/providers").json()["data"]}
    assert (statuses["sim"], statuses["simulated"]) == ("degraded", "healthy")


def test_a_key_sees_how_it_stands_with_its_limits(home: Gateway) -> None:
    limits = {"name": "limited", "requests_per_minute": 3, "tokens_per_minute": 100_000}
    key = home.http.post("/v1/keys", json=limits).json()["key"]
    first = ask(home, "sim/free", key=key, max_tokens=100)
    headers = first.headers
    assert headers["x-ratelimit-limit-requests"] == "3" and headers["x-ratelimit-remaining-requests"] == "2"
    assert headers["x-ratelimit-limit-tokens"] == "100000"
    assert 99_000 < int(headers["x-ratelimit-remaining-tokens"]) < 100_000
    assert headers["x-ratelimit-reset-requests"] == "1m0s"
    with home.http.stream(
        "POST",
        "/v1/chat/completions",
        json={"model": "sim/free", "stream": True, "messages": [{"role": "user", "content": "hi"}]},
        headers={"authorization": f"Bearer {key}"},
    ) as streamed:
        streamed.read()
    assert streamed.headers["x-ratelimit-remaining-requests"] == "1"
    body = {"model": "sim/free", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}
    message = home.http.post("/v1/messages", json=body, headers={"x-api-key": key})
    assert message.headers["x-ratelimit-remaining-requests"] == "0"
    refused = ask(home, "sim/free", key=key)
    assert (refused.status_code, refused.headers["x-ratelimit-remaining-requests"]) == (429, "0")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
    counted = home.http.post("/v1/messages/count_tokens", json=body, headers={"x-api-key": key})
    assert (counted.status_code, counted.json()["error"]["type"]) == (429, "rate_limit_error")
    other = home.http.post("/v1/keys", json={"name": "narrow", "allowed_models": ["sim/cheap"]}).json()["key"]
    narrow = home.http.post("/v1/messages/count_tokens", json=body, headers={"x-api-key": other})
    assert narrow.status_code == 403
    assert "x-ratelimit-limit-requests" not in ask(home, "sim/free").headers


def test_an_unknown_price_is_told_of_once_a_day(home: Gateway, alerts: Receiver) -> None:
    for _ in range(3):
        assert ask(home, "nobody/unpriced").status_code == 503

    def told() -> list[dict[str, Any]]:
        bodies = [json.loads(body) for _, body in alerts.got]
        return [body["data"] for body in bodies if body["type"] == "price.unknown"]

    wait_until(lambda: bool(told()), "the alert arrives", 15)
    [data] = [data for data in told() if data["model"] == "unpriced"]
    assert data["provider"] == "nobody" and "providers.nobody.prices" in data["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_that_points_elsewhere_is_a_failed_upstream(home: Gateway, stream: bool) -> None:
    answer = ask(home, "elsewhere/m", stream=stream)
    assert (answer.status_code, answer.json()["error"]["type"]) == (502, "server_error")
    assert answer.headers["x-aigateway-attempts"] == "1"


def test_a_body_that_is_nested_too_deeply_is_a_bad_request_on_every_route(home: Gateway) -> None:
    paths = home.http.get("/openapi.json").json()["paths"]
    tried = 0
    for path, operations in paths.items():
        for method in ("post", "put"):
            if method not in operations:
                continue
            url = path.replace("{", "").replace("}", "")
            for body in (
                DEEP,
                f'{{"model": "sim/free", "input": {DEEP}, "messages": [{{"role": "user", "content": {DEEP}}}]}}',
            ):
                answer = home.http.request(method, url, content=body, headers={"content-type": "application/json"})
                assert answer.status_code < 500, (method, url, answer.text)
                if "requestBody" in operations[method]:
                    assert answer.status_code >= 400, (method, url, answer.text)
                tried += 1
    assert tried > 30
    for depth, status in ((150, 200), (240, 400), (400, 400)):
        nested = f'{{"model": "simulated/echo", "messages": [{{"role": "user", "content": "x", "y": {"[" * depth + "]" * depth}}}]}}'
        for headers in ({}, {"idempotency-key": f"nested {depth}"}, {"x-aigateway-cache": "1m"}):
            answer = home.http.post("/v1/chat/completions", content=nested, headers=headers)
            assert answer.status_code == status, answer.text
    assert "nested too deeply" in answer.json()["error"]["message"]
