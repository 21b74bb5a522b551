import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("AIGATEWAY_")}
AT = "2026-11-22T07:00:0{}.000000Z"
RUN: dict[str, Any] = {
    "id": "r1", "workflow": "research", "status": "running", "output": None, "error": None, "cost_usd": 0.0123,
    "tokens": 1500, "latency_ms": None, "created_at": AT.format(0), "started_at": AT.format(0), "finished_at": None,
}  # fmt: skip
DONE = RUN | {
    "status": "succeeded",
    "output": "A report.\n\x1b[31mred",
    "latency_ms": 4000.0,
    "finished_at": AT.format(4),
}
FAILED = DONE | {
    "status": "failed",
    "output": None,
    "error": {"step": "report", "class": "quota", "message": "no\nmoney"},
}


def step(name: str, status: str, *attempts: str) -> dict[str, Any]:
    tried = [
        {"number": number, "status": how, "worker": "w1", "error": None, "calls": [],
         "started_at": AT.format(number), "finished_at": AT.format(number + 1)}
        for number, how in enumerate(attempts, 1)
    ]  # fmt: skip
    return {"id": name, "type": "llm", "status": status, "output": None, "error": None, "model": "m", "cost_usd": 0.01,
            "tokens": 7, "latency_ms": 10.0, "started_at": AT.format(1), "finished_at": AT.format(2),
            "attempts": tried}  # fmt: skip


class Gateway:
    """Answers like a server: `runs` is what each look at the run gives, the last one for ever."""

    def __init__(self) -> None:
        self.runs = [RUN, DONE]
        self.steps = [[step("search", "running", "running")], [step("search", "succeeded", "lost", "succeeded")]]
        self.asked: list[tuple[str, str, Any]] = []
        self.looked = threading.Event()
        self.answers: dict[str, tuple[int, Any]] = {}
        self._looks = 0

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self.asked.append((method, path, body))
        where = path.partition("?")[0]
        if where in self.answers:
            status, answer = self.answers[where]
            return status, {"next_cursor": None, **answer} if isinstance(answer, dict) and "data" in answer else answer
        if where.endswith("/steps"):
            return 200, {
                "object": "list",
                "next_cursor": None,
                "data": self.steps[min(self._looks, len(self.steps)) - 1],
            }
        if method == "POST":
            return 202, {"id": "r1", "status": "queued", "links": {}}
        if where == "/v1/runs/r1":
            self._looks += 1
            self.looked.set()
            return 200, self.runs[min(self._looks, len(self.runs)) - 1]
        return 404, {"error": {"message": f"no {where}", "type": "not_found", "code": "not_found", "param": None}}


@contextmanager
def served(gateway: Gateway) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            text = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
            is_json = "json" in (self.headers.get("content-type") or "")
            gateway.asked_headers = dict(self.headers)  # type: ignore[attr-defined]
            status, value = gateway.answer(self.command, self.path, json.loads(text) if is_json and text else text)
            content = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = _any

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def start(url: str, *arguments: str, cwd: Path, **environ: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "aigateway", *arguments], cwd=cwd, text=True, stdin=subprocess.DEVNULL,
        env={**ENVIRON, "AIGATEWAY_URL": url, "http_proxy": "http://127.0.0.1:9", **environ},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def aigateway(gateway: Gateway, *arguments: str, cwd: Path, **environ: str) -> tuple[int, str, str]:
    with served(gateway) as url, start(url, *arguments, cwd=cwd, **environ) as process:
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


def test_run_prints_the_output_and_nothing_else(tmp_path: Path) -> None:
    gateway = Gateway()
    gateway.answers["/v1/workflows/research"] = (200, {"config_yaml": "name: research\nsteps: []\n"})
    (tmp_path / "text.txt").write_text("ünï")
    code, out, err = aigateway(
        gateway,
        "run",
        "research",
        "-i",
        "topic=owls",
        "-i",
        "count:=5",
        "-i",
        "text=@text.txt",
        "-i",
        "eq=a=b",
        cwd=tmp_path,
    )
    assert (code, out, err) == (0, DONE["output"] + "\n", "")
    assert gateway.asked[1] == (
        "POST", "/v1/workflows/research/runs", {"input": {"topic": "owls", "count": 5, "text": "ünï", "eq": "a=b"}},
    )  # fmt: skip


def test_run_follow_prints_a_line_per_change(tmp_path: Path) -> None:
    code, out, err = aigateway(Gateway(), "run", "research", "--follow", cwd=tmp_path)
    assert (code, out) == (0, DONE["output"] + "\n")
    assert err.splitlines() == ["search: running  $0.01", "search: succeeded (attempt 2)  $0.01"]


