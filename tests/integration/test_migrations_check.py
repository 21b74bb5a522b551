"""`make check-migrations` turns red where the migrations and the declared tables part."""

import sqlite3
from pathlib import Path

import pytest

from scripts.check_migrations import compare


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("ALTER TABLE runs ADD COLUMN planted TEXT", "only the migrations make runs.planted TEXT"),
        ("CREATE INDEX planted ON runs (id)", "only the migrations make runs index { 'column_names': \"['id']\""),
        ("CREATE TABLE planted (id TEXT)", "only the migrations make planted.id TEXT"),
        ("DROP TABLE delivery_attempts", "only the tables declare delivery_attempts."),
    ],
)
def test_a_difference_is_named(sqlite_url: str, tmp_path: Path, change: str, told: str) -> None:
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    connection.execute(change)
    connection.close()
    differences = compare(sqlite_url, f"sqlite:///{tmp_path}/declared.db")
    assert any(told.replace("{ ", "{") in line for line in differences), differences


def test_the_migrations_make_what_is_declared(sqlite_url: str, tmp_path: Path) -> None:
    assert compare(sqlite_url, f"sqlite:///{tmp_path}/declared.db") == []
