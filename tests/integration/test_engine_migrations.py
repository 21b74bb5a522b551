"""Migrations on both databases: an empty one is made by whoever comes first, and all that start together agree."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from engine.errors import RetryableError, UserError
from engine.store import migrate, revision
from engine.store.connections import connector
from engine.store.database import Database
from engine.store.settings import get_or_make

ROOT = Path(__file__).parents[2]
PROCESSES = 3
START_AND_WRITE = """
import sys
from engine.store.revision import bring_up_to_date
from engine.store.database import Database
from engine.store.settings import get_or_make
print("here", flush=True)
sys.stdin.readline()
bring_up_to_date(sys.argv[1])
database = Database(sys.argv[1])
print(database.write_now(lambda tx: get_or_make(tx, "first", lambda: sys.argv[2])))
database.close()
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new.db"
    return str(request.getfixturevalue("empty_postgres_url"))


def test_processes_that_start_together_make_one_database(empty_url: str) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", START_AND_WRITE, empty_url, str(number)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n"
    answers = []
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
        answers.append(out)
    assert len(set(answers)) == 1, answers
    assert migrate.current(empty_url) == migrate.head()


def test_upgrading_twice_changes_nothing(empty_url: str) -> None:
    assert migrate.current(empty_url) is None
    migrate.upgrade(empty_url)
    database = Database(empty_url)
    database.write_now(lambda tx: get_or_make(tx, "kept", lambda: "v"))
    migrate.upgrade(empty_url)
    revision.bring_up_to_date(empty_url)
    assert database.write_now(lambda tx: get_or_make(tx, "kept", lambda: "another")) == "v"
    database.close()


def test_the_revision_that_is_read_fast_is_the_newest_migration() -> None:
    assert migrate.head() == revision.NEWEST == ScriptDirectory(str(ROOT / "migrations")).get_current_head()


def test_a_schema_of_a_later_release_is_refused_and_left_alone(database_url: str) -> None:
    connection = connector(database_url)()
    connection.execute("UPDATE alembic_version SET version_num = '9999'", {})
    for upgrade in (migrate.upgrade, revision.bring_up_to_date):
        with pytest.raises(UserError, match=f"schema 9999, which this release does not know .*{revision.NEWEST}"):
            upgrade(database_url)
    assert migrate.current(database_url) == "9999"
    connection.close()


def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is a letter, and long enough to look like something else" * 20)
    for look in (migrate.upgrade, migrate.current, revision.bring_up_to_date):
        with pytest.raises(RetryableError, match=r"text\.db.* file is not a database"):
            look(f"sqlite:///{tmp_path}/text.db")


def test_a_disk_that_is_too_full_for_the_schema_is_told(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(RetryableError, match=r"new\.db was neither read nor changed"):
            migrate.upgrade(f"sqlite:///{tmp_path}/new.db")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    migrate.upgrade(f"sqlite:///{tmp_path}/new.db")


def test_a_database_that_cannot_be_reached_is_retryable() -> None:
    with pytest.raises(RetryableError):
        migrate.upgrade("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(RetryableError):
        revision.bring_up_to_date("postgresql://nobody@127.0.0.1:1/none")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing does not exist"):
        migrate.upgrade(f"sqlite:///{tmp_path}/missing/new.db")
