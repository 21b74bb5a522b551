"""The main job on real parts: MCP servers that nobody here wrote, strict upstreams over real sockets, both modes, kill -9."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, gateway
from services import wait_until
from upstreams.anthropic import AnthropicUpstream
from upstreams.control import Fault
from upstreams.openai import OpenAIUpstream

SHIPPED = (Path(__file__).parents[2] / "workflows" / "research-assistant.yaml").read_text()
GIT_SEARCH = """    server: git
    tool: git_log
    params: {repo_path: "REPOSITORY", max_count: 5}
"""


@pytest.fixture
def upstreams() -> Iterator[tuple[OpenAIUpstream, AnthropicUpstream]]:
    with OpenAIUpstream() as openai, AnthropicUpstream() as anthropic:
        yield openai, anthropic


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git = ["git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    for number in range(3):
        (folder / "notes.txt").write_text(f"note {number}")
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-qm", f"Note number {number}"], check=True)
    return folder


def config(upstreams: tuple[OpenAIUpstream, AnthropicUpstream]) -> dict[str, Any]:
    openai, anthropic = upstreams
    return {
        "providers": {
            "cheap": {
                "type": "openai",
                "base_url": openai.base_url,
                "api_key": openai.key,
                "prices": {"*": {"input": 1, "output": 2}},
            },
            "anthropic": {"type": "anthropic", "base_url": anthropic.base_url, "api_key": anthropic.key},
        },
        "models": {"local": "cheap/gpt-6-luna"},
        "mcp_servers": {
            "git": {"command": sys.executable, "args": ["-P", "-m", "mcp_server_git"]},
            "time": {"command": sys.executable, "args": ["-P", "-m", "mcp_server_time"]},
        },
        "log": {"format": "json"},
    }


def research(repository: Path) -> str:
    """The shipped definition with its search on the git server; everything else unchanged."""
    lines = SHIPPED.splitlines(keepends=True)
    start = next(
        number
        for number, line in enumerate(lines)
        if line.strip() == "server: brave-search" or "server: brave-search" in line
    )
    end = next(number for number, line in enumerate(lines) if number > start and "params:" in line) + 1
    return "".join(lines[:start]) + GIT_SEARCH.replace("REPOSITORY", str(repository)) + "".join(lines[end:])


def put_research(installed: Gateway, repository: Path) -> None:
    answer = installed.http.put("/v1/workflows/research-assistant", content=research(repository))
    assert answer.status_code in (200, 201), answer.text


def check_booked(installed: Gateway, run_id: str, upstreams: tuple[OpenAIUpstream, AnthropicUpstream]) -> None:
    """Every upstream call has its row, and the sums agree to the pico-dollar where a price is known."""
    rows = installed.http.get("/v1/requests", params={"run": run_id}).json()["data"]
    assert [row["kind"] for row in rows].count("tool") == 1
    chats = [row for row in rows if row["kind"] == "chat"]
    assert len(chats) == sum(upstream.control.count() for upstream in upstreams)
    cheap = [row["cost_usd"] for row in chats if row["provider"] == "cheap"]
    assert sum(round(cost * 10**12) for cost in cheap) == upstreams[0].control.bill_picousd
    run = installed.http.get(f"/v1/runs/{run_id}").json()
    assert run["tokens"] == sum(row["total_tokens"] or 0 for row in rows) > 0


def test_embedded(tmp_path: Path, upstreams: tuple[OpenAIUpstream, AnthropicUpstream], repository: Path) -> None:
    with gateway(tmp_path / "home", config(upstreams)) as installed:
        installed.serve()
        put_research(installed, repository)
        answer = installed.http.post("/v1/workflow/research-assistant", json={"input": {"topic": "notes"}})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["status"] == "succeeded" and body["output"]
        assert [step["id"] for step in body["metrics"]["steps"]] == ["search", "summarize", "report"]
        steps = installed.steps(body["run_id"])
        assert "Note number 2" in str(steps["search"]["output"])
        assert steps["report"]["model"] == "anthropic/claude-sonnet-4-5"
        check_booked(installed, body["run_id"], upstreams)
        installed.stop()
        installed.environment["AIGATEWAY_SERVER__PORT"] = str(installed.port)
        looked = installed.run("runs", "list", "--json")  # no server is there any more, but its database is
        assert [run["id"] for run in json.loads(looked.stdout)["data"]] == [body["run_id"]], looked.stderr


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_redis_with_two_worker_processes(
    tmp_path: Path,
    upstreams: tuple[OpenAIUpstream, AnthropicUpstream],
    repository: Path,
    redis_url: str,
    database: str,
    request: pytest.FixtureRequest,
) -> None:
    url = f"sqlite:///{tmp_path}/shared.db" if database == "sqlite" else request.getfixturevalue("empty_postgres_url")
    environment = {"AIGATEWAY_REDIS_URL": redis_url, "AIGATEWAY_DATABASE_URL": url}
    with gateway(tmp_path / "home", config(upstreams), **environment) as installed:
        installed.start("api", "--port", str(installed.port))
        installed.start("worker", "--processes", "2")
        installed.wait_until_up(2)
        put_research(installed, repository)
        runs = [installed.submit("research-assistant", {"topic": f"notes {n}"}) for n in range(6)]
        ended = [installed.finished(run_id) for run_id in runs]
        assert [run["status"] for run in ended] == ["succeeded"] * 6, ended
        assert upstreams[0].control.count() == upstreams[1].control.count() == 6
        steps = [step for run_id in runs for step in installed.steps(run_id).values()]
        assert all(len(step["attempts"]) == 1 for step in steps)


@pytest.mark.parametrize("killed_step", ["summarize", "report"])
def test_a_killed_worker_is_replaced_and_nothing_finished_is_paid_again(
    tmp_path: Path, upstreams: tuple[OpenAIUpstream, AnthropicUpstream], repository: Path, killed_step: str
) -> None:
    openai, anthropic = upstreams
    hanging = openai if killed_step == "summarize" else anthropic
    hanging.control.script(Fault("hang"))
    with gateway(tmp_path / "home", config(upstreams)) as installed:
        installed.serve()
        put_research(installed, repository)
        run_id = installed.submit("research-assistant", {"topic": "notes"})
        hanging.control.wait(lambda control: control.count() == 1)
        for pid in installed.worker_pids():
            os.kill(pid, signal.SIGKILL)
        run = installed.finished(run_id)
        assert run["status"] == "succeeded", run
        steps = installed.steps(run_id)
        assert [attempt["status"] for attempt in steps[killed_step]["attempts"]] == ["lost", "succeeded"]
        others = [step for name, step in steps.items() if name != killed_step]
        assert all(len(step["attempts"]) == 1 for step in others)
        assert hanging.control.count() == 2  # the call in flight, and once more
        assert (openai if hanging is anthropic else anthropic).control.count() == 1
        lost = steps[killed_step]["attempts"][0]["calls"]
        assert [(call["status"], call["cost_usd"]) for call in lost] == [("unknown", None)]
        assert run["cost_unknown_calls"] == 1


def test_killed_serve_leaves_nothing_behind_and_the_run_goes_on(
    tmp_path: Path, upstreams: tuple[OpenAIUpstream, AnthropicUpstream], repository: Path
) -> None:
    openai, anthropic = upstreams
    openai.control.script(Fault("hang"))
    with gateway(tmp_path / "home", config(upstreams)) as installed:
        installed.serve()
        put_research(installed, repository)
        run_id = installed.submit("research-assistant", {"topic": "notes"})
        openai.control.wait(lambda control: control.count() == 1)
        workers = [*installed.worker_pids(), *installed.pids_named("aigw-template")]
        installed.processes[0].kill()
        installed.processes[0].wait()
        wait_until(lambda: not any(_alive(pid) for pid in workers), "the workers ended with their parent", 10)
        installed.serve()
        assert installed.finished(run_id)["status"] == "succeeded"
        assert (openai.control.count(), anthropic.control.count()) == (2, 1)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
