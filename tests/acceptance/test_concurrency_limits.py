"""Limits of runs and turns between workflows over HTTP, on real processes with two workers, one of which is killed."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from gateway import Gateway, gateway
from services import wait_until

LIMITED: dict[str, Any] = {
    "name": "limited",
    "concurrency": {"limit": 2, "key": "${input.customer}"},
    "steps": [
        {"id": "ask", "type": "llm", "model": "sim/slow", "prompt": "x"},
        {"id": "last", "type": "set", "value": 1},
    ],
}
FLOOD: dict[str, Any] = {
    "name": "flood",
    "steps": [{"id": "ask", "type": "llm", "model": "sim/slower", "prompt": "x"}],
}
SMALL: dict[str, Any] = {"name": "small", "steps": [{"id": "a", "type": "set", "value": 1}]}
FLOODING = 1000


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    models = {"slow": {"delay": "100ms"}, "slower": {"delay": "100ms"}}
    config = {
        "worker": {"concurrency": 8},
        "providers": {"sim": {"type": "simulated", "models": models}},
        "log": {"level": "warning"},
    }
    with gateway(tmp_path_factory.mktemp("limits"), config) as up:
        up.serve(workers=2)
        for workflow in (LIMITED, FLOOD, SMALL):
            assert up.http.put(f"/v1/workflows/{workflow['name']}", json=workflow).status_code == 201
        yield up


def spans(up: Gateway, runs: list[str]) -> list[tuple[str, str]]:
    """From the first attempt to the end of each run."""
    views = [up.finished(run_id, wait_s=60) for run_id in runs]
    assert {view["status"] for view in views} == {"succeeded"}
    return [(view["started_at"], view["finished_at"]) for view in views]


def most_at_once(found: list[tuple[str, str]]) -> int:
    marks = sorted([(start, 1) for start, _ in found] + [(end, -1) for _, end in found])
    count = most = 0
    for _, change in marks:
        count += change
        most = max(most, count)
    return most


def test_never_more_than_the_limit_also_when_a_worker_is_killed(up: Gateway) -> None:
    runs = {name: [up.submit("limited", {"customer": name}) for _ in range(8)] for name in ("a", "b")}
    wait_until(
        lambda: up.http.get(f"/v1/runs/{runs['a'][0]}").json()["status"] == "succeeded", "the first is through", 20
    )
    os.kill(up.worker_pids()[0], signal.SIGKILL)
    together = [spans(up, each) for each in runs.values()]
    assert [most_at_once(each) for each in together] == [2, 2]
    assert most_at_once([span for each in together for span in each]) > 2
    refused = up.http.post("/v1/runs", json={"workflow": "limited", "input": {"customer": ["a"]}})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_input")


def test_a_small_workflow_is_through_before_a_tenth_of_a_flood(up: Gateway) -> None:
    wait_until(lambda: up.ready_workers() == 2, "both workers are there", 20)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: up.submit("flood", {}), range(FLOODING)))

    def ended() -> int:
        lines = up.http.get("/metrics").text.splitlines()
        found = [
            line for line in lines if 'workflow="flood"' in line and 'status="succeeded"' in line and "runs" in line
        ]
        return int(float(found[0].split()[-1])) if found else 0

    before = ended()
    assert before < FLOODING / 2, "the flood has to be one"
    run = up.finished(up.submit("small", {}), wait_s=60)
    assert run["status"] == "succeeded" and ended() - before < FLOODING / 10


def test_workflows_that_are_not_there_and_values_that_are_too_large(up: Gateway) -> None:
    steps = [{"id": "call", "type": "workflow", "workflow": "smal"}]
    stored = up.http.put("/v1/workflows/caller", json={"name": "caller", "steps": steps})
    (warning,) = stored.json()["warnings"]
    assert (stored.status_code, warning["path"]) == (201, "steps.call.workflow")
    assert "did you mean small?" in warning["message"]
    for workflow in ("caller", {"name": "inline", "steps": steps}):
        error = up.http.post("/v1/runs", json={"workflow": workflow}).json()["error"]
        assert (error["code"], error["param"]) == ("workflow_not_found", "steps.call.workflow")
    (up.folder / "workflows").mkdir(exist_ok=True)
    (up.folder / "workflows" / "smal.yaml").write_text("name: smal\nsteps:\n  - {id: a, type: set, value: found}\n")
    assert up.finished(up.submit("caller", {}))["output"] == "found"
    circle = {"name": "circle", "concurrency": 1, "steps": [{"id": "call", "type": "workflow", "workflow": "circle"}]}
    stored = up.http.put("/v1/workflows/circle", json=circle)
    assert "wait for each other" in stored.json()["warnings"][0]["message"]
    assert up.http.post("/v1/runs", json={"workflow": "circle"}).json()["error"]["code"] == "invalid_workflow"
    large = up.http.post("/v1/runs", json={"workflow": "small", "input": {"text": "x" * (17 * 1024 * 1024)}})
    error = large.json()["error"]
    assert (large.status_code, error["code"], error["param"]) == (413, "value_too_large", "input")
    assert "17.0 MiB" in error["message"] and "at most 16" in error["message"]
