"""Who is alive: locks that the kernel frees, and leases that run out."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from engine_hand import ONE_STEP, SECOND, Hand, opened
from services import PostgresServer, wait_until

from aigateway import serving
from engine.clock import now_us
from engine.errors import RetryableError
from engine.store.database import Database
from engine.store.workers import delete_worker, live_workers, renew_lease
from worker import housekeeping, neighbours
from worker.housekeeping import Heartbeat, Sweeper, register
from worker.liveness import LifeLock, forget, forget_dead, is_alive, is_dead, runtime_folder
from worker.neighbours import Dead, Neighbours

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from worker.liveness import LifeLock
lock = LifeLock(Path(sys.argv[1]), sys.argv[2], kept_by=sys.argv[3] if len(sys.argv) > 3 else "")
print("held", flush=True)
sys.stdin.read()
"""
HOLD_AND_REGISTER = """
import sys
from pathlib import Path
from engine.catalogue import Catalogue
from engine.attempts import claim
from engine.clock import now_us
from engine.store.database import Database
from worker.housekeeping import register
from worker.liveness import LifeLock
folder, url, step_id = sys.argv[1:]
lock = LifeLock(Path(folder), "child")
database = Database(url)
register(database, "child", "worker")
print(database.write_now(lambda tx: claim(tx, Catalogue(), step_id, "child", now_us())) is not None, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def child_of(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def line_of(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_a_lock_is_held_for_life_and_freed_by_sigkill(tmp_path: Path) -> None:
    with child_of(HOLD, str(tmp_path), "w1") as child:
        assert line_of(child) == "held"
        assert not is_dead(tmp_path, "w1")
        assert not is_dead(tmp_path, "w1")
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        assert is_dead(tmp_path, "w1")
    assert is_dead(tmp_path, "w1")  # asking does not bring it back
    forget(tmp_path, "w1")
    assert not is_dead(tmp_path, "w1")
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_process_is_not_dead(tmp_path: Path) -> None:
    with child_of(HOLD, str(tmp_path), "w1") as child:
        line_of(child)
        child.send_signal(signal.SIGSTOP)
        assert not is_dead(tmp_path, "w1")


def test_a_clean_end_leaves_nothing_to_find(tmp_path: Path) -> None:
    lock = LifeLock(tmp_path, "w1")
    assert not is_dead(tmp_path, "w1")
    lock.release()
    assert not is_dead(tmp_path, "w1")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_does_not_live_on_in_a_spawned_child(tmp_path: Path) -> None:
    with child_of(
        f"import subprocess\n{HOLD.replace('sys.stdin.read()', '')}"
        "grandchild = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "print(grandchild.pid, flush=True)\nsys.stdin.read()",
        str(tmp_path),
        "w1",
    ) as child:
        assert line_of(child) == "held"
        grandchild = psutil.Process(int(line_of(child)))
        assert grandchild.is_running()
        os.kill(grandchild.pid, signal.SIGSTOP)
        child.kill()
        child.wait(10)
        assert is_dead(tmp_path, "w1")
        grandchild.kill()


def test_the_folder_of_locks_is_the_users_own() -> None:
    found = runtime_folder().stat()
    assert (found.st_uid, found.st_mode & 0o777) == (os.getuid(), 0o700)


class Silent:
    """A doorbell that nobody hears."""

    def ended(self, run_id: str) -> None:
        """Nobody waits."""

    def ring(self, step_id: str, priority: str) -> None:
        return


def sweep(hand: Hand, folder: Path, seen: Neighbours | None = None) -> None:
    seen = seen or Neighbours(hand.database, "me", folder)
    sweeper = Sweeper(hand.database, hand.catalogue, Silent(), None, neighbours=seen)
    asyncio.run(sweeper.sweep())


def test_the_steps_of_a_killed_process_are_taken_back_before_its_lease_runs_out(
    database_url: str, tmp_path: Path
) -> None:
    with opened(database_url) as hand:
        hand.now = now_us()
        submitted = hand.submit(ONE_STEP)
        arguments = (str(tmp_path), database_url, submitted.rings[0].step_id)
        with child_of(HOLD_AND_REGISTER, *arguments) as child:
            assert line_of(child) == "True"
            sweep(hand, tmp_path)
            assert hand.statuses(submitted.run["id"]) == {"only": "running"}
            child.kill()
            child.wait(10)
            sweep(hand, tmp_path)
        assert hand.statuses(submitted.run["id"]) == {"only": "ready"}
        assert hand.step(submitted.run["id"], "only")["losses"] == 1
        assert hand.do(lambda tx: live_workers(tx, now_us())) == []
        assert list(tmp_path.glob("*.lock")) == []


def test_a_vanished_host_is_found_by_its_lease_and_a_saved_one_keeps_its_lock(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(sqlite_url) as hand:
        hand.now = now_us() - 9_000_000
        hand.enter_worker("elsewhere")
        run_id = hand.start(ONE_STEP)
        hand.claim(run_id, "only", "elsewhere")
        hand.now = now_us()
        seconds = iter((0.0, neighbours.SILENT_S))
        seen = Neighbours(hand.database, "me", tmp_path, clock=lambda: next(seconds))
        sweep(hand, tmp_path, seen)
        assert hand.statuses(run_id) == {"only": "running"}  # nobody has looked on for long enough
        sweep(hand, tmp_path, seen)
        assert hand.statuses(run_id) == {"only": "ready"}
        hand.enter_worker("alive")
        lock = LifeLock(tmp_path, "alive")
        # Seen as lapsed, and renewed before it could be buried.
        monkeypatch.setattr(Neighbours, "_silent", lambda self, rows: ["alive"])
        sweep(hand, tmp_path)
        assert [row["id"] for row in hand.do(lambda tx: live_workers(tx, now_us()))] == ["alive"]
        assert (tmp_path / "alive.lock").exists()
        lock.release()


def test_a_lease_that_is_renewed_holds_whatever_the_clocks_say(sqlite_url: str, tmp_path: Path) -> None:
    """A host whose clock is an hour behind ours: its leases always seem to be over."""
    with opened(sqlite_url) as hand:
        hand.now = now_us() - 3600 * SECOND
        hand.enter_worker("behind")
        at = 0.0
        seen = Neighbours(hand.database, "me", tmp_path, clock=lambda: at)
        while at < 10:
            at += 0.5
            if at % 1 == 0:
                hand.do(lambda tx, until=at + 8: renew_lease(tx, "behind", hand.now + int(until * SECOND)))
            assert dead(seen) == []
        at += neighbours.SILENT_S - 0.5
        assert dead(seen) == []
        at += 0.5
        assert dead(seen) == [Dead("behind", only_if_lapsed=True)]


def test_a_heartbeat_renews_and_tells_when_it_was_declared_dead(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "RENEW_EVERY_S", 0.05)
    database = Database(database_url, readers=0)
    register(database, "w1", "worker")
    lost = threading.Event()
    heartbeat = Heartbeat(database, "w1", lost.set)
    first = database.write_now(lambda tx: live_workers(tx, now_us()))[0]["lease_until_us"]
    wait_until(
        lambda: database.write_now(lambda tx: live_workers(tx, now_us()))[0]["lease_until_us"] > first, "no renewal", 10
    )
    assert not lost.is_set()
    database.write_now(lambda tx: delete_worker(tx, "w1"))
    assert lost.wait(10)
    heartbeat.stop()
    database.close()


def test_a_heartbeat_gives_up_before_its_lease_runs_out(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "RENEW_EVERY_S", 0.1)
    monkeypatch.setattr(housekeeping, "LEASE_S", 1.5)
    database = Database(own_postgres.url(), readers=0)
    register(database, "w1", "worker")
    until = database.write_now(lambda tx: live_workers(tx, now_us()))[0]["lease_until_us"]
    lost = threading.Event()
    heartbeat = Heartbeat(database, "w1", lost.set)
    own_postgres.kill()
    assert lost.wait(10)
    assert now_us() < until + 1_500_000
    heartbeat.stop()
    database.close()


def test_a_heartbeat_goes_on_where_its_process_does(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API process whose database was away for longer than its lease, and which was declared dead meanwhile."""
    monkeypatch.setattr(housekeeping, "RENEW_EVERY_S", 0.1)
    monkeypatch.setattr(housekeeping, "LEASE_S", 1.0)
    database = Database(own_postgres.url(), readers=0)
    register(database, "w1", "api")
    lost: list[bool] = []

    def again() -> bool:
        lost.append(True)
        return serving._register_again(database, "w1")  # pyright: ignore[reportPrivateUsage]

    heartbeat = Heartbeat(database, "w1", again)
    own_postgres.kill()
    wait_until(lambda: len(lost) > 2, "it was told more than once", 10)
    own_postgres.start()
    wait_until(lambda: alive(database), "the lease is renewed again", 10)
    database.write_now(lambda tx: delete_worker(tx, "w1"))
    wait_until(lambda: alive(database), "it has registered again", 10)
    heartbeat.stop()
    database.close()


