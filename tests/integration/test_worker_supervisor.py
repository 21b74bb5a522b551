"""A supervisor whose children outlive nobody and are replaced at once, forked from a template or spawned where there is none."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from services import wait_until

from worker.nursery import Nursery
from worker.supervisor import Supervisor

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
# What it is told comes from the environment, so that the same program serves as worker and as template.
PROGRAM = """
import os, random, signal, socket, sys, threading
from worker.parent import end_with_parent
from worker.template import be_template
def run(arguments):
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in arguments else lambda *_: sys.exit(0))
    if "fail" in arguments:
        return 3
    if "tell" in arguments:
        with open(arguments[1], "a") as file:
            print(random.random(), file=file)
    while True:
        threading.Event().wait(1)
if "--template" in sys.argv:
    {template}
    be_template(socket.socket(fileno=int(sys.argv[-1])), lambda: run)
threading.Thread(target=end_with_parent, daemon=True).start()
sys.exit(run(sys.argv[1:]))
"""
WAYS = {"forked": "pass", "spawned": "sys.exit(1)"}
SUPERVISE = """
import asyncio, json, os, sys
from worker.nursery import Nursery
from worker.supervisor import Supervisor
async def main():
    nursery = Nursery([sys.executable, "-c", sys.argv[1]], environment=dict(os.environ))
    supervisor = Supervisor(nursery, lambda n: ["deaf"], processes=2)
    asyncio.create_task(supervisor.run())
    while len(supervisor.pids) < 2:
        await asyncio.sleep(0.02)
    print(json.dumps(supervisor.pids), flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""

Check = Callable[[Supervisor], object]


@pytest.fixture(params=WAYS)
def program(request: pytest.FixtureRequest) -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(template=WAYS[request.param])]


@pytest.fixture
def forking() -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(template=WAYS["forked"])]


def supervised(program: list[str], check: Check, *arguments: str, processes: int = 2) -> None:
    """Runs a supervisor while `check` runs on a thread, then stops it; nothing may be left of it."""
    before = set(psutil.Process().children(recursive=True))
    open_files = os.listdir("/proc/self/fd")

    async def run() -> None:
        nursery = Nursery(program, environment=ENVIRONMENT)
        supervisor = Supervisor(nursery, lambda number: arguments, processes=processes)
        running = asyncio.create_task(supervisor.run())
        try:
            await asyncio.to_thread(check, supervisor)
        finally:
            await supervisor.stop(2)
            async with asyncio.timeout(20):
                await running
            await nursery.close()
        assert supervisor.pids == []

    asyncio.run(run())
    assert set(psutil.Process().children(recursive=True)) <= before
    assert len(os.listdir("/proc/self/fd")) <= len(open_files)


def both_live(supervisor: Supervisor) -> set[int]:
    wait_until(lambda: len(supervisor.pids) == 2, "two children", 20)
    return set(supervisor.pids)


def template_of(supervisor: Supervisor) -> psutil.Process:
    """The parent of the children, which is not this process."""
    parents = {psutil.Process(pid).ppid() for pid in supervisor.pids} - {os.getpid()}
    assert len(parents) == 1
    return psutil.Process(parents.pop())


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE}


def test_a_killed_child_is_replaced_and_its_sibling_is_left_alone(program: list[str]) -> None:
    seen: set[int] = set()

    def check(supervisor: Supervisor) -> None:
        first, second = both_live(supervisor)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: first not in supervisor.pids and len(supervisor.pids) == 2, "a replacement", 10)
        assert second in supervisor.pids
        seen.update([first, *supervisor.pids])

    supervised(program, check)
    assert alive(seen) == set()


def test_children_that_do_not_listen_are_killed_after_the_grace(program: list[str]) -> None:
    seen: set[int] = set()
    supervised(program, lambda supervisor: seen.update(both_live(supervisor)), "deaf")
    assert len(seen) == 2
    assert alive(seen) == set()


