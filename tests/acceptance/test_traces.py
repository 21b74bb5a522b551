"""Traces from outside: what a real collector gets over OTLP, over all processes, and what a bad one costs, which is nothing."""

import signal
import sys
import time
from pathlib import Path
from typing import Any

from gateway import gateway
from receiver import Receiver
from upstreams.anthropic import AnthropicUpstream
from upstreams.collector import Collector, Seen
from upstreams.control import Fault
from upstreams.openai import OpenAIUpstream

DOCUMENTS = {"command": sys.executable, "args": ["-P", "-m", "mcp_bridge.documents"]}
SEARCH = {"name": "web_search", "arguments": {"query": "tea"}}
SECRET = "violet-elephant"
CLIENTS = {"trace": "ab" * 16, "span": "cd" * 8}
TRACEPARENT = f"00-{CLIENTS['trace']}-{CLIENTS['span']}-01"
CHILD = {"name": "child", "steps": [{"id": "inner", "type": "set", "value": 1}]}
ALL: dict[str, Any] = {
    "name": "all",
    "steps": [
        {"id": "ask", "type": "llm", "model": "openai/gpt-6-luna", "prompt": SECRET},
        {"id": "look", "type": "mcp_tool", "server": "documents", "tool": "web_search", "params": {"query": SECRET}},
        {"id": "call", "type": "workflow", "workflow": "child", "input": {}},
        {"id": "get", "type": "http", "method": "POST", "url": "${input.url}", "body": SECRET},
        {"id": "think", "type": "agent", "model": "sim/thinker", "prompt": SECRET, "tools": ["documents/*"]},
        {"id": "fail", "type": "llm", "model": "sim/broken", "prompt": SECRET, "retry": {"max_attempts": 2, "initial": "10ms"},
         "on_error": "continue"},
    ],
}  # fmt: skip


def config(openai: OpenAIUpstream, anthropic: AnthropicUpstream) -> dict[str, Any]:
    thinker = {"script": [{"tool_calls": [SEARCH]}, {"reply": "Tea is old."}]}
    return {
        "providers": {
            "openai": {
                "type": "openai",
                "base_url": openai.base_url,
                "api_key": openai.key,
                "prices": {"*": {"input": 1, "output": 2}},
            },
            "anthropic": {"type": "anthropic", "base_url": anthropic.base_url, "api_key": anthropic.key},
            "sim": {"type": "simulated", "models": {"thinker": thinker, "broken": {"fail": [500, 500, 500]}}},
        },
        "models": {"either": {"targets": ["anthropic/claude-sonnet-5-5", "openai/gpt-6-luna"]}},
        "mcp_servers": {"documents": DOCUMENTS},
        "webhooks": {"allow_private_networks": True},
    }


