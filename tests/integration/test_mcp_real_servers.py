"""The bridge with servers that nobody here wrote, over stdio: mcp-server-git, mcp-server-time, and server-everything."""

import asyncio
import json
import shutil
import socket
import subprocess

import psutil
import pytest
from integration.mcp_bridging import ROOT, bridge, module, reaped, refused, run

from engine.states import ErrorClass
from mcp_bridge.servers import McpServerConfig

EVERYTHING = ROOT / ".cache/node/node_modules/.bin/mcp-server-everything"
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed on this machine")


@pytest.fixture
def repository(tmp_path):
    def git(*args):
        subprocess.run(
            ["git", "-C", tmp_path, "-c", "user.name=T", "-c", "user.email=t@example.com", *args], check=True
        )

    git("init", "-q", "-b", "main")
    (tmp_path / "tea.md").write_text("# Tea\n")
    git("add", "tea.md")
    git("commit", "-q", "-m", "Plant the first camellia")
    return tmp_path


def everything(**settings):
    assert EVERYTHING.exists(), "run scripts/setup-node-servers.sh"
    return McpServerConfig(name="everything", command=str(EVERYTHING), **settings)


def test_git_and_time_side_by_side_each_called_without_its_name(repository):
    async def work():
        git = module("git", "mcp_server_git", "-r", str(repository))
        async with bridge(git, module("time", "mcp_server_time", "--local-timezone", "UTC")) as b:
            tools = {t.name: t for t in await b.tools()}
            assert {"git_log", "git_status", "get_current_time", "convert_time"} <= tools.keys()
            assert tools["git_log"].input_schema["required"] == ["repo_path"]
            log = await b.call("git_log", {"repo_path": str(repository)})
            assert log.server == "git" and "Plant the first camellia" in log.value
            time = await b.call("get_current_time", {"timezone": "UTC"})
            assert time.server == "time" and time.value["timezone"] == "UTC"
            error = await refused(b.call("get_current_time", {"timezone": "Moon/Sea"}))
            assert error.error_class is ErrorClass.TOOL_ERROR and "Moon/Sea" in error.message
            assert {(s.name, s.status, s.error) for s in await b.servers()} == {
                ("git", "connected", None),
                ("time", "connected", None),
            }

    run(work())


def test_a_killed_server_is_started_again_by_the_next_call():
    async def work():
        async with bridge(module("time", "mcp_server_time")) as b:
            await b.call("get_current_time", {"timezone": "UTC"})
            (server,) = [p for p in psutil.Process().children(recursive=True) if "mcp_server_time" in p.cmdline()]
            server.kill()
            assert await reaped(server)
            assert (await b.call("get_current_time", {"timezone": "UTC"})).value["timezone"] == "UTC"
            assert (await b.servers())[0].restarts == 1

    run(work())


@needs_node
def test_everything_over_stdio():
    async def work():
        async with bridge(everything()) as b:
            assert {"echo", "get-sum", "get-structured-content"} <= {t.name for t in await b.tools()}
            assert (await b.call("echo", {"message": "hello"})).value == "Echo: hello"
            weather = (await b.call("get-structured-content", {"location": "New York"})).value
            assert weather.keys() == {"temperature", "conditions", "humidity"}
            error = await refused(b.call("get-sum", {"a": "one"}))
            assert error.error_class is ErrorClass.TOOL_ERROR
            long = {"duration": 30, "steps": 100}
            error = await refused(b.call("trigger-long-running-operation", long, timeout_s=0.5))
            assert error.error_class is ErrorClass.TIMEOUT
            assert (await b.call("echo", {"message": "still here"})).value == "Echo: still here"
            await b.call("toggle-simulated-logging", {})
            answers = await asyncio.gather(*(b.call("get-sum", {"a": n, "b": 1}) for n in range(20)))
            assert [a.value for a in answers] == [f"The sum of {n} and 1 is {n + 1}." for n in range(20)]
            environment = json.loads((await b.call("get-env", {})).value)
            assert "PATH" in environment

    run(work())


@needs_node
def test_everything_over_http_is_found_again_after_it_was_restarted():
    port = _free_port()
    url = f"http://127.0.0.1:{port}/mcp"

    async def work():
        async with bridge(McpServerConfig(name="everything", url=url, connect_timeout_s=10)) as b:
            server = await _started(port)
            try:
                assert (await b.call("echo", {"message": "one"})).value == "Echo: one"
                await _stopped(server)
                error = await refused(b.call("echo", {"message": "two"}))
                assert error.error_class is ErrorClass.CONNECTION and not error.sent
                assert (await b.servers())[0].status == "failed"
                server = await _started(port)
                assert (await b.call("echo", {"message": "three"})).value == "Echo: three"
                assert (await b.servers())[0].status == "connected"
            finally:
                await _stopped(server)

    run(work())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


async def _started(port: int) -> asyncio.subprocess.Process:
    assert EVERYTHING.exists(), "run scripts/setup-node-servers.sh"
    env = {"PATH": "/usr/bin:/bin:/usr/local/bin", "PORT": str(port)}
    server = await asyncio.create_subprocess_exec(
        str(EVERYTHING), "streamableHttp", env=env, stderr=asyncio.subprocess.PIPE
    )
    assert server.stderr is not None
    while b"listening" not in await server.stderr.readline():
        assert server.returncode is None
    return server


async def _stopped(server: asyncio.subprocess.Process) -> None:
    if server.returncode is None:
        server.kill()
    await server.wait()