def alive(database: Database) -> bool:
    with contextlib.suppress(RetryableError):
        return bool(database.write_now(lambda tx: live_workers(tx, now_us())))
    return False


def dead(seen: Neighbours) -> list[Dead]:
    return asyncio.run(seen.dead())


def test_a_process_that_ran_a_step_alone_died_by_itself_only_where_its_keeper_outlives_it(
    sqlite_url: str, tmp_path: Path
) -> None:
    with opened(sqlite_url) as hand:
        keeper = LifeLock(tmp_path, "keeper-1")
        register(hand.database, "w1", "alone")
        with child_of(HOLD, str(tmp_path), "w1", "keeper-1") as child:
            line_of(child)
            seen = Neighbours(hand.database, "me", tmp_path)
            assert dead(seen) == []
            child.kill()
            child.wait(10)
        assert dead(seen) == []  # the keeper may be dying too
        assert dead(seen) == [Dead("w1", died_alone=True)]
        late = Neighbours(hand.database, "late", tmp_path)
        assert dead(late) == []
        keeper.release()
        assert dead(late) == dead(seen) == [Dead("w1")]


def test_what_killed_keepers_left_behind_is_removed_and_a_living_one_stays(tmp_path: Path) -> None:
    living = LifeLock(tmp_path, "keeper-2")
    with child_of(HOLD, str(tmp_path), "keeper-1") as child:
        line_of(child)
        forget_dead(tmp_path, "keeper-")
        assert len(list(tmp_path.iterdir())) == 2
        child.kill()
        child.wait(10)
    forget_dead(tmp_path, "keeper-")
    assert [path.stem for path in tmp_path.iterdir()] == ["keeper-2"]
    assert is_alive(tmp_path, "keeper-2")
    living.release()
    assert not is_alive(tmp_path, "keeper-2")
