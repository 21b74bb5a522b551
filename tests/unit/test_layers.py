"""The import contracts hold, and each kind of break turns the check red: upwards, out of its home, in a circle."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("aigateway", "api", "worker", "providers", "mcp_bridge", "engine", "migrations")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the rooms and their contracts, to be broken."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=lambda _, names: [n for n in names if n == "__pycache__"])
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def check(tree: Path) -> tuple[int, str]:
    """What `make check-layers` says about the tree: exit code and words, on one line."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    result = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False, env={"COLUMNS": "200"})
    return result.returncode, " ".join(f"{result.stdout} {result.stderr}".split())


def test_the_tree_as_it_stands_is_clean(tree: Path) -> None:
    code, words = check(tree)
    assert code == 0, words
    assert " 0 broken" in words


@pytest.mark.parametrize(
    ("file", "line", "contract", "breach"),
    [
        ("engine/planted.py", "import worker", "imports go down only", "engine is not allowed to import worker"),
        ("providers/planted.py", "import api", "imports go down only", "providers is not allowed to import api"),
        ("worker/planted.py", "import api", "imports go down only", "worker is not allowed to import api"),
        ("api/planted.py", "import migrations", "nobody imports migrations", "api is not allowed to import migrations"),
        ("engine/planted.py", "import fastapi", "fastapi and starlette live in api", "engine.planted -> fastapi"),
        ("api/planted.py", "import dramatiq", "dramatiq and redis live in worker", "api.planted -> dramatiq"),
        ("worker/planted.py", "import mcp", "mcp lives in mcp_bridge", "worker.planted -> mcp"),
        ("api/planted.py", "from sqlalchemy import text", "sqlalchemy, alembic and psycopg live in", "api.planted ->"),
        ("worker/planted.py", "import aiohttp", "aiohttp and genai_prices live in", "worker.planted -> aiohttp"),
        (
            "worker/planted.py",
            "import opentelemetry",
            "opentelemetry lives in aigateway",
            "worker.planted -> opentelemetry",
        ),
        ("api/planted.py", "import rich", "typer and rich live in aigateway", "api.planted -> rich"),
    ],
)
def test_an_import_that_may_not_be_is_named(tree: Path, file: str, line: str, contract: str, breach: str) -> None:
    (tree / file).write_text(f"{line}\n")
    code, words = check(tree)
    assert code == 1
    assert f"{contract} " in words
    assert " 1 broken" in words, words
    assert breach in words


def test_a_cycle_is_named(tree: Path) -> None:
    (tree / "engine" / "hen.py").write_text("import engine.egg\n")
    (tree / "engine" / "egg.py").write_text("import engine.hen\n")
    code, words = check(tree)
    assert code == 1
    assert "no cycle among siblings BROKEN" in words, words
    assert "engine.hen" in words or ".hen" in words
