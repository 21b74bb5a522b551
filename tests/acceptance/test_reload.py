"""The configuration read again while everything runs: over HTTP and on SIGHUP, by every process, or refused whole."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from gateway import Gateway, gateway
from services import free_port, wait_until

HOSTILE = str(Path(__file__).parents[1] / "integration" / "mcp_hostile_server.py")
ASK = "name: ask\nsteps: [{id: ask, type: llm, model: fast, prompt: hi}]\noutput: ${steps.ask.output}\n"


def mcp(*extra: str, **more: Any) -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-S", "-E", "-P", HOSTILE, "ok", *extra], **more}


def config(reply: str, **more: Any) -> dict[str, Any]:
    sim = {"type": "simulated", "models": {"say": {"reply": reply}, "slow": {"reply": reply, "delay": "2s"},
                                           "shut": {"reply": reply, "fail": [401]}}}  # fmt: skip
    return {"providers": {"sim": sim}, "models": {"fast": "sim/say", "slow": "sim/slow"}, **more}


def write(installed: Gateway, told: dict[str, Any]) -> None:
    (installed.folder / "aigateway.yaml").write_text(json.dumps(told, indent=1))


def reload(installed: Gateway) -> dict[str, Any]:
    answer = installed.http.post("/v1/config/reload")
    assert answer.status_code == 200, answer.text
    return answer.json()


def say(url: str, model: str = "fast") -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    answer = httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=30, trust_env=False)
    return answer.json()["choices"][0]["message"]["content"] if answer.status_code == 200 else answer.text


def run_says(installed: Gateway) -> str:
    return str(installed.finished(installed.submit("ask", {}))["output"])


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("home")
    (folder / "workflows").mkdir()
    (folder / "workflows" / "ask.yaml").write_text(ASK)
    with gateway(folder, config("one")) as installed:
        installed.serve()
        yield installed


def test_new_settings_hold_from_the_answer_on_and_what_is_under_way_keeps_the_old_ones(up: Gateway) -> None:
    write(up, config("one", mcp_servers={"kept": mcp(), "gone": mcp(), "other": mcp()}))
    reload(up)
    assert (say(up.url), run_says(up)) == ("one", "one")
    assert "error" in say(up.url, "sim/shut")
    pids = {name: pid_of(up, name) for name in ("kept", "gone", "other")}
    (up.folder / "workflows" / "late.yaml").write_text("name: late\nsteps: [{id: a, type: set, value: 1}]\n")
    (up.folder / "workflows" / "bad.yaml").write_text("name: bad\nsteps: [{id: a, type: sett}]\n")
    with ThreadPoolExecutor() as pool:
        slow_chat = pool.submit(say, up.url, "slow")
        slow_run = up.submit({"name": "w", "steps": [{"id": "a", "type": "llm", "model": "slow", "prompt": "x"}],
                              "output": "${steps.a.output}"}, {})  # fmt: skip
        wait_until(lambda: open_calls(up) == 2, "both slow calls are under way")
        write(
            up,
            config(
                "two",
                server={"port": 1},  # the command line stands over it
                worker={"concurrency": 3},
                mcp_servers={"kept": mcp(), "other": mcp(env={"A": "hidden-value"}), "new": mcp()},
                budgets=[{"name": "day", "limit_usd": 5, "period": "day"}],
                unknown_prices="reject",
                webhooks={"alert_url": "https://hidden-host.example/x"},
            ),
        )
        assert resting(up) == ["shut"]
        told = reload(up)
        assert say(up.url) == "two"
        wait_until(lambda: resting(up) == [], "what is another provider now does not rest for what it was", 3)
        wait_until(lambda: run_says(up) == "two", "the workers go by the new settings", 3)
        assert (slow_chat.result(), up.finished(slow_run)["output"]) == ("one", "one")
    assert told["changed"] == {
        "providers": {"added": [], "changed": ["sim"], "removed": []},
        "budgets": {"added": ["day"], "changed": [], "removed": []},
        "unknown_prices": {"added": [], "changed": ["unknown_prices"], "removed": []},
        "mcp_servers": {"added": ["new"], "changed": ["other"], "removed": ["gone"]},
        "webhooks": {"added": [], "changed": ["alert_url"], "removed": []},
    }
    assert told["needs_restart"] == ["worker.concurrency"]
    assert [error["file"] for error in told["workflow_errors"]] == ["bad.yaml"]
    assert "hidden" not in json.dumps(told)
    assert [budget["name"] for budget in up.http.get("/v1/budgets").json()["data"]] == ["day"]
    assert "late" in [entry["name"] for entry in up.http.get("/v1/workflows").json()["data"]]
    wait_until(lambda: not psutil.pid_exists(pids["gone"]) and not psutil.pid_exists(pids["other"]), "they end", 10)
    assert pid_of(up, "kept") == pids["kept"]
    assert pid_of(up, "new") and pid_of(up, "other") != pids["other"]
    assert up.http.post("/v1/mcp/tools/pid", json={"server": "gone"}).status_code == 404


def resting(installed: Gateway) -> list[str]:
    return [
        rest["model"] for provider in installed.http.get("/v1/providers").json()["data"] for rest in provider["resting"]
    ]


def open_calls(installed: Gateway) -> int:
    rows = installed.http.get("/v1/requests?limit=5").json()["data"]
    return sum(row["model"] == "slow" and row["success"] is None for row in rows)


def pid_of(installed: Gateway, server: str) -> int:
    answer = installed.http.post("/v1/mcp/tools/pid", json={"server": server})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["result"])


def test_a_bad_file_is_refused_whole_with_every_mistake(up: Gateway) -> None:
    write(up, config("three"))
    reload(up)
    wait_until(lambda: run_says(up) == "three", "the workers follow", 3)
    (up.folder / "aigateway.yaml").write_text("providers:\n  sim: {type: simulatd}\nmodles: {}\nbudgets: [{name: x}]\n")
    answer = up.http.post("/v1/config/reload")
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "invalid_config"
    found = {detail["path"]: (detail["line"], detail["column"]) for detail in error["details"]}
    assert found == {"providers.sim.type": (2, 9), "modles": (3, 1), "budgets[0].limit_usd": (4, 11)}
    assert (say(up.url), run_says(up)) == ("three", "three")
    (up.folder / "aigateway.yaml").unlink()
    answer = up.http.post("/v1/config/reload")
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "aigateway.yaml: no such file")
    assert say(up.url) == "three"
    write(up, config("three"))
    assert reload(up)["changed"] == {}


def test_a_hang_up_signal_reaches_server_and_workers(up: Gateway) -> None:
    write(up, config("four"))
    up.processes[0].send_signal(signal.SIGHUP)
    wait_until(lambda: say(up.url) == "four" and run_says(up) == "four", "both go by the new settings", 5)
    (up.folder / "aigateway.yaml").write_text("nonsense: 1\n")
    pids = up.worker_pids()
    up.processes[0].send_signal(signal.SIGHUP)
    refused = "configuration refused, the old one stays"
    wait_until(lambda: up.logs().count("aigateway.yaml:1: nonsense") >= 2, "server and worker say so", 5)
    lines = [line for line in up.logs().splitlines() if refused in line and "aigateway.yaml:1: nonsense" in line]
    assert len(lines) == 2
    assert (say(up.url), run_says(up), up.worker_pids()) == ("four", "four", pids)


def test_a_hundred_reloads_leave_nothing_behind(up: Gateway) -> None:
    def footprint() -> tuple[int, int, int]:
        process = psutil.Process(up.processes[0].pid)
        return process.num_fds(), process.num_threads(), process.memory_info().rss

    def once(number: int) -> None:
        servers = {"flips": mcp(env={"N": str(number)})} if number % 20 == 0 else {}
        write(up, config(f"reply {number}", mcp_servers=servers))
        reload(up)
        assert say(up.url) == f"reply {number}"
        if servers:
            pid_of(up, "flips")

    for number in range(20):
        once(number)
    wait_until(lambda: not up_servers(up), "no MCP server is left", 15)
    fds, threads, rss = footprint()
    for number in range(20, 120):
        once(number)
    wait_until(lambda: not up_servers(up), "no MCP server is left", 15)
    now = footprint()
    assert now[0] <= fds + 2 and now[1] <= threads and now[2] < rss + 4_000_000, (fds, threads, rss, now)


def up_servers(installed: Gateway) -> list[psutil.Process]:
    children = psutil.Process(installed.processes[0].pid).children()
    return [child for child in children if HOSTILE in " ".join(child.cmdline())]


def test_processes_on_redis_each_read_their_own_file(tmp_path: Path, redis_url: str, postgres_url: str) -> None:
    """Two APIs and a worker: one API is asked, all follow; the one whose own file is bad stays as it is."""
    environment = {"AIGATEWAY_REDIS_URL": redis_url, "AIGATEWAY_DATABASE_URL": postgres_url}
    with gateway(tmp_path, config("one"), **environment) as installed:
        other = tmp_path / "other.yaml"
        other.write_text(json.dumps(config("one")))
        second = free_port()
        installed.start("api", "--port", str(installed.port))
        installed.start("worker")
        installed.start("api", "--port", str(second), "--config", "other.yaml")
        wait_until(lambda: installed.ready_workers() == 1, "the worker lives", 30)
        url = f"http://127.0.0.1:{second}"
        assert installed.http.put("/v1/workflows/ask", content=ASK).status_code == 201
        wait_until(lambda: _answers(url), "the second API answers", 30)
        write(installed, config("two"))
        other.write_text(json.dumps(config("other two")))
        reload(installed)
        wait_until(lambda: run_says(installed) == "two" and say(url) == "other two", "all follow", 5)
        write(installed, config("three"))
        other.write_text("nonsense")
        reload(installed)
        wait_until(lambda: run_says(installed) == "three", "the worker follows", 5)
        wait_until(lambda: "configuration refused" in installed.logs(), "the second API says that it does not", 5)
        assert say(url) == "other two"
        write(installed, config("four"))
        installed.processes[1].send_signal(signal.SIGHUP)  # the supervisor of the worker passes it on
        wait_until(lambda: run_says(installed) == "four", "the worker follows", 5)
        assert say(installed.url) == "three"


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False


def test_a_closed_terminal_ends_the_server(tmp_path: Path) -> None:
    with gateway(tmp_path) as installed:
        terminal, inside = pty.openpty()
        command = [sys.executable, "-P", "-m", "aigateway", "serve", "--port", str(installed.port), "--workers", "0"]
        serve = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command], cwd=tmp_path, env=installed.environment, stdin=inside,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(inside)
        wait_until(lambda: _answers(installed.url), "it answers", 30)
        os.close(terminal)
        wait_until(lambda: not _answers(installed.url), "it ends with its terminal", 15)
        serve.wait(15)
