"""Calls whose database goes away, or loses its answer, in the middle: each is booked once, and no reservation is left behind."""

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, gateway
from services import PostgresServer, wait_until
from upstreams.control import Fault
from upstreams.openai import OpenAIUpstream

ROUTE = "/v1/chat/completions"
PRICE = {"*": {"input": 1, "output": 2, "cached_input": 0.1, "cache_write": 1.25}}  # upstreams.control.Price
CALLS = 12


@contextmanager
def running(folder: Path, upstream: OpenAIUpstream, **environment: str) -> Iterator[Gateway]:
    provider = {"type": "openai", "base_url": upstream.base_url, "api_key": "test-key", "prices": PRICE}
    budgets = [{"name": "all", "limit_usd": 1, "period": "day"}]
    with gateway(folder, {"providers": {"up": provider}, "budgets": budgets}, **environment) as up:
        up.serve(workers=0)
        yield up


def ask(up: Gateway, *, stream: bool = False) -> tuple[int, str]:
    body = {"model": "up/gpt-6-luna", "messages": [{"role": "user", "content": "good day"}], "stream": stream}
    answer = up.http.post(ROUTE, json=body)
    return answer.status_code, answer.text


def rows(up: Gateway) -> list[dict[str, Any]]:
    return up.http.get("/v1/requests", params={"limit": 200}).json()["data"]


def check_nothing_is_open(up: Gateway, upstream: OpenAIUpstream) -> None:
    """Every row has ended, nothing is reserved, and the sum is what the upstream charges."""
    wait_until(lambda: all(row["status"] in ("succeeded", "failed") for row in rows(up)), "all rows have ended", 10)
    (budget,) = up.http.get("/v1/budgets").json()["data"]
    assert budget["reserved_usd"] == 0
    assert round(budget["spent_usd"] * 10**12) == upstream.control.bill_picousd
    assert sum(round(row["cost_usd"] * 10**12) for row in rows(up)) == upstream.control.bill_picousd


def test_a_database_that_is_killed_and_comes_back(tmp_path: Path, own_postgres: PostgresServer) -> None:
    with OpenAIUpstream() as upstream, running(tmp_path, upstream, AIGATEWAY_DATABASE_URL=own_postgres.url()) as up:
        upstream.control.always(Fault("delay", delay_s=1.0))
        with ThreadPoolExecutor(CALLS) as threads:
            answers = [threads.submit(ask, up, stream=number % 2 == 0) for number in range(CALLS)]
            upstream.control.wait(lambda control: control.count() == CALLS)
            own_postgres.kill()
            upstream.control.wait(lambda control: all(call.outcome == "delay" for call in control.calls))
            status, text = ask(up)
            assert status == 503, text
            assert json.loads(text)["error"]["code"] == "database_unavailable"
            plain = answers[1::2]
            assert not any(answer.done() for answer in plain), "answered means booked"
            own_postgres.start()
            for number, answer in enumerate(answers):
                status, text = answer.result(30)
                assert status == 200, text
                assert number % 2 or text.endswith("data: [DONE]\n\n"), text
        assert upstream.control.count() == CALLS, "no call was made twice, and none without its row"
        check_nothing_is_open(up, upstream)
        assert [row["cost_source"] for row in rows(up)].count("priced") == CALLS


@pytest.mark.chaos  # it takes as long as a process may take to end: 20 s
def test_a_process_ends_also_where_the_database_never_comes_back(tmp_path: Path, own_postgres: PostgresServer) -> None:
    with OpenAIUpstream() as upstream, running(tmp_path, upstream, AIGATEWAY_DATABASE_URL=own_postgres.url()) as up:
        upstream.control.always(Fault("delay", delay_s=1.0))
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(ask, up)
            upstream.control.wait(lambda control: control.count() == 1)
            own_postgres.kill()
            up.processes[0].send_signal(signal.SIGTERM)
            assert up.processes[0].wait(35) == 0, up.logs()
            assert answer.exception(10) is not None or answer.result()[0] != 200
        assert "calls were not booked" in up.logs()
        assert "Traceback" not in up.logs()


@pytest.mark.parametrize(("fault", "stream"), [("refused", False), ("lost", True)], ids=["refused", "lost"])
def test_an_outcome_whose_reply_is_lost_is_booked_once(tmp_path: Path, fault: str, stream: bool) -> None:
    marker = tmp_path / "marker"
    crash = {"_AIGATEWAY_CRASH_AT": f"settle_request:{fault}:{marker}"}
    with OpenAIUpstream() as upstream, running(tmp_path / "home", upstream, **crash) as up:
        status, text = ask(up, stream=stream)
        assert status == 200, text
        assert marker.exists()
        assert len(rows(up)) == 1
        check_nothing_is_open(up, upstream)


@pytest.mark.parametrize("fault", ["refused", "lost"])
def test_an_intent_whose_reply_is_lost_reserves_nothing(tmp_path: Path, fault: str) -> None:
    marker = tmp_path / "marker"
    crash = {"_AIGATEWAY_CRASH_AT": f"open_request:{fault}:{marker}"}
    with OpenAIUpstream() as upstream, running(tmp_path / "home", upstream, **crash) as up:
        status, text = ask(up)
        assert status == 503, text
        assert upstream.control.count() == 0, "what may not be booked is not sent"
        check_nothing_is_open(up, upstream)
        told = [(row["cost_source"], row["error_class"]) for row in rows(up)]
        assert told == ([("free", "connection")] if fault == "lost" else [])
        assert ask(up)[0] == 200
        check_nothing_is_open(up, upstream)
