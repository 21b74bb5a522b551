"""Start to the first 200 and idle memory of `aigateway serve`, beside the floor: a Python that only imports what it needs.

Prints one JSON line. Ratios are what counts: the machine is never quiet.
"""

import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from gateway import clean_environment
from services import free_port

FLOOR = "import fastapi, uvicorn, sqlalchemy, httptools, dramatiq, jinja2, structlog, pydantic"
RUNS = 5


def until(url: str, accept: str) -> None:
    while True:
        try:
            if accept in urllib.request.urlopen(url, timeout=2).read().decode():
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.005)


def one_start(folder: str) -> dict[str, float]:
    port = free_port()
    started = time.monotonic()
    command = [sys.executable, "-P", "-m", "aigateway", "serve", "--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=folder, env=clean_environment(), **quiet)
    until(f"http://127.0.0.1:{port}/health", "healthy")
    first_200 = time.monotonic() - started
    until(f"http://127.0.0.1:{port}/ready", '"workers":1')
    with_worker = time.monotonic() - started
    time.sleep(3)
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    memory = [one.memory_full_info() for one in tree]
    process.terminate()
    process.wait()
    return {
        "first_200_s": first_200,
        "worker_ready_s": with_worker,
        "tree_pss_mb": sum(m.pss for m in memory) / 2**20,
        "tree_rss_mb": sum(m.rss for m in memory) / 2**20,
        "api_rss_mb": memory[0].rss / 2**20,
    }


def floor_s() -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-P", "-W", "ignore", "-c", FLOOR], check=True)
    return time.monotonic() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        one_start(folder)  # the first one writes bytecode and the schema
        runs = [one_start(folder) for _ in range(RUNS)]
    best = {name: round(min(run[name] for run in runs), 2) for name in runs[0]}
    floor = min(floor_s() for _ in range(RUNS))
    print(
        json.dumps({**best, "floor_import_s": round(floor, 2), "ratio_to_floor": round(best["first_200_s"] / floor, 2)})
    )


if __name__ == "__main__":
    main()
