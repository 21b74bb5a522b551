"""Whether traces are sent, what becomes of spans on the way, and what a bad collector costs, without processes."""

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from services import free_port
from upstreams.collector import Collector

import aigateway.tracing
from aigateway.doctor import Finding, examine
from aigateway.otel import OtelTracer
from aigateway.settings import load_settings
from aigateway.tracing import ENDPOINT, check_tracing, collector, make_tracer
from engine.tracing import Work, context_of_run, trace_id

PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"
RUN: dict[str, Any] = {"id": "01a2038e-2062-7e87-b667-1d266044beba", "trace_context": None}
UNSENT = 'import aigateway.serving, aigateway.worker_process, sys; print(*(set(sys.modules) & {"opentelemetry.sdk", "google.protobuf", "requests"}))'


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The library's loggers as they were."""
    yield
    for name in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal"):
        logging.getLogger(name).filters.clear()


@pytest.fixture
def receiving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector().listening() as receiving:
        monkeypatch.setenv(ENDPOINT, receiving.url)
        yield receiving


def test_the_library_is_not_loaded_where_no_traces_are_asked_for() -> None:
    done = subprocess.run([sys.executable, "-P", "-c", UNSENT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "" == done.stderr
    assert make_tracer({}) is None


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({}, None),
        ({ENDPOINT: ""}, None),
        ({ENDPOINT: "http://c:4318"}, "http://c:4318"),
        ({ENDPOINT: "http://c:4318", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x"}, "http://t/x"),
        ({ENDPOINT: "http://c:4318", "OTEL_SDK_DISABLED": "TRUE"}, None),
        ({ENDPOINT: "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_where_traces_go(environ: dict[str, str], address: str | None) -> None:
    assert collector(environ) == address


def test_what_keeps_traces_from_being_sent_as_asked_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {ENDPOINT: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    check_tracing(told)
    assert "grpc is not spoken here" in capsys.readouterr().out
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    assert make_tracer(told) is None
    assert "cannot be used: max_export_batch_size" in capsys.readouterr().out
    monkeypatch.setattr(aigateway.tracing, "is_installed", lambda: False)
    check_tracing(told)
    assert make_tracer(told) is None
    assert "pip install 'aigateway[otel]'" in capsys.readouterr().out


def test_spans_of_several_processes_are_one_trace(receiving: Collector) -> None:
    api, worker = OtelTracer("1"), OtelTracer("1")
    request = api.start("POST", "server", PARENT, {"a": 1, "none": None})
    step = worker.start("step a", "internal", context_of_run(RUN | {"trace_context": request.context}), {})
    assert len(request.context) == 55 and trace_id(step) == "ab" * 16
    request.end({"b": True}, name="POST /x")
    step.end({}, error="timeout")
    step.add(Work("late", "client", 1_000_000, 3_000_000, {"many": ["x", "y"]}))
    api.close()
    worker.close()
    first, second, late = sorted(receiving.spans, key=lambda span: ("POST /x", "step a", "late").index(span.name))
    assert (first.trace, first.parent, first.attributes) == ("ab" * 16, "cd" * 8, {"a": 1, "b": True})
    assert (second.parent, second.failed, second.attributes) == (first.id, True, {"error.type": "timeout"})
    assert (late.parent, late.begin_ns, late.end_ns) == (second.id, 1_000_000_000, 3_000_000_000)
    assert late.attributes == {"many": ["x", "y"]} and not late.failed


def test_the_steps_of_a_run_that_nobody_traced_share_the_trace_of_its_id(receiving: Collector) -> None:
    tracer = OtelTracer("1")
    for name in ("step a", "step b"):
        tracer.start(name, "internal", context_of_run(RUN), {}).end({})
    tracer.start("other", "internal", None, {}).end({})
    tracer.close()
    own = RUN["id"].replace("-", "")
    assert {(span.name, span.trace == own, span.parent) for span in receiving.spans} == {
        ("step a", True, ""),
        ("step b", True, ""),
        ("other", False, ""),
    }


@pytest.mark.parametrize(
    "told",
    [
        "",
        "nonsense",
        PARENT[:-1],
        f"ff{PARENT[2:]}",
        f"00-{'0' * 32}-{'cd' * 8}-01",
        PARENT.upper(),
        f"{PARENT}-more",
        "é" * 55,
    ],
)
def test_what_is_no_traceparent_begins_a_trace(receiving: Collector, told: str) -> None:
    tracer = OtelTracer("1")
    tracer.start("x", "server", told, {}).end({})
    tracer.close()
    (span,) = receiving.spans
    assert span.parent == "" and span.trace not in ("ab" * 16, "0" * 32)


def test_what_its_client_does_not_sample_is_not_sent_and_handed_on_so(receiving: Collector) -> None:
    tracer = OtelTracer("1")
    span = tracer.start("x", "server", f"{PARENT[:-2]}00", {})
    assert span.context.startswith(PARENT[:36]) and span.context.endswith("-00")
    span.add(Work("y", "client", 1, 2, {}))
    span.end({})
    tracer.close()
    assert receiving.spans == []


def test_a_collector_that_never_answers_costs_its_own_spans_and_a_bounded_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aigateway.otel.FLUSH_S", 0.3)
    with Collector(hangs=True).listening() as hanging:
        monkeypatch.setenv(ENDPOINT, hanging.url)
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
        tracer = OtelTracer("1")
        began = time.monotonic()
        for _ in range(100):
            tracer.start("x", "server", None, {}).end({})
        assert time.monotonic() - began < 1
        tracer.close()
        assert time.monotonic() - began < 5


def test_the_doctor_tells_whether_traces_go_out(
    receiving: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert traces(tmp_path) == Finding("traces", "ok", f"{receiving.url} takes them")
    assert receiving.requests == 1 and not receiving.spans
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert traces(tmp_path).status == "warning"
    dead = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv(ENDPOINT, dead)
    found = traces(tmp_path)
    assert (found.status, found.message) == ("failed", f"{dead} does not take them: [Errno 111] Connection refused")
    monkeypatch.setattr("aigateway.doctor.load_library", lambda: False)
    assert "aigateway[otel]" in (traces(tmp_path).mend or "")
    monkeypatch.delenv(ENDPOINT)
    assert traces(tmp_path).message == "not sent (OTEL_EXPORTER_OTLP_ENDPOINT is not set)"


def traces(folder: Path) -> Finding:
    settings = load_settings(environ={"OLLAMA_HOST": "127.0.0.1:9"}, cwd=folder)
    (found,) = [one for one in asyncio.run(examine(settings, None)) if one.check == "traces"]
    return found
