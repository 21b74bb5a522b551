"""The short way to runs (`api/hot_runs.py`) and the documented routes of FastAPI answer alike, whatever is sent.

Each request is sent twice: as it is, and through the application without the short way.
"""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from stage import Stage
from starlette.testclient import TestClient

from api.app import create_app
from api.hot_runs import HotRuns

TEXT = """
name: held
inputs: {topic: {type: string}, n: {type: integer, default: 1}}
steps:
  - {id: hold, type: wait, signal: go}
output: ${input.topic}
"""
RUN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
POSTED = ("/v1/workflows/held/runs", "/v1/workflow/held?wait=0", "/v1/runs", "/v1/workflows/none/runs")

VALUES: dict[str, list[Any]] = {
    "input": [{"topic": "tea"}, {"topic": "ä\u2028\x7f"}, {"topic": 5}, {}, {"topic": "x", "m": 1}, "text", [1], None, {"topic": "x", "n": 2**70},
              {"topic": "x", "n": 1.5}, {"topic": None}, {"topic": "x", "n": True}],
    "priority": ["low", "normal", "high", "urgent", 1, None, ""],
    "budget_usd": [0, 1, 0.1, "0.1", -1, "x", None, 1e9, [], True, "NaN", 1e-13],
    "tags": [{}, {"a": "b"}, {"a": 1}, ["a"], {"a" * 101: "b"}, {"a": "b" * 256}, {"a": "\0"}, {"": ""}, None, {str(n): "" for n in range(21)}],
    "webhook_url": ["http://127.0.0.1:9/x", "ftp://x", "", None, 5, "http://u:p@h/x", "http://[::1", "https://x" + "y" * 3000],
    "start_at": ["2099-01-01T00:00:00Z", "2099-01-01", "2099-01-01T00:00:00", "soon", 5, None, "0001-01-01T00:00:00+14:00", True],
    "workflow": ["held", "none", "", 5, None, {"name": "x", "steps": []}, {"steps": [{"id": "a", "type": "wait", "signal": "s"}]}, "he\0ld"],
    "bogus": [1],
}  # fmt: skip
RAW = [
    b"", b" ", b"null", b"{}", b"[]", b"5", b'"x"', b"{", b'{"input": {"topic": "\xff"}}', b'{"input": {"topic": "\\ud800"}}', b'{"a": 1, "a": 2}',
    b'{"input": {"topic": "a"}, "input": {"topic": "b"}}', b'{"input": {"topic": NaN}}', b'{"input": {"topic": "x", "n": 1e400}}',
    b'{"input": ' + b"[" * 300 + b"]" * 300 + b"}", b'\xef\xbb\xbf{"input": {"topic": "x"}}', b'{"input": {"topic": "x"}} ', b'{"input": {"topic": "x"}}x',
]  # fmt: skip
KINDS = [
    "application/json",
    "Application/JSON; charset=utf-8",
    "text/plain",
    "",
    "application/vnd.api+json",
    "application/x-www-form-urlencoded",
]
QUERIES = [
    "",
    "?dry_run=true",
    "?dry_run=maybe",
    "?wait=0",
    "?wait=0.01",
    "?wait=-1",
    "?wait=3601",
    "?wait=x",
    "?bogus=1",
    "?wait=0&wait=0",
    "?",
]


@dataclass(frozen=True)
class Ways:
    """The application, asked with and without its short way."""

    client: TestClient

    def compare(self, method: str, path: str, **parts: Any) -> int:
        """The status that both answered; they said the same but for the ids of runs."""
        short = _told(self.client.request(method, path, **parts))
        with pytest.MonkeyPatch.context() as without:
            without.setattr(HotRuns, "endpoint", _nowhere)
            long = _told(self.client.request(method, path, **parts))
        assert short == long, (method, path, parts)
        return short[0]


def _nowhere(_runs: HotRuns, _scope: object) -> None:
    """No request has a short way."""


def _told(answer: Any) -> tuple[int, str, list[tuple[str, str]]]:
    kept = ("content-type", "location", "retry-after", "x-should-retry", "x-aigateway-run-id")
    headers = sorted((name, RUN_ID.sub("ID", value)) for name, value in answer.headers.items() if name in kept)
    text = re.sub(r"20\d\d-\d\d-\d\dT[\d:.]+Z", "TIME", RUN_ID.sub("ID", answer.text))
    return answer.status_code, re.sub(r'"latency_ms":[\d.]+', '"latency_ms":0', text), headers


@pytest.fixture
def ways(sqlite_url: str) -> Iterator[Ways]:
    stage = Stage(sqlite_url)
    stage.submit(TEXT, {"topic": "tea"})
    yield Ways(TestClient(create_app(stage.services())))
    stage.close()


def test_bodies_good_and_bad_have_the_same_answer(ways: Ways) -> None:
    answered: set[int] = set()
    good = {"workflow": "held", "input": {"topic": "tea"}}
    for path, (field, values) in itertools.product(POSTED, VALUES.items()):
        for value in values if path in POSTED[::2] else values[:2]:
            body = {**good, field: value}
            if path != "/v1/runs" and field != "workflow":
                del body["workflow"]
            answered.add(
                ways.compare("POST", path, content=json.dumps(body), headers={"content-type": "application/json"})
            )
    assert answered == {202, 400, 404}


def test_what_is_no_json_and_what_is_not_called_so_have_the_same_answer(ways: Ways) -> None:
    good = b'{"workflow": "held", "input": {"topic": "tea"}}'
    answered = {
        ways.compare("POST", path, content=raw, headers={"content-type": kind})
        for path in POSTED[:3]
        for raw, kind in [*((raw, KINDS[0]) for raw in RAW), *((good, kind) for kind in KINDS)]
    }
    assert answered == {202, 400}


def test_queries_keys_and_looks_at_runs_have_the_same_answer(ways: Ways) -> None:
    body = {"input": {"topic": "tea"}}
    run = ways.client.post(POSTED[0], json=body).json()["id"]
    for query in QUERIES:
        for path in ("/v1/workflows/held/runs", "/v1/workflow/held"):
            if path.endswith("runs") or "wait=0" in query:
                ways.compare("POST", path + query, json=body)
        ways.compare("GET", f"/v1/runs/{run}{query}")
        ways.compare("GET", f"/v1/runs/none{query}")
    for key in ("k", "", "k" * 256, "ä"):
        headers = {"idempotency-key": key.encode()}
        for again in (body, {"input": {"topic": "other"}}):
            ways.compare("POST", POSTED[0], json=again, headers=headers)
    for method, path in (
        ("PUT", POSTED[0]),
        ("DELETE", f"/v1/runs/{run}"),
        ("GET", "/v1/runs/a%2Fb"),
        ("GET", "/v1/runs/%00"),
    ):
        ways.compare(method, path)