def test_run_json_is_the_run_and_with_follow_a_line_each(tmp_path: Path) -> None:
    code, out, _ = aigateway(Gateway(), "run", "research", "--json", cwd=tmp_path)
    assert (code, json.loads(out)) == (0, DONE)
    code, out, _ = aigateway(Gateway(), "run", "research", "--json", "--follow", cwd=tmp_path)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["step"]["status"] for line in lines[:-1]] == ["running", "succeeded"]
    assert lines[-1] == DONE


def test_run_of_a_file_sends_its_definition(tmp_path: Path) -> None:
    gateway = Gateway()
    (tmp_path / "mine.yaml").write_text("name: mine\nsteps:\n  - {id: a, type: set, value: on}\n")
    code, _, err = aigateway(gateway, "run", "mine.yaml", "--detach", cwd=tmp_path)
    assert (code, err) == (0, "")
    definition = {"name": "mine", "steps": [{"id": "a", "type": "set", "value": "on"}]}
    assert gateway.asked == [("POST", "/v1/runs", {"workflow": definition, "input": {}})]
    more = ("--budget-usd", "0.5", "--tag", "team:a", "--tag", "x:y:z", "--priority", "high")
    assert aigateway(gateway, "run", "mine", "--detach", *more, cwd=tmp_path)[0] == 0
    told = {"input": {}, "budget_usd": "0.5", "tags": {"team": "a", "x": "y:z"}, "priority": "high"}
    assert gateway.asked[-1] == ("POST", "/v1/workflows/mine/runs", told)


