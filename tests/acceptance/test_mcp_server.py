"""This gateway as an MCP server: the real client over stdio and HTTP, in old and new versions of the protocol, and hostile ones."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from gateway import Gateway, gateway
from mcp import Client, MCPError, StdioServerParameters
from services import wait_until

HOSTILE = str(Path(__file__).parents[1] / "integration" / "mcp_hostile_server.py")
CONFIG: dict[str, Any] = {
    "providers": {"sim": {"type": "simulated", "models": {"slow": {"reply": "slow", "delay": "1500ms"}}}},
    "mcp": {"pass_tools": True},
    "mcp_servers": {
        "plain": {"command": sys.executable, "args": ["-S", "-E", "-P", HOSTILE, "ok"]},
        "a b__c": {"command": sys.executable, "args": ["-S", "-E", "-P", HOSTILE, "ok"]},
    },
}
ADD = """
name: add
description: Adds two numbers.
inputs:
  a: {type: integer}
  b: {type: integer, default: 2}
  more: {type: array, items: {$ref: "#/$defs/n"}, $defs: {n: {type: integer}}, default: []}
steps: [{id: sum, type: set, value: "${input.a + input.b}"}]
"""
BAD = 'name: bad\nsteps: [{id: first, type: set, value: 1}, {id: breaks, type: set, value: "${1 / 0}"}]\n'
SLOW = "name: slow\nsteps: [{id: one, type: llm, model: sim/slow, prompt: x}, {id: two, type: llm, model: sim/slow, prompt: x}]\n"
ACCEPT = {"accept": "application/json, text/event-stream"}
HANDSHAKES = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")


def with_client(target: Any, mode: str, use: Callable[[Client], Coroutine[Any, Any, Any]]) -> Any:
    async def work() -> Any:
        async with asyncio.timeout(90), Client(target, mode=mode) as client:  # type: ignore[arg-type]
            return await use(client)

    return asyncio.run(work())


def over_stdio(folder: Path, environment: dict[str, str]) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable, args=["-P", "-m", "aigateway", "mcp"], env=environment, cwd=str(folder)
    )


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("home")
    (folder / "workflows").mkdir()
    for name, text in (("add", ADD), ("bad", BAD), ("slow", SLOW)):
        (folder / "workflows" / f"{name}.yaml").write_text(text)
    with gateway(folder, CONFIG) as installed:
        installed.serve()
        yield installed


async def everything(client: Client) -> str:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert {"add", "bad", "slow", "research-assistant", "get_run", "plain__echo"} <= tools.keys()
    assert tools["add"].description == "Adds two numbers."
    assert tools["add"].input_schema == {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {"type": "integer", "default": 2},
            "more": {
                "type": "array",
                "items": {"$ref": "#/properties/more/$defs/n"},
                "$defs": {"n": {"type": "integer"}},
                "default": [],
            },
        },
        "required": ["a"],
        "additionalProperties": False,
    }
    answers = await asyncio.gather(*(client.call_tool("add", {"a": number}) for number in range(10)))
    assert [answer.structured_content["output"] for answer in answers] == list(range(2, 12))
    done = answers[0]
    assert (done.is_error, done.content[0].text, done.structured_content["status"]) == (False, "2", "succeeded")
    refused = await client.call_tool("add", {"a": "x", "c": 1})
    assert refused.is_error and "input.a: has to be integer" in refused.content[0].text
    assert "input.c: is not an input" in refused.content[0].text
    failed = await client.call_tool("bad", {})
    assert failed.is_error and "failed at step breaks" in failed.content[0].text
    assert failed.structured_content["error"]["step"] == "breaks"
    again = await client.call_tool("get_run", {"run_id": failed.structured_content["run_id"]})
    assert again.structured_content == failed.structured_content
    told: list[tuple[float, str | None]] = []

    async def hear(progress: float, _: float | None, message: str | None) -> None:
        told.append((progress, message))

    slow = await client.call_tool("slow", {}, progress_callback=hear)
    run_id = slow.structured_content["run_id"]
    assert slow.structured_content["output"] == "slow" and len(told) >= 2
    assert [progress for progress, _ in told] == sorted({progress for progress, _ in told})
    assert all(message is not None and run_id in message for _, message in told)
    with pytest.raises(MCPError, match=r"has no tool 'ad', did you mean .*add"):
        await client.call_tool("ad", {})
    strange = next(name for name in tools if name.startswith("a_b__c__echo-"))
    for name in ("plain__echo", strange):
        echoed = await client.call_tool(name, {"x": 1})
        assert json.loads(echoed.content[0].text) == {"x": 1}
    return client.protocol_version


@pytest.mark.parametrize(("mode", "version"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
def test_the_real_client_over_http(up: Gateway, mode: str, version: str) -> None:
    assert with_client(f"{up.url}/mcp", mode, everything) == version


@pytest.mark.parametrize(("mode", "version"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
def test_the_real_client_over_stdio_in_front_of_the_running_server(up: Gateway, mode: str, version: str) -> None:
    before = len(up.http.get("/v1/runs?workflow=add").json()["data"])
    environment = up.environment | {"AIGATEWAY_SERVER__PORT": str(up.port)}
    assert with_client(over_stdio(up.folder, environment), mode, everything) == version
    assert len(up.http.get("/v1/runs?workflow=add").json()["data"]) == before + 10
    assert psutil.pid_exists(up.processes[0].pid)


@pytest.mark.parametrize("version", HANDSHAKES)
def test_every_handshake_that_the_library_knows(up: Gateway, version: str) -> None:
    client = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}
    answered = _ask(up, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client})
    assert answered["result"]["protocolVersion"] == version
    call = {"name": "add", "arguments": {"a": 1}}
    answered = _ask(up, {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}, version)
    assert answered["result"]["content"][0]["text"] == "3"


def _ask(up: Gateway, message: dict[str, Any], version: str | None = None) -> dict[str, Any]:
    headers = ACCEPT | ({"mcp-protocol-version": version} if version else {})
    answer = up.http.post("/mcp", json=message, headers=headers)
    assert answer.status_code == 200, answer.text
    data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return json.loads(data[-1]) if data else answer.json()


def test_a_run_goes_on_when_its_client_stops_waiting(up: Gateway) -> None:
    async def leave(client: Client) -> str:
        said: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def hear(_: float, __: float | None, message: str | None) -> None:
            if not said.done():
                said.set_result(str(message).split()[1])

        call = asyncio.create_task(client.call_tool("slow", {}, progress_callback=hear))
        run_id = await said
        call.cancel()
        return run_id

    for mode in ("auto", "legacy"):
        run_id = with_client(f"{up.url}/mcp", mode, leave)
        assert up.finished(run_id)["status"] == "succeeded"


def test_a_workflow_that_is_pushed_later_is_a_tool_at_once(up: Gateway) -> None:
    async def look(client: Client) -> None:
        text = "name: later\nsteps: [{id: a, type: set, value: hello}]\n"
        assert up.http.put("/v1/workflows/later", content=text).status_code == 201
        assert "later" in [tool.name for tool in (await client.list_tools()).tools]
        assert (await client.call_tool("later", {"any": 1})).content[0].text == "hello"
        assert up.http.delete("/v1/workflows/later").status_code == 204
        assert "later" not in [tool.name for tool in (await client.list_tools()).tools]

    with_client(f"{up.url}/mcp", "auto", look)


def test_hostile_input_is_answered(up: Gateway) -> None:
    def post(content: str | bytes, **headers: str) -> httpx2.Response:
        return up.http.post("/mcp", content=content, headers={"content-type": "application/json"} | ACCEPT | headers)

    def call(**params: Any) -> str:
        return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})

    deep = (
        '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "arguments": ' + '{"a":' * 5000
    )
    for content in ("", "garbage", "[]", "null", "{}", deep, b"\xff\xfe", call(name="add", arguments={"a": "\ud800"}), call(), call(name=5), call(name="add", arguments=[]),
                    '{"jsonrpc": "2.0", "id": {}, "method": "tools/call"}', '{"jsonrpc": "2.0", "id": 1, "method": "nope"}'):  # fmt: skip
        answer = post(content)
        assert answer.status_code in (200, 202, 400, 404), (content[:80], answer.text)
        assert answer.status_code != 200 or '"error"' in answer.text, (content[:80], answer.text)
    for name in ("", "../../v1/keys", "x" * 100_000, "add\0", "ädd", "__", "plain__", "no__echo", "plain__no"):
        assert "has no tool" in post(call(name=name)).text, name[:50]
    for arguments in ({"a": "\0"}, {"a": 1, "x" * 1000: 1}, {"a": 10**400}):
        assert '"isError":true' in post(call(name="add", arguments=arguments)).text.replace(" ", ""), arguments
    for arguments in ({}, {"run_id": 5}, {"run_id": "../keys"}, {"run_id": "x" * 5000}):
        assert '"isError":true' in post(call(name="get_run", arguments=arguments)).text.replace(" ", ""), arguments
    assert post("x" * (33 * 1024 * 1024)).status_code == 413
    assert up.http.post("/mcp", content="{}", headers={"content-type": "text/plain"}).status_code in (400, 406, 415)
    assert up.http.get("/mcp").status_code == 405
    foreign = post(call(name="add"), origin="https://elsewhere.example")
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (403, "foreign_origin")
    assert post(call(name="add"), host="elsewhere.example").status_code == 403
    assert "Traceback" not in up.logs()


def test_a_thousand_calls_leave_nothing_behind(up: Gateway) -> None:
    run_id = up.submit("add", {"a": 1})
    up.finished(run_id)

    async def ask(client: Client, times: int) -> None:
        for _ in range(times // 20):
            asked = (client.call_tool("get_run", {"run_id": run_id}) for _ in range(20))
            assert not any(answer.is_error for answer in await asyncio.gather(*asked))

    def footprint() -> tuple[int, int, int]:
        process = psutil.Process(up.processes[0].pid)
        return process.num_fds(), process.num_threads(), process.memory_info().rss

    with_client(f"{up.url}/mcp", "auto", lambda client: ask(client, 60))
    with_client(f"{up.url}/mcp", "legacy", lambda client: ask(client, 60))
    fds, threads, rss = footprint()
    with_client(f"{up.url}/mcp", "auto", lambda client: ask(client, 580))
    with_client(f"{up.url}/mcp", "legacy", lambda client: ask(client, 300))
    wait_until(lambda: footprint()[0] <= fds + 4, "connections are closed", 20)
    now = footprint()
    assert now[1] <= threads + 2 and now[2] < rss * 1.1, (fds, threads, rss, now)


def test_stdio_without_a_server_runs_one_until_input_ends_and_speaks_nothing_but_the_protocol(tmp_path: Path) -> None:
    with gateway(tmp_path, {"server": {"port": 9}}) as installed:
        (tmp_path / "workflows").mkdir()
        (tmp_path / "workflows" / "add.yaml").write_text(ADD)
        command = [sys.executable, "-P", "-m", "aigateway", "mcp"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, cwd=tmp_path, env=installed.environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        assert process.stdin is not None and process.stdout is not None
        client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        said = [
            '{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": ' + json.dumps(client) + "}",
            '{"jsonrpc": "2.0", "method": "notifications/initialized"}',
            "this is no message",
            '{"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "add", "arguments": {"a": 40}}}',
        ]
        process.stdin.write("\n".join(said) + "\n")
        process.stdin.flush()
        answers: list[dict[str, Any]] = []
        while not any(answer.get("id") == 2 for answer in answers):
            answers.append(json.loads(process.stdout.readline()))
        assert answers[-1]["result"]["structuredContent"]["output"] == 42
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        rest, errors = process.communicate(timeout=30)
        assert (process.returncode, rest, errors) == (0, "", "")
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive
