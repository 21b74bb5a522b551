"""A real browser for tests, steered over its debugging pipe. It is stopped for sure, and its data lies in a temporary folder.

Needs no library and opens no port: the DevTools protocol as JSON, one message between two NUL bytes, on the fds 3 and 4.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, Self

DEADLINE_S = 30.0
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-pipe --no-proxy-server"
).split()
# Moves the pipes to where Chromium looks for them, dies with its parent, and becomes Chromium.
_LAUNCH = """
import ctypes, fcntl, os, signal, sys
there, back = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 20) for number in sys.argv[1:3])
os.dup2(there, 3)
os.dup2(back, 4)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.execv(sys.argv[3], sys.argv[3:])
"""


class BrowserError(RuntimeError):
    """Chromium is missing, ended, or did not answer in time."""


class NavigatedError(BrowserError):
    """The page went away while it was asked."""


class Chromium:
    """One browser with one tab. `requested` are the addresses it fetched, `complaints` what the console and the log say."""

    def __init__(self) -> None:
        program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if program is None:
            raise BrowserError("chromium is missing: apt-get install chromium (as root, `make test` does it)")
        self._folder = tempfile.mkdtemp(prefix="chromium-")
        read_end, self._out = os.pipe()
        self._in, write_end = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(read_end), str(write_end), program, *_FLAGS, self._data, "about:blank"],
            pass_fds=(read_end, write_end),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(read_end)
        os.close(write_end)
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.requested: list[str] = []
        self.complaints: list[str] = []
        self._loads = 0

    @property
    def _data(self) -> str:
        return f"--user-data-dir={self._folder}"

    def __enter__(self) -> Self:
        try:
            target = self.ask("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log"):
                self.ask(f"{domain}.enable")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the browser with all its children."""
        os.close(self._out)
        os.close(self._in)
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(DEADLINE_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol. Raises: BrowserError."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + DEADLINE_S
        while True:
            answer = self._next(end)
            if answer.get("id") == message["id"]:
                if "error" in answer:
                    kind = NavigatedError if "navigated" in answer["error"]["message"] else BrowserError
                    raise kind(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def open(self, address: str) -> None:
        """Go there; returns when the page has loaded."""
        loads = self._loads
        self.ask("Page.navigate", url=address)
        end = time.monotonic() + DEADLINE_S
        while self._loads == loads:
            self._next(end)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        result = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise BrowserError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    @property
    def text(self) -> str:
        """What the page's body shows."""
        return " ".join(str(self.run("document.body ? document.body.innerText : ''")).split())

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Until the condition holds. Raises: BrowserError, naming `what`."""
        end = time.monotonic() + DEADLINE_S
        while not self._holds(condition):
            if time.monotonic() > end:
                raise BrowserError(f"{what}, the page says: {self.text[:2000]}")
            self._drain(0.05)

    def _holds(self, condition: Callable[[], object]) -> bool:
        try:
            return bool(condition())
        except NavigatedError:
            return False

    def _drain(self, seconds: float) -> None:
        """Take in what the browser tells for a while."""
        end = time.monotonic() + seconds
        while select.select([self._in], [], [], max(0.0, end - time.monotonic()))[0]:
            self._next(end + DEADLINE_S)

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], max(0.0, end - time.monotonic()))[0]:
                raise BrowserError("chromium did not answer in time")
            chunk = os.read(self._in, 1 << 20)
            if not chunk:
                raise BrowserError(f"chromium ended with code {self._process.poll()}")
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        told = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requested.append(told["request"]["url"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded":
                self.complaints.append(json.dumps(told))
            case "Page.loadEventFired":
                self._loads += 1
            case _:
                pass
