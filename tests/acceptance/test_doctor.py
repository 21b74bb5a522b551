"""`aigateway doctor`: everything that can be wrong is found, told apart and can be mended by what it says; nothing is changed."""

import hashlib
import json
import sqlite3
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, gateway
from services import free_port

HOSTILE = str(Path(__file__).parents[1] / "integration" / "mcp_hostile_server.py")


@pytest.fixture
def upstream() -> Iterator[str]:
    """An API under /good that wants the key `right`; anything else is a web page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = 200, "<html>hello</html>"
            if self.path.startswith("/good/"):
                status, body = 200, json.dumps({"data": [{"id": "m-1"}, {"id": "m-2"}]})
                if self.headers.get("authorization") != "Bearer right":
                    status, body = (
                        401,
                        json.dumps({"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}),
                    )
            elif self.path.startswith("/down/"):
                status, body = 503, "no"
            elif self.path.startswith("/hung/"):
                ended.wait(20)
                return
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    ended = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    ended.set()
    server.shutdown()
    server.server_close()


def examined(installed: Gateway) -> tuple[int, dict[str, dict[str, Any]]]:
    done = installed.run("doctor", "--json")
    assert done.stderr == "", done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] == (done.returncode == 0)
    assert all(found["mend"] for found in told["data"] if found["status"] != "ok")
    found: dict[str, dict[str, Any]] = {}
    for entry in told["data"]:
        found.setdefault(entry["check"], entry)
    return done.returncode, found


def contents(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_everything_that_is_wrong_is_found_and_told_apart(tmp_path: Path, upstream: str) -> None:
    def openai(path: str, key: str | None = "right", **more: Any) -> dict[str, Any]:
        return {"type": "openai", "base_url": f"{upstream}/{path}", **({"api_key": key} if key else {}), **more}

    config = {
        "redis_url": f"redis://127.0.0.1:{free_port()}/0",
        "providers": {
            "good": openai("good", default_model="m-1"),
            "bad_key": openai("good", "wrong"),
            "no_key": openai("good", None),
            "page": openai("page"),
            "down": openai("down"),
            "hung": openai("hung"),
            "away": {"type": "openai", "base_url": f"http://127.0.0.1:{free_port()}"},
        },
        "models": {"fast": "good/m-2", "typo": "good/m-3", "none": "simulated/ecko"},
        "mcp_servers": {
            "fine": {"command": sys.executable, "args": ["-S", "-E", "-P", HOSTILE, "ok"]},
            "ends": {"command": sys.executable, "args": ["-S", "-E", "-P", HOSTILE, "exits"]},
            "missing": {"command": "no-such-program-here"},
        },
    }
    with gateway(tmp_path, config) as installed:
        (tmp_path / "workflows").mkdir()
        (tmp_path / "workflows" / "bad.yaml").write_text("name: bad\nsteps: [{id: a, type: sett}]\n")
        (tmp_path / "workflows" / "lacks.yaml").write_text(
            "name: lacks\nsteps: [{id: a, type: mcp_tool, server: nowhere, tool: t}]\n"
        )
        before = contents(tmp_path)
        code, found = examined(installed)
        assert code == 1
        assert contents(tmp_path) == before
        health = {
            name.removeprefix("provider "): entry for name, entry in found.items() if name.startswith("provider ")
        }
        assert {name: entry["message"].partition(":")[0] for name, entry in health.items() if entry["status"] == "failed"} == {
            "bad_key": "bad key", "no_key": "missing key", "page": "wrong address", "down": "failing",
            "hung": "unreachable", "away": "unreachable", "ollama": "unreachable",
        }  # fmt: skip
        assert health["good"]["status"] == "ok"
        assert "right" not in json.dumps(found) and "providers.bad_key.api_key" in health["bad_key"]["mend"]
        servers = [found[f"mcp server {name}"] for name in ("fine", "ends", "missing")]
        assert [entry["status"] for entry in servers] == ["ok", "failed", "failed"]
        assert "no-such-program-here" in servers[2]["message"]
        assert found["queue"]["status"] == "failed" and "Redis" in found["queue"]["mend"]
        assert found["database"]["status"] == "ok" and "not there yet" in found["database"]["message"]
        told = installed.run("doctor").stdout
        assert "models.typo: good does not list m-3" in told and "models.none: simulated does not list ecko" in told
        assert "bad.yaml" in told and "lacks.yaml: step a: there is no MCP server 'nowhere'" in told


def test_a_healthy_gateway_is_healthy_before_while_and_after_it_runs(tmp_path: Path) -> None:
    with gateway(tmp_path) as installed:
        del installed.environment["OLLAMA_HOST"]  # nobody asked for one: that it is away fails nothing
        code, found = examined(installed)
        assert (code, list(tmp_path.iterdir())) == (0, [])
        assert found["workers"]["status"] == "warning"
        installed.serve()
        code, found = examined(installed)
        assert (code, found["workers"]["message"]) == (0, "1 API and 1 worker process live")
        installed.processes[0].terminate()
        installed.processes[0].wait(30)
        before = contents(tmp_path)
        code, found = examined(installed)
        assert (code, contents(tmp_path), found["workers"]["status"]) == (0, before, "warning")
        with sqlite3.connect(tmp_path / "aigateway.db") as database:
            database.execute("UPDATE alembic_version SET version_num = '0001'")
        database.close()
        code, found = examined(installed)
        assert (code, found["database"]["status"]) == (0, "warning") and "db upgrade" in found["database"]["mend"]
        with sqlite3.connect(tmp_path / "aigateway.db") as database:
            database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.close()
        code, found = examined(installed)
        assert (code, found["database"]["status"]) == (1, "failed") and "newer" in found["database"]["message"]
        (tmp_path / "aigateway.db").write_text("this is no database, and long enough to be taken for one" * 20)
        code, found = examined(installed)
        assert (code, found["database"]["status"]) == (1, "failed")


def test_every_mistake_of_the_configuration_is_a_finding(tmp_path: Path) -> None:
    with gateway(tmp_path) as installed:
        (tmp_path / "aigateway.yaml").write_text("nonsense: 1\nserver: {port: x}\n")
        done = installed.run("doctor", "--json")
        found = [entry["message"] for entry in json.loads(done.stdout)["data"]]
        assert (done.returncode, len(found)) == (1, 2)
        assert found[0].startswith("aigateway.yaml:1: nonsense: unknown key")


def test_postgresql_and_redis_are_looked_at(tmp_path: Path, postgres_url: str, redis_url: str) -> None:
    with gateway(tmp_path, AIGATEWAY_DATABASE_URL=postgres_url, AIGATEWAY_REDIS_URL=redis_url) as installed:
        del installed.environment["OLLAMA_HOST"]
        code, found = examined(installed)
        assert code == 0
        assert [found[name]["status"] for name in ("database", "clock", "queue")] == ["ok", "ok", "ok"]
        installed.environment["AIGATEWAY_DATABASE_URL"] = f"postgresql://nobody@127.0.0.1:{free_port()}/x"
        code, found = examined(installed)
        assert (code, found["database"]["status"]) == (1, "failed")
