"""What every test may ask for: real services, databases that are migrated, and a network that is shut.

`redis_url`, `postgres_url` and `database_url` (SQLite, then PostgreSQL) are fresh for each test. Servers are shared by
the tests of one pytest process and stop with it; a test that kills one takes its own: `own_redis`, `own_postgres`.
"""

import ipaddress
import itertools
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from services import PostgresServer, RedisServer

TEMPLATE = "migrated"
DATABASE_NUMBERS = itertools.count(1)

# A developer's own settings and keys must not reach a test.
OUTSIDE_SETTINGS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY", "OLLAMA_HOST")
for _name in list(os.environ):
    if _name.startswith(("AIGATEWAY_", "OTEL_")) or _name in OUTSIDE_SETTINGS:
        del os.environ[_name]

# On a busy machine generating takes its time; that says nothing about the code. CI tries the same examples every time, so
# that it judges the change at hand; everywhere else each run looks for new ones.
settings.register_profile(
    "shared", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("shared")


def refuse_network(event: str, arguments: tuple[object, ...]) -> None:
    """Keeps this process to loopback: a name from outside does not resolve, an outside address is an error."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
        name = host.decode() if isinstance(host, bytes) else host
        if isinstance(name, str) and not is_local(name):
            raise socket.gaierror(socket.EAI_NONAME, f"the network is shut in tests: {name}")
    elif event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and not is_local(str(address[0])):
            raise RuntimeError(f"a test reached for the network: {address[0]}")


def is_local(host: str) -> bool:
    """Loopback, or the address that stands for "any", or an address as such where nothing is connected."""
    if host in ("", "localhost", socket.gethostname()) or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


sys.addaudithook(refuse_network)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Shared; never kill it."""
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """A real Redis, empty."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis for one test, running, to be killed and started at will."""
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Shared, with the migrated template database; never kill it."""
    server = PostgresServer()
    try:
        server.start()
        server.execute(f"CREATE DATABASE {TEMPLATE}")
        migrate(server.url(TEMPLATE))
        yield server
    finally:
        server.stop()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A migrated PostgreSQL database of this test's own."""
    with postgres_server.database(f"test_{next(DATABASE_NUMBERS)}", TEMPLATE) as url:
        yield url


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL for one test, running, its `postgres` database migrated, to be killed and started at will."""
    server = PostgresServer()
    try:
        server.start()
        migrate(server.url())
        yield server
    finally:
        server.stop()


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A PostgreSQL database that nobody has migrated."""
    with postgres_server.database(f"test_{next(DATABASE_NUMBERS)}") as url:
        yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of this test's own."""
    path = tmp_path / "aigateway.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Runs the test twice, on each kind of database, each time a migrated one of its own."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


def migrate(url: str) -> None:
    """Brings a database to the newest schema, as `aigateway db upgrade` does."""
    from engine.store.migrate import upgrade  # noqa: PLC0415 - tests that need no database must not pay for it

    upgrade(url)
