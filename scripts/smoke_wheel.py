"""Shows that the built wheel is whole: it runs outside its repository, with the runtime packages and nothing else.

Builds the wheel, installs it into `.cache/wheel-venv` (made by set-up from requirements.lock, so no network is needed),
and uses it as a stranger would from two folders: an empty one, and one with an `api` and a `worker` package of its own
that must never be imported. Run by `make check`.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".cache" / "wheel-venv"
PYTHON = VENV / "bin" / "python"
PROGRAM = VENV / "bin" / "aigateway"
START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 30.0
SHIPPED = ("migrations/versions/", "workflows/research-assistant", "api/pages/")
TRAP = "raise SystemExit('a package of the current folder was imported instead of the installed one')\n"
WORKFLOW = """
name: smoke
inputs:
  word: {type: string}
steps:
  - {id: ask, type: llm, model: simulated/echo, prompt: "${input.word}", output: answer}
output: ${answer}
"""


class SmokeFailed(Exception):
    """The wheel is not whole; the message says where it showed."""


def main() -> int:
    """Exit code 1 with one line where the wheel fails."""
    try:
        with tempfile.TemporaryDirectory(prefix="smoke-") as folder:
            wheel = build(Path(folder))
            refuse_incomplete(wheel)
            with installed(wheel):
                use_from(make_folder(Path(folder), "empty"))
                use_from(set_traps(make_folder(Path(folder), "trapped")))
    except (SmokeFailed, subprocess.CalledProcessError, OSError) as failure:
        print(f"wheel: {failure}", file=sys.stderr)
        return 1
    print("wheel: runs from an empty folder and from one with packages of the same names")
    return 0


def build(folder: Path) -> Path:
    """The wheel, built from the tree as it stands."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    return next(folder.glob("*.whl"))


def refuse_incomplete(wheel: Path) -> None:
    """Raises: SmokeFailed where something is left out that is not Python and so is easily forgotten."""
    names = zipfile.ZipFile(wheel).namelist()
    for prefix in SHIPPED:
        if not any(name.startswith(prefix) for name in names):
            raise SmokeFailed(f"{wheel.name} holds nothing that starts with {prefix}")


@contextmanager
def installed(wheel: Path) -> Generator[None]:
    """The wheel in its environment, and out of it again."""
    pip = [str(PYTHON), "-m", "pip"]
    if shutil.which("uv"):
        pip = ["uv", "pip"]
        at = ["--python", str(PYTHON)]
    else:
        at = []
    run(*pip, "install", *at, "--quiet", "--no-deps", "--no-index", "--force-reinstall", str(wheel))
    try:
        yield
    finally:
        run(*pip, "uninstall", *at, "--quiet", *([] if at else ["--yes"]), "aigateway")


def make_folder(parent: Path, name: str) -> Path:
    """A new, empty folder."""
    folder = parent / name
    folder.mkdir()
    return folder


def set_traps(folder: Path) -> Path:
    """Packages that have the names of ours, and end whoever imports them."""
    for room in ("aigateway", "api", "worker", "engine", "providers", "mcp_bridge", "migrations", "workflows"):
        (folder / room).mkdir()
        (folder / room / "__init__.py").write_text(TRAP)
    return folder


def use_from(folder: Path) -> None:
    """What a first user does. Raises: SmokeFailed, CalledProcessError."""
    version = run(str(PROGRAM), "--version", cwd=folder)
    if not any(character.isdigit() for character in version):
        raise SmokeFailed(f"`aigateway --version` answers {version!r}")
    port = free_port()
    with serving(folder, port):
        address = f"http://127.0.0.1:{port}"
        expect(call(f"{address}/health")["status"], "healthy", "status of /health")
        fetch(urllib.request.Request(f"{address}/dashboard"))
        put = urllib.request.Request(f"{address}/v1/workflows/smoke", WORKFLOW.encode(), method="PUT")
        put.add_header("Content-Type", "application/yaml")
        fetch(put)
        run_id = call(f"{address}/v1/workflows/smoke/runs", {"input": {"word": "whole"}})["id"]
        finished = call(f"{address}/v1/runs/{run_id}?wait=30")
        expect(finished["status"], "succeeded", f"status of the run ({finished.get('error')})")
        expect(finished["output"], "whole", "output of the run")


@contextmanager
def serving(folder: Path, port: int) -> Generator[None]:
    """`aigateway serve` in that folder, answering; no process of it is left afterwards."""
    with (folder / "serve.log").open("w+") as log:
        process = psutil.Popen(
            [str(PROGRAM), "serve"], cwd=folder, env=environment(port), stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        family = [process]
        try:
            wait_for_answer(process, port)
            family += process.children(recursive=True)
            yield
        except BaseException:
            log.seek(0)
            print(log.read()[-4000:], file=sys.stderr)
            raise
        finally:
            family += process.children(recursive=True) if process.is_running() else []
            stop(process, family)


def stop(process: psutil.Popen, family: list[Any]) -> None:
    """Raises: SmokeFailed where the program or a child of it does not end with SIGTERM."""
    if process.is_running():
        process.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs(family, timeout=STOP_DEADLINE_S)
    for each in left:
        each.kill()
    if left:
        raise SmokeFailed(f"{len(left)} process(es) of `aigateway serve` outlived SIGTERM by {STOP_DEADLINE_S:.0f} s")


def environment(port: int) -> dict[str, str]:
    """The bare minimum, so that nothing of the developer's own gets in."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "AIGATEWAY_SERVER__PORT": str(port)}


def wait_for_answer(process: psutil.Popen, port: int) -> None:
    """Raises: SmokeFailed where the server ends or does not answer in time."""
    end = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SmokeFailed(f"`aigateway serve` ended with code {process.poll()}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise SmokeFailed(f"`aigateway serve` did not answer within {START_DEADLINE_S:.0f} s")


def call(url: str, body: object = None) -> dict[str, Any]:
    """GET, or POST where there is a body; the answer's JSON object."""
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    return json.loads(fetch(request))


def fetch(request: urllib.request.Request) -> bytes:
    """The answer's body. Raises: SmokeFailed with the server's own words where it refuses."""
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        raise SmokeFailed(f"{request.full_url} answers {error.code}: {error.read().decode()[:500]}") from error


def expect(found: object, wanted: object, what: str) -> None:
    """Raises: SmokeFailed where the two differ."""
    if found != wanted:
        raise SmokeFailed(f"{what} is {found!r}, not {wanted!r}")


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run(*command: str, cwd: Path = ROOT) -> str:
    """What the command printed. Raises: SmokeFailed with its last words where it fails."""
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SmokeFailed(f"{' '.join(command)} failed: {(result.stdout + result.stderr).strip()[-2000:]}")
    return result.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
