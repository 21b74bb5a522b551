"""All three services in one process of their own: `python -P -m upstreams.serve` (with tests/ on the path).

Prints one line of JSON (`{"openai": base_url, "anthropic": …, "ollama": …}`) and ends when its standard input does, so that
it never outlives whoever started it. `RemoteControl` steers a service over HTTP.
"""

import asyncio
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from upstreams.anthropic import AnthropicUpstream
from upstreams.control import Fault
from upstreams.ollama import OllamaUpstream
from upstreams.openai import OpenAIUpstream
from upstreams.server import Upstream


class RemoteControl:
    """What `Upstream.control` offers, from another process. `base_url` is the one that clients get."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        parts = urlsplit(base_url)
        self._root = f"{parts.scheme}://{parts.netloc}/_control"

    def state(self) -> dict[str, Any]:
        return self._call("GET", "state")

    def reset(self) -> None:
        self._call("POST", "reset", {})

    def script(self, *faults: Fault | None, model: str | None = None) -> None:
        self._call("POST", "script", {"faults": [_data(fault) for fault in faults], "model": model})

    def always(self, fault: Fault | None, model: str | None = None) -> None:
        self._call("POST", "script", {"faults": [_data(fault)], "model": model, "always": True})

    def wait(self, condition: Callable[[dict[str, Any]], bool], timeout_s: float = 10.0) -> dict[str, Any]:
        """The first state for which `condition` holds. Raises: TimeoutError."""
        end = time.monotonic() + timeout_s
        while not condition(state := self.state()):
            if time.monotonic() > end:
                raise TimeoutError(f"the upstream never got there: {state['total']} calls")
            time.sleep(0.02)  # another process: there is nothing to wait on but the answer itself
        return state

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self._root}/{path}", data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)


@contextmanager
def upstream_process() -> Iterator[dict[str, RemoteControl]]:
    """The three services in a process that ends with the block, or with this process."""
    command = [sys.executable, "-P", "-m", "upstreams.serve"]
    tests = Path(__file__).resolve().parent.parent
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PYTHONPATH": str(tests)}, text=True
    ) as process:
        assert process.stdin and process.stdout
        try:
            yield {name: RemoteControl(url) for name, url in json.loads(process.stdout.readline()).items()}
        finally:
            process.stdin.close()
            process.wait(10)


async def main() -> None:
    services: dict[str, Upstream] = {
        "openai": OpenAIUpstream(),
        "anthropic": AnthropicUpstream(),
        "ollama": OllamaUpstream(),
    }
    runners = [await service.start() for service in services.values()]
    print(json.dumps({name: service.base_url for name, service in services.items()}), flush=True)
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    def watch() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=watch, daemon=True).start()
    await over.wait()
    for runner in runners:
        await runner.cleanup()


def _data(fault: Fault | None) -> Any:
    return None if fault is None else {**asdict(fault), "headers": dict(fault.headers)}


if __name__ == "__main__":
    asyncio.run(main())