def chat(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": SECRET}], **more}


def named(spans: list[Seen], name: str) -> list[Seen]:
    return sorted((span for span in spans if span.name == name), key=lambda span: span.begin_ns)


def only(spans: list[Seen], name: str) -> Seen:
    (span,) = named(spans, name)
    return span


def test_one_trace_from_the_request_through_the_queue_to_the_provider(tmp_path: Path, redis_url: str) -> None:
    with (
        OpenAIUpstream() as openai,
        AnthropicUpstream() as anthropic,
        Collector().listening() as collector,
        Receiver(204).listening() as receiver,
        gateway(
            tmp_path / "home",
            config(openai, anthropic),
            AIGATEWAY_REDIS_URL=redis_url,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer of-the-collector",
            OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
            OTEL_BSP_SCHEDULE_DELAY="200",
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
        ) as up,
    ):
        up.start("api", "--port", str(up.port))
        up.start("worker")
        up.wait_until_up(1)
        anthropic.control.script(Fault("status", status=503, headers={"Retry-After": "3600"}))
        whole = up.http.post("/v1/chat/completions", json=chat("either"), headers={"traceparent": TRACEPARENT})
        streamed = up.http.post("/v1/chat/completions", json=chat("openai/gpt-6-luna", stream=True, temperature=0.5))
        assert whole.status_code == streamed.status_code == 200 and streamed.text.endswith("data: [DONE]\n\n")
        assert up.http.post("/v1/chat/completions", json=chat("simulated/echo", temperature=2**63)).status_code == 200
        assert up.http.put("/v1/workflows/child", json=CHILD).status_code == 201
        body = {"workflow": ALL, "input": {"url": receiver.url}, "webhook_url": receiver.url}
        told = up.http.post("/v1/runs", json=body, headers={"traceparent": TRACEPARENT[:-2] + "01"})
        run_id = told.json()["id"]
        assert up.finished(run_id)["status"] == "succeeded", up.steps(run_id)
        spans = collector.wait(lambda seen: bool(named(seen, "webhook run.succeeded") and named(seen, "step fail")[1:]))
        check_chat(spans, whole.headers["x-request-id"], openai.base_url)
        check_stream(spans, streamed.headers["x-request-id"])
        assert only(spans, "chat echo").attributes["gen_ai.request.temperature"] == 2.0**63
        check_run(spans, run_id)
        up.http.get("/health")
        up.http.get("/metrics")
        up.http.get("/dashboard")
    assert not [span for span in collector.spans if span.name.startswith("GET") and "/v1/" not in span.name]
    assert SECRET.encode() not in collector.raw, "a prompt or an answer is in a span"
    assert collector.headers["authorization"] == "Bearer of-the-collector"
    resource = collector.spans[0].resource
    assert resource["service.name"] == "aigateway" and resource["deployment.environment.name"] == "test"
    assert len({span.resource["service.instance.id"] for span in collector.spans}) in (
        2,
        3,
    )  # the API, one worker or both


def check_chat(spans: list[Seen], request_id: str, base_url: str) -> None:
    of_request = [span for span in spans if span.attributes.get("aigateway.request.id") == request_id]
    server = only(of_request, "POST /v1/chat/completions")
    assert (server.trace, server.parent, server.kind) == (CLIENTS["trace"], CLIENTS["span"], "server")
    assert server.attributes["http.route"] == "/v1/chat/completions"
    assert server.attributes["http.response.status_code"] == 200 and not server.failed
    first, second = only(of_request, "chat claude-sonnet-5-5"), only(of_request, "chat gpt-6-luna")
    assert {(span.trace, span.parent, span.kind) for span in (first, second)} == {(server.trace, server.id, "client")}
    assert server.begin_ns <= first.begin_ns < first.end_ns <= second.begin_ns < second.end_ns <= server.end_ns
    assert first.failed and first.status_message == ""
    assert first.attributes["error.type"] == "overloaded"
    assert first.attributes["http.response.status_code"] == 503
    assert first.attributes["gen_ai.provider.name"] == "anthropic"
    assert not second.failed
    port = int(base_url.split(":")[2].split("/")[0])
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-6-luna",
        "gen_ai.response.model": "gpt-6-luna",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 1,
        "gen_ai.usage.output_tokens": 3,
        "server.address": "127.0.0.1",
        "server.port": port,
        "aigateway.requested_model": "either",
        "aigateway.cost_usd": 7e-6,
        "aigateway.cost_source": "priced",
    }
    assert {name: second.attributes.get(name) for name in expected} == expected
    assert second.attributes["gen_ai.response.id"]


def check_stream(spans: list[Seen], request_id: str) -> None:
    of_request = [span for span in spans if span.attributes.get("aigateway.request.id") == request_id]
    server, call = only(of_request, "POST /v1/chat/completions"), only(of_request, "chat gpt-6-luna")
    assert server.parent == "" and server.trace != CLIENTS["trace"]
    assert (call.trace, call.parent) == (server.trace, server.id)
    told = call.attributes
    assert told["gen_ai.request.stream"] is True and told["gen_ai.request.temperature"] == 0.5
    assert told["gen_ai.response.finish_reasons"] == ["stop"] and told["gen_ai.response.model"] == "gpt-6-luna"
    assert 0 < told["gen_ai.response.time_to_first_chunk"] < 10
    assert told["gen_ai.usage.output_tokens"] == 3


