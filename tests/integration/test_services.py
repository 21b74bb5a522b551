"""The services that other tests stand on: they answer, they come back after a crash, and none outlives its tests."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
import services
from services import PostgresServer, RedisServer
from sqlalchemy import create_engine, inspect

START_BOTH = """
import sys, services
servers = [services.RedisServer(), services.PostgresServer()]
for server in servers:
    server.start()
print(*[server._process.pid for server in servers], flush=True)
sys.stdin.read()
"""


def test_database_url_is_a_migrated_database_on_each_kind(database_url: str) -> None:
    engine = create_engine(database_url)
    tables = set(inspect(engine).get_table_names())
    engine.dispose()
    assert {"runs", "requests", "workflows"} <= tables


def test_databases_of_two_tests_are_apart(postgres_server: PostgresServer, postgres_url: str) -> None:
    with postgres_server.database("apart", "migrated") as other:
        with psycopg.connect(other) as connection:
            connection.execute("CREATE TABLE only_here (id integer)")
        with psycopg.connect(postgres_url) as connection, pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM only_here")


def test_redis_is_empty_for_each_test(redis_server: RedisServer, request: pytest.FixtureRequest) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("left", "behind")
        client_of_the_next = redis.Redis.from_url(request.getfixturevalue("redis_url"))
        assert client_of_the_next.keys() == []
        client_of_the_next.close()


def test_a_killed_redis_comes_back_with_what_it_held(own_redis: RedisServer) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.set("kept", "yes")
        own_redis.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        own_redis.start()
        assert client.get("kept") == b"yes"


def test_a_killed_postgres_cuts_its_connections_and_keeps_what_was_committed(own_postgres: PostgresServer) -> None:
    own_postgres.execute("CREATE TABLE kept (id integer)")
    connection = psycopg.connect(own_postgres.url(), autocommit=True)
    own_postgres.kill()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()
    own_postgres.start()
    own_postgres.execute("INSERT INTO kept VALUES (1)")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_no_server_outlives_a_killed_test_process() -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", START_BOTH],
        cwd=Path(services.__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        pids = [int(pid) for pid in holder.stdout.readline().split()]
        assert len(pids) == 2
        children = [psutil.Process(pid) for pid in pids]
        children += [child for process in children for child in process.children(recursive=True)]
        assert len(children) > 2
        holder.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_the_network_is_shut() -> None:
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("example.com", 80)
    with socket.socket() as client, pytest.raises(RuntimeError, match="reached for the network"):
        client.connect(("192.0.2.1", 80))
