"""No server outlives the process that started it, however that process ends."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest
from integration.mcp_bridging import HOSTILE, ROOT, gone

PARENT = """
import asyncio, os, sys
from mcp_bridge.bridge import McpBridge
from mcp_bridge.servers import McpServerConfig

async def main():
    args = ("-S", "-E", "-P", sys.argv[1], "ok")
    servers = {n: McpServerConfig(name=n, command=sys.executable, args=args) for n in ("a", "b")}
    bridge = McpBridge(servers, environment=dict(os.environ))
    for name, tool in {"a": "family", "b": "group_suicide"}.items():
        print((await bridge.call(tool, {}, server=name)).value, flush=True)
    ENDING

asyncio.run(main())
"""
ENDINGS = {
    "killed": "await asyncio.sleep(600)",
    "never closed": "return",
    "crashed": "raise SystemExit(3)",
    "exits hard": "os._exit(4)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_servers_and_their_children_end_with_the_process(ending, tmp_path):
    (tmp_path / "mcp_bridge").mkdir()  # a folder of the user's own must not take our place
    (tmp_path / "mcp_bridge" / "__init__.py").write_text("raise RuntimeError('shadowed')")
    program = PARENT.replace("ENDING", ENDINGS[ending])
    parent = subprocess.Popen(
        [sys.executable, "-P", "-c", program, HOSTILE],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    with parent.stdout:
        pids = [pid for _ in range(2) for pid in json.loads(parent.stdout.readline())]
        assert len(pids) == 4
        family = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        if ending == "killed":
            assert len(family) == 4
            guards = [p for p in psutil.Process(parent.pid).children() if p.pid not in pids]
            assert len(guards) == 2 and sum(g.memory_info().rss for g in guards) < 8_000_000
            family += guards
            parent.send_signal(signal.SIGKILL)
        parent.wait(timeout=20)
    assert gone(family)