def check_run(spans: list[Seen], run_id: str) -> None:
    submission = only(spans, "POST /v1/runs")
    assert (submission.trace, submission.parent) == (CLIENTS["trace"], CLIENTS["span"])
    for name in ("ask", "look", "call", "get", "think"):
        step = named(spans, f"step {name}")[0]
        assert (step.trace, step.parent, step.kind) == (submission.trace, submission.id, "internal"), step
        assert step.attributes["aigateway.run.id"] == run_id and step.attributes["aigateway.workflow"] == "all"
        assert step.attributes["aigateway.step.attempt"] == 1
    ask = only(spans, "step ask")
    assert (ask.attributes["aigateway.step.type"], ask.attributes["aigateway.step.outcome"]) == ("llm", "succeeded")
    assert [span.name for span in below(spans, ask)] == ["chat gpt-6-luna"]
    (tool,) = below(spans, only(spans, "step look"))
    assert tool.name == "execute_tool web_search" and tool.attributes["gen_ai.operation.name"] == "execute_tool"
    assert (
        tool.attributes["gen_ai.tool.name"] == "web_search" and tool.attributes["aigateway.mcp_server"] == "documents"
    )
    calling, inner = only(spans, "step call"), only(spans, "step inner")
    assert (inner.trace, inner.parent) == (submission.trace, calling.id)
    assert inner.attributes["aigateway.workflow"] == "child"
    (request,) = below(spans, only(spans, "step get"))
    assert (request.name, request.kind, request.attributes["server.address"]) == ("POST", "client", "127.0.0.1")
    turns = named(spans, "invoke_agent think")
    assert [turn.attributes["aigateway.agent.turn"] for turn in turns] == [0, 1]
    assert {(turn.trace, turn.parent) for turn in turns} == {(submission.trace, submission.id)}
    assert [[span.name for span in below(spans, turn)] for turn in turns] == [["chat thinker"], ["chat thinker"]]
    (used,) = below(spans, only(spans, "step think[0].web_search"))
    assert used.name == "execute_tool web_search"
    tries = named(spans, "step fail")
    assert [one.attributes["aigateway.step.attempt"] for one in tries] == [1, 2]
    assert all(one.failed and one.attributes["error.type"] == "server_error" for one in tries)
    webhook = only(spans, "webhook run.succeeded")
    assert (webhook.trace, webhook.parent, webhook.kind) == (submission.trace, submission.id, "client")
    assert webhook.attributes["http.response.status_code"] == 204 and not webhook.failed


def below(spans: list[Seen], parent: Seen) -> list[Seen]:
    return [span for span in spans if span.parent == parent.id and span.trace == parent.trace]


def test_a_collector_that_never_answers_delays_nobody_and_holds_up_no_end(tmp_path: Path) -> None:
    with (
        Collector(hangs=True).listening() as collector,
        gateway(
            tmp_path / "home",
            {},
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="50",
            OTEL_BSP_MAX_QUEUE_SIZE="8",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="4",
        ) as up,
    ):
        up.serve()
        began = time.monotonic()
        for _ in range(20):  # more than the queue holds
            assert up.http.post("/v1/chat/completions", json=chat("simulated/echo")).status_code == 200
        assert up.finished(up.submit(CHILD, {}))["status"] == "succeeded"
        assert time.monotonic() - began < 8
        began = time.monotonic()
        up.processes[0].send_signal(signal.SIGTERM)
        assert up.processes[0].wait(30) == 0
        assert time.monotonic() - began < 10
        assert "Traceback" not in up.logs()


def test_where_the_packages_are_missing_one_line_says_so_and_the_work_goes_on(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(WITHOUT_PACKAGES)
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "PYTHONPATH": str(blocked)}
    with gateway(tmp_path / "home", {}, **told) as up:
        up.serve(workers=0)
        assert up.http.post("/v1/chat/completions", json=chat("simulated/echo")).status_code == 200
        assert up.logs().count("pip install 'aigateway[otel]'") == 1


WITHOUT_PACKAGES = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "opentelemetry.sdk" or name.startswith("opentelemetry.exporter"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""