def test_run_gives_texts_the_declared_types(tmp_path: Path) -> None:
    gateway = Gateway()
    inputs = "inputs: {n: {type: integer}, on: {type: boolean}, list: {type: array}, text: {type: string}, any: {}}\n"
    gateway.answers["/v1/workflows/typed"] = (200, {"config_yaml": f"name: typed\n{inputs}steps: []\n"})
    given = ["n=5", "on=true", 'list=["a", 1]', "text=5", "any=5", "more=5"]
    arguments = [part for entry in given for part in ("-i", entry)]
    assert aigateway(gateway, "run", "typed", "--detach", *arguments, cwd=tmp_path)[0] == 0
    typed = {"n": 5, "on": True, "list": ["a", 1], "text": "5", "any": "5", "more": "5"}
    assert gateway.asked[1] == ("POST", "/v1/workflows/typed/runs", {"input": typed})
    code, out, err = aigateway(gateway, "run", "typed", "-i", "n=five", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err == "aigateway: Invalid value for -i: n has to be an integer, not 'five' (see `aigateway run --help`)\n"
    (tmp_path / "mine.yaml").write_text(f"name: mine\n{inputs}steps:\n  - {{id: a, type: set, value: 1}}\n")
    assert aigateway(gateway, "run", "mine.yaml", "--detach", "-i", "n=7", cwd=tmp_path)[0] == 0
    assert gateway.asked[-1][2]["input"] == {"n": 7}


@pytest.mark.parametrize(("flags", "shown"), [([], "r1\n"), (["--json"], None)])
def test_run_detach_prints_the_id(tmp_path: Path, flags: list[str], shown: str | None) -> None:
    code, out, _ = aigateway(Gateway(), "run", "research", "--detach", *flags, cwd=tmp_path)
    assert code == 0
    assert out == shown if shown else json.loads(out)["id"] == "r1"


def test_a_failed_run_is_exit_1_and_one_line(tmp_path: Path) -> None:
    gateway = Gateway()
    gateway.runs = [FAILED]
    code, out, err = aigateway(gateway, "run", "research", cwd=tmp_path)
    assert (code, out) == (1, "")
    assert err == "aigateway: run r1 failed at step report: no money ($0.0123 paid so far)\n"


def test_a_run_that_its_budget_paused_says_how_it_goes_on(tmp_path: Path) -> None:
    gateway = Gateway()
    gateway.runs = [FAILED | {"status": "paused", "error": None, "pause_reason": "budget_exceeded"}]
    code, _, err = aigateway(gateway, "run", "research", cwd=tmp_path)
    assert code == 1 and "run r1 paused: its budget is used up; `aigateway runs resume r1 --budget USD`" in err


def test_ctrl_c_detaches(tmp_path: Path) -> None:
    gateway = Gateway()
    gateway.runs = [RUN]
    with served(gateway) as url, start(url, "run", "research", cwd=tmp_path) as process:
        assert gateway.looked.wait(30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.strip() == "detached: the run goes on; see `aigateway runs show r1`"
    assert not any("cancel" in path for _, path, _ in gateway.asked)


def test_a_refusal_is_shown_with_its_details(tmp_path: Path) -> None:
    gateway = Gateway()
    detail = {"message": "topic is required", "path": "input.topic", "line": None, "column": None, "suggestion": None}
    error = {"message": "the input does not fit", "type": "invalid_request_error", "code": "x", "param": "input"}
    gateway.answers["/v1/workflows/research/runs"] = (400, {"error": error | {"details": [detail]}})
    code, out, err = aigateway(gateway, "run", "research", cwd=tmp_path)
    assert (code, out) == (1, "")
    assert err.splitlines() == ["aigateway: the input does not fit", "aigateway:   topic is required"]


def test_runs_are_listed_shown_and_cancelled(tmp_path: Path) -> None:
    gateway = Gateway()
    gateway.runs, gateway.steps = [DONE], [[step("search", "succeeded", "lost", "succeeded")]]
    gateway.answers["/v1/runs"] = (200, {"object": "list", "data": [DONE], "next_cursor": None})
    gateway.answers["/v1/runs/r1/cancel"] = (202, RUN | {"status": "cancelled"})
    code, out, _ = aigateway(gateway, "runs", "list", "--status", "failed", cwd=tmp_path)
    assert (code, out) == (0, "r1\tresearch\tsucceeded\t2026-11-22T07:00:00.000000Z\t1500\t$0.0123\n")
    assert gateway.asked[0][1] == "/v1/runs?status=failed&limit=20"
    narrowed = ("--tag", "team:a", "--since", "2026-11-01", "--limit", "3")
    assert aigateway(gateway, "runs", "list", *narrowed, cwd=tmp_path)[0] == 0
    assert gateway.asked[-1][1] == "/v1/runs?tag=team%3Aa&since=2026-11-01T00%3A00%3A00%2B00%3A00&limit=3"
    code, out, _ = aigateway(gateway, "runs", "show", "r1", cwd=tmp_path, COLUMNS="90")
    assert code == 0
    assert "search: attempt 1 lost on w1" in out
    assert "1,500 tokens" in out
    code, out, _ = aigateway(gateway, "runs", "show", "r1", "--json", cwd=tmp_path)
    assert json.loads(out)["steps"][0]["id"] == "search"
    assert aigateway(gateway, "runs", "cancel", "r1", cwd=tmp_path)[:2] == (0, "r1 cancelled\n")
    over = {"message": "it is over", "type": "invalid_request_error", "code": "run_ended", "param": None}
    gateway.answers["/v1/runs/r0/cancel"] = (409, {"error": over})
    several = aigateway(gateway, "runs", "cancel", "r0", "r1", cwd=tmp_path)
    assert several == (1, "r1 cancelled\n", "aigateway: r0: it is over\n")
    gateway.answers["/v1/runs/r1/resume"] = (202, RUN)
    assert aigateway(gateway, "runs", "resume", "r1", "--budget", "2", cwd=tmp_path)[:2] == (0, "r1 running\n")
    assert gateway.asked[-1] == ("POST", "/v1/runs/r1/resume", {"budget_usd": 2.0})
    event = {"id": 1, "type": "step.started", "step": "a", "attempt": 1, "at": "now", "data": None}
    gateway.answers["/v1/runs/r1/events"] = (200, {"object": "list", "data": [event], "next_cursor": None})
    assert aigateway(gateway, "runs", "events", "r1", cwd=tmp_path)[:2] == (0, "now\tstep.started\ta\t1\n")
    assert aigateway(gateway, "runs", "show", "no/such", cwd=tmp_path) == (1, "", "aigateway: no /v1/runs/no%2Fsuch\n")


def test_runs_are_forked_and_signalled(tmp_path: Path) -> None:
    gateway = Gateway()
    gateway.runs = [DONE | {"input": {"topic": "owls", "count": 1}}]
    new = DONE | {"id": "r2", "status": "queued"}
    gateway.answers["/v1/runs/r1/fork"] = (201, new)
    fork = ("runs", "fork", "r1", "--from", "report")
    assert aigateway(gateway, *fork, cwd=tmp_path)[:2] == (0, "r2 queued\n")
    assert gateway.asked[-1][2] == {"from_step": "report", "models": {}}
    more = ("-i", "count:=2", "--model", "report=fast", "--model", "draft=a/b=c", "--json")
    code, out, _ = aigateway(gateway, *fork, *more, cwd=tmp_path)
    assert (code, json.loads(out)["id"]) == (0, "r2")
    models = {"report": "fast", "draft": "a/b=c"}
    assert gateway.asked[-1][2] == {"from_step": "report", "models": models, "input": {"topic": "owls", "count": 2}}
    typed = ("-i", "count=3", "-i", "topic=7")
    for version, text in ((None, ""), (4, "inputs: {count: {type: integer}, topic: {type: string}}\n")):
        gateway.answers["/v1/runs/r1"] = (200, gateway.runs[0] | {"version": version})
        gateway.answers["/v1/workflows/research/versions"] = (200, {"data": [{"version": 4, "config_yaml": text}]})
        assert aigateway(gateway, *fork, *typed, cwd=tmp_path)[0] == 0
        assert gateway.asked[-1][2]["input"] == {"topic": "7", "count": 3}
    gateway.answers["/v1/runs/r1/signals/go"] = (202, RUN)
    sent = [
        (('{"ok": true}',), {"ok": True}),
        (("-d", "ok:=true", "-d", "by=Ann"), {"ok": True, "by": "Ann"}),
        (("false",), False),
        ((), ""),
    ]
    for arguments, payload in sent:
        assert aigateway(gateway, "runs", "signal", "r1", "go", *arguments, cwd=tmp_path)[:2] == (0, "r1 running\n")
        assert gateway.asked[-1] == ("POST", "/v1/runs/r1/signals/go", payload)
    asked = len(gateway.asked)
    for wrong in (("signal", "r1", "go", "{"), ("signal", "r1", "go", "1", "-d", "a=b"), ("signal", "r1", "go", "-d", "a"),
                  ("fork", "r1"), ("fork", "r1", "--from", "a", "--model", "x"), ("fork", "r1", "--from", "a", "-i", "x")):  # fmt: skip
        code, _, err = aigateway(gateway, "runs", *wrong, cwd=tmp_path)
        assert (code, len(gateway.asked)) == (2, asked), err


def test_definitions_are_listed_shown_and_pushed(tmp_path: Path) -> None:
    gateway = Gateway()
    entry = {"name": "mine", "version": 2, "updated_at": "now", "config_yaml": "name: mine"}
    gateway.answers["/v1/workflows"] = (200, {"object": "list", "data": [entry], "next_cursor": None})
    gateway.answers["/v1/workflows/mine"] = (200, entry)
    text = "name: mine\nsteps:\n  - {id: a, type: set, value: 1}  # kept\n"
    (tmp_path / "mine.yaml").write_text(text)
    assert aigateway(gateway, "workflows", "list", cwd=tmp_path)[:2] == (0, "mine\t2\tnow\n")
    assert aigateway(gateway, "workflows", "show", "mine", cwd=tmp_path)[:2] == (0, "name: mine\n")
    assert aigateway(gateway, "workflows", "push", "mine.yaml", cwd=tmp_path)[:2] == (0, "mine version 2\n")
    assert gateway.asked[-1] == ("PUT", "/v1/workflows/mine", text)
    warning = {"message": "there is no workflow 'x'", "path": "steps.a.workflow", "line": 3, "column": 6}
    gateway.answers["/v1/workflows/mine"] = (200, entry | {"warnings": [warning]})
    code, out, err = aigateway(gateway, "workflows", "push", "mine.yaml", cwd=tmp_path)
    assert (code, out) == (0, "mine version 2\n")
    gateway.answers["/v1/workflows/mine"] = (204, "")
    assert aigateway(gateway, "workflows", "delete", "mine", cwd=tmp_path)[:2] == (0, "mine is deleted\n")
    assert gateway.asked[-1][:2] == ("DELETE", "/v1/workflows/mine")
    shown = "mine.yaml:3:6: warning: steps.a.workflow: there is no workflow 'x'\n"
    assert err == shown + "      - {id: a, type: set, value: 1}  # kept\n         ^\n"


def test_a_server_checks_what_files_name(tmp_path: Path) -> None:
    gateway = Gateway()
    gateway.answers["/health"] = (200, {"status": "healthy"})
    warning = {"message": "no such model", "path": "steps.a.model", "line": 3, "column": 30, "suggestion": "local"}
    gateway.answers["/v1/workflows/validate"] = (200, {"valid": True, "name": "mine", "warnings": [warning]})
    text = "name: mine\nsteps:\n  - {id: a, type: llm, model: m, prompt: x}\n"
    (tmp_path / "mine.yaml").write_text(text)
    code, out, err = aigateway(gateway, "workflows", "validate", "mine.yaml", cwd=tmp_path)
    assert (code, out) == (0, "mine.yaml: ok, 1 warning\n")
    assert err.startswith("mine.yaml:3:30: warning: steps.a.model: no such model (did you mean local?)\n")
    assert gateway.asked[-1] == ("POST", "/v1/workflows/validate", text)
    code, out, _ = aigateway(gateway, "workflows", "validate", "--strict", "--json", "mine.yaml", cwd=tmp_path)
    (told,) = json.loads(out)
    assert (code, told["mistakes"], told["warnings"][0]["column"]) == (1, [], 30)
    assert told["checked_against"].startswith("http://127.0.0.1:")
    refusal = {"message": "no such model", "code": "model_not_found", "details": [warning | {"line": None}]}
    gateway.answers["/v1/runs"] = (400, {"error": refusal})
    code, out, err = aigateway(gateway, "run", "mine.yaml", cwd=tmp_path)
    assert (code, out) == (1, "")
    assert err.splitlines()[0] == "mine.yaml:3:31: steps.a.model: no such model (did you mean local?)"
    assert err.splitlines()[2].index("^") == err.splitlines()[1].index("m, prompt")
    gateway.answers["/v1/workflows/validate"] = (401, {"error": {"message": "a key is needed", "code": "no_key"}})
    code, out, err = aigateway(gateway, "workflows", "validate", "mine.yaml", cwd=tmp_path)
    assert (code, out, "is not asked: a key is needed" in err) == (0, "mine.yaml: ok\n", True)


def test_spend_is_shown_and_written(tmp_path: Path) -> None:
    gateway = Gateway()
    gateway.answers["/v1/spend"] = (
        200,
        {"data": [{"model": "m", "calls": 3, "cost_usd": 0.5, "cost_unknown_calls": 1, "tokens": 9, "usage": {}}]},
    )
    gateway.answers["/v1/spend.csv"] = (200, "model,cost_usd\r\nm,0.5\r\n")
    assert aigateway(gateway, "spend", "--by", "model", cwd=tmp_path)[:2] == (0, "m\t3\t$0.50\t1\t9\n")
    assert gateway.asked[-1][1] == "/v1/spend?group_by=model&limit=200"
    assert aigateway(gateway, "spend", "--by", "model,tag", "--json", cwd=tmp_path)[0] == 0
    assert aigateway(gateway, "spend", "--since", "2026-11-01", "--csv", "out.csv", cwd=tmp_path)[0] == 0
    assert (tmp_path / "out.csv").read_bytes() == b"model,cost_usd\r\nm,0.5\r\n"
    assert "since=2026-11-01T00%3A00%3A00%2B00%3A00" in gateway.asked[-1][1]


def test_tools_are_listed(tmp_path: Path) -> None:
    gateway = Gateway()
    tool = {"server": "git", "name": "git_log", "description": "Shows commits.\nMore.", "input_schema": {}}
    gateway.answers["/v1/mcp/tools"] = (200, {"object": "list", "data": [tool]})
    assert aigateway(gateway, "mcp", "tools", cwd=tmp_path)[:2] == (0, "git\tgit_log\tShows commits.\n")


def test_what_answers_no_json_is_named(tmp_path: Path) -> None:
    gateway = Gateway()
    gateway.answers["/v1/mcp/tools"] = (200, "<html>")
    gateway.answers["/v1/runs"] = (502, "<html>")
    code, _, err = aigateway(gateway, "mcp", "tools", cwd=tmp_path)
    assert code == 1
    assert "answered no JSON to GET /v1/mcp/tools: is it an aigateway?" in err
    assert aigateway(gateway, "runs", "list", cwd=tmp_path)[2] == "aigateway: the server answered 502 to GET /v1/runs\n"


def test_the_key_is_sent_and_what_nobody_foresaw_is_one_line(tmp_path: Path) -> None:
    gateway = Gateway()
    gateway.answers["/v1/runs"] = (200, {"data": [{}]})
    code, _, err = aigateway(gateway, "runs", "list", cwd=tmp_path, AIGATEWAY_API_KEY="agw-1", TMPDIR=str(tmp_path))
    assert gateway.asked_headers["authorization"] == "Bearer agw-1"  # type: ignore[attr-defined]
    assert code == 1
    assert err.count("\n") == 1
    assert err.startswith("aigateway: unexpected KeyError: 'id' (details in ")
    (log,) = tmp_path.glob("aigateway-error-*.log")
    assert "Traceback" in log.read_text()
    code, _, err = aigateway(gateway, "--debug", "runs", "list", cwd=tmp_path)
    assert (code, "Traceback" in err) == (1, True)