def test_a_killed_template_takes_nobody_along_and_is_replaced(forking: list[str]) -> None:
    def check(supervisor: Supervisor) -> None:
        first, second = both_live(supervisor)
        template = template_of(supervisor)
        template.kill()
        wait_until(lambda: alive({template.pid}) == set(), "its death", 10)
        os.kill(first, signal.SIGKILL)  # nobody is its parent now who could tell
        wait_until(lambda: first not in supervisor.pids and len(supervisor.pids) == 2, "a replacement", 20)
        assert second in alive(set(supervisor.pids))
        wait_until(lambda: len(psutil.Process().children()) >= 1, "a new template", 10)
        (replaced,) = set(supervisor.pids) - {second}
        assert psutil.Process(replaced).ppid() != os.getpid()

    supervised(forking, check)


def test_children_share_neither_randomness_nor_anything_that_is_open(forking: list[str], tmp_path: Path) -> None:
    told = tmp_path / "told"

    def check(supervisor: Supervisor) -> None:
        pids = both_live(supervisor)
        wait_until(lambda: told.exists() and len(told.read_text().split()) == 2, "two numbers", 10)
        assert len(set(told.read_text().split())) == 2
        assert template_of(supervisor).num_threads() == 1
        for pid in pids:
            ends = [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
            assert not any(end.startswith(("socket:", "anon_inode:")) for end in ends), ends
            assert os.getsid(pid) == pid
            assert len([end for end in ends if end.startswith("pipe:")]) <= 4, ends  # life, asks, stdout, stderr

    supervised(forking, check, "tell", str(told))


def test_a_child_that_dies_early_is_started_again_at_once_and_then_ever_more_slowly(program: list[str]) -> None:
    starts: list[float] = []

    def arguments(number: int) -> list[str]:
        starts.append(time.monotonic())
        return ["fail"]

    async def run() -> None:
        nursery = Nursery(program, environment=ENVIRONMENT)
        supervisor = Supervisor(nursery, arguments, processes=1)
        running = asyncio.create_task(supervisor.run())
        await asyncio.to_thread(wait_until, lambda: len(starts) == 7, "no further try", 30)
        await supervisor.stop(2)
        await running
        await nursery.close()

    asyncio.run(run())
    pauses = [later - earlier for earlier, later in pairwise(starts)]
    assert all(pause >= least for pause, least in zip(pauses[3:], (0.1, 0.2, 0.4), strict=True)), pauses


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8])
def test_stopping_while_children_are_being_started_leaves_none(program: list[str], turns: int) -> None:
    async def run() -> None:
        nursery = Nursery(program, environment=ENVIRONMENT)
        supervisor = Supervisor(nursery, lambda number: [], processes=3)
        running = asyncio.create_task(supervisor.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        await supervisor.stop(5)
        async with asyncio.timeout(10):
            await running
        await nursery.close()

    before = set(psutil.Process().children(recursive=True))
    asyncio.run(run())
    assert set(psutil.Process().children(recursive=True)) <= before


def test_no_child_outlives_a_killed_supervisor(program: list[str]) -> None:
    command = [sys.executable, "-c", SUPERVISE, program[-1]]
    supervisor = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    with supervisor.stdout:
        told = next(line for line in supervisor.stdout if line.startswith("["))  # the others are its log
        pids = set(json.loads(told))
        pids |= {child.pid for child in psutil.Process(supervisor.pid).children(recursive=True)}
        assert len(pids) >= 2
        supervisor.kill()
        supervisor.wait(10)
        wait_until(lambda: alive(pids) == set(), "the children live on", 10)


def test_a_command_that_ends_at_once_leaves_no_template_and_no_noise() -> None:
    script = """
import os, sys
from worker.nursery import Nursery
nursery = Nursery([sys.executable, "-c", sys.argv[1]], environment=dict(os.environ))
nursery.fork_template(lambda: None)
print(nursery._original.pid)
"""
    result = subprocess.run(
        [sys.executable, "-c", script, "pass"], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    pid = int(result.stdout.splitlines()[0])
    wait_until(lambda: alive({pid}) == set(), "the template ended", 10)
    assert result.stdout.splitlines() == [str(pid)]
    assert result.stderr == ""
