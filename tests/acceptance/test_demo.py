"""`aigateway demo`, as a user starts it: what it proves, and that nothing of it stays, however it ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from services import wait_until

COMMAND = [sys.executable, "-P", "-m", "aigateway", "demo"]
DEADLINE_S = 90
MARK = "DEMO_TEST_MARK"  # inherited by every process that the demo starts, wherever the system hangs it
USERS_OWN = {
    "AIGATEWAY_CONFIG": "/nowhere/of-the-user.yaml",
    "AIGATEWAY_URL": "http://127.0.0.1:9",
    "AIGATEWAY_DATABASE_URL": "sqlite:////nowhere/of-the-user.db",
    "OPENAI_API_KEY": "of-the-user",
}


class Stage:
    """A folder with packages that must never be imported, and a temporary folder of its own to look into afterwards."""

    def __init__(self, folder: Path, temporary: Path) -> None:
        self.folder = folder
        self.temporary = temporary
        for room in ("api", "worker", "engine"):
            (self.folder / room).mkdir(parents=True)
            (self.folder / room / "__init__.py").write_text("raise SystemExit('imported from the current folder')\n")
        (self.folder / "aigateway.yaml").write_text("no_such_key: of the user\n")
        self._mark = uuid.uuid4().hex
        self.environment = {**os.environ, **USERS_OWN, "TMPDIR": str(self.temporary), MARK: self._mark}

    def files(self) -> list[str]:
        """What lies in the folder."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))

    def processes(self) -> list[psutil.Process]:
        """All that descend from the demo and live."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
            return False

    @contextlib.contextmanager
    def told(self, line: str) -> Iterator[psutil.Popen]:
        """The demo at its calm pace, as soon as it has told a line that holds `line`."""
        with psutil.Popen(COMMAND, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, text=True) as demo:
            found = next((text for text in demo.stdout if line in text), None)
            assert found, f"ended with code {demo.wait(DEADLINE_S)} before it said: {line}"
            yield demo


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Kills what a failing test left."""
    with tempfile.TemporaryDirectory(prefix="t-") as short:  # a socket's path has at most 107 bytes
        made = Stage(tmp_path, Path(short))
        yield made
        for process in made.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def test_it_proves_what_was_not_paid_twice(stage: Stage) -> None:
    before = stage.files()
    done = subprocess.run(
        [*COMMAND, "--fast", "--json"],
        cwd=stage.folder,
        env=stage.environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    facts = json.loads(done.stdout)
    assert (facts["holds"], facts["broken"], facts["simulated"]) == (True, [], True)
    attempts = {step["id"]: [a["status"] for a in step["attempts"]] for step in facts["steps"]}
    assert attempts == {"search": ["succeeded"], "summarize": ["succeeded"], "report": ["lost", "succeeded"]}
    calls = sorted((c["step_id"], c["attempt"], c["status"]) for c in facts["calls"])
    assert calls == [
        ("report", 1, "unknown"),
        ("report", 2, "succeeded"),
        ("search", 1, "succeeded"),
        ("summarize", 1, "succeeded"),
    ]
    assert facts["killed"]["step"] == "report"
    assert not psutil.pid_exists(facts["killed"]["pid"])
    assert facts["run"]["output"].count("\n\n") == 2, "the report has three paragraphs"
    assert 0 < facts["cost_usd_of_finished_steps"] < facts["cost_usd"] == facts["run"]["cost_usd"]
    assert stage.processes() == []
    assert list(stage.temporary.iterdir()) == []
    assert stage.files() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_takes_everything_down(stage: Stage, number: signal.Signals) -> None:
    with stage.told("waits for the answer") as demo:
        assert len(stage.processes()) >= 5, "the demo, its server, two workers and an MCP server"
        demo.send_signal(number)
        assert demo.wait(timeout=DEADLINE_S) == 130
    assert stage.processes() == []
    assert list(stage.temporary.iterdir()) == []


def test_killed_it_leaves_no_process(stage: Stage) -> None:
    with stage.told("waits for the answer") as demo:
        demo.kill()
        demo.wait()
    wait_until(lambda: stage.processes() == [], "a process outlived the demo", deadline_s=10)


def test_told_in_plain_lines_it_says_what_is_simulated(stage: Stage) -> None:
    done = subprocess.run(
        [*COMMAND, "--fast"],
        cwd=stage.folder,
        env=stage.environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "\x1b" not in done.stdout
    assert "SIMULATED" in done.stdout
    for told in ("SIGKILL to worker", "attempt 2", "What was not paid twice", "unknown", "the run succeeded"):
        assert told in done.stdout
