import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from aigateway import __version__
from aigateway.cli.main import app

ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("AIGATEWAY_")}
NOWHERE = {"AIGATEWAY_URL": "http://127.0.0.1:9"}


def aigateway(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "aigateway", *arguments],
        cwd=cwd, env={**ENVIRON, **environ}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def commands() -> Iterator[tuple[str, ...]]:
    pending: list[tuple[tuple[str, ...], Any]] = [((), typer.main.get_command(app))]
    while pending:
        path, command = pending.pop()
        yield path
        for name, below in getattr(command, "commands", {}).items():
            pending.append(((*path, name), below))


@pytest.mark.parametrize("path", sorted(commands()), ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert app([*path, "--help"], standalone_mode=False, prog_name="aigateway") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"Usage: aigateway {' '.join(path)}".strip() in text
    assert "Example: " in text
    assert text.partition("Example: ")[2].find("aigateway " + " ".join(path[:1])) != -1


def test_help_and_version_need_nothing_slow(tmp_path: Path) -> None:
    slow = "httpx2 sqlalchemy fastapi mcp dramatiq aiohttp alembic structlog genai_prices rich.live jinja2".split()
    code = f"import sys, aigateway.cli.main; print([name for name in {slow!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert aigateway("--version", cwd=tmp_path).stdout == f"aigateway {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["foo"], 2, "aigateway: No such command 'foo' (see `aigateway --help`)"),
        (["runs", "lst"], 2, "aigateway: No such command 'lst'. Did you mean 'list'? (see `aigateway runs --help`)"),
        (["runs", "list", "--limt", "5"], 2, "No such option: --limt"),
        (["runs", "list", "--limit", "500"], 2, "'--limit'"),
        (["runs", "show"], 2, "aigateway: Missing argument 'ID' (see `aigateway runs show --help`)"),
        (["run", "x", "-i", "novalue"], 2, "'novalue' is not key=value"),
        (["run", "x", "-i", "a=1", "-i", "a=2"], 2, "a is given twice"),
        (["run", "x", "-i", "a:={"], 2, "a: not JSON"),
        (["run", "x", "-i", "a=@nowhere.txt"], 2, "a: nowhere.txt: No such file or directory"),
        (["run", "nowhere.yaml"], 2, "nowhere.yaml: No such file or directory"),
        (["runs", "list"], 1, "no server answers at http://127.0.0.1:9; start one with `aigateway serve`"),
        (["run", "x", "--detach"], 1, "no server answers at http://127.0.0.1:9"),
        (["worker"], 2, "aigateway: worker needs redis_url (AIGATEWAY_REDIS_URL)"),
        (["api"], 2, "aigateway: api needs redis_url (AIGATEWAY_REDIS_URL)"),
        (["serve", "--config", "nope.yaml"], 2, "aigateway: nope.yaml: no such file"),
        (["serve", "--port", "99999"], 2, "'--port'"),
        (["spend", "--by", "foo"], 2, "foo is none of day, model, provider, workflow, key, tag"),
        (["spend", "--since", "yesterday"], 2, "yesterday is neither 7d, 12h nor a date"),
        (["db", "backup", "copy.db"], 2, "there is no database yet"),
        (["runs", "show", ""], 2, "an id or a name must not be empty"),
        (["run", "x", "--tag", "blue"], 2, "'blue' is not key:value"),
        (["runs", "list", "--since", "x"], 2, "x is neither 7d, 12h nor a date"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    done = aigateway(*arguments, cwd=tmp_path, **NOWHERE)
    assert done.returncode == code
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_wrong_configuration_names_file_line_and_key(tmp_path: Path) -> None:
    (tmp_path / "aigateway.yaml").write_text("server:\n  prot: 1\nredis_url: nonsense\n")
    done = aigateway("serve", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        'aigateway: aigateway.yaml:2: server.prot: unknown key, did you mean "port"?',
        "aigateway: aigateway.yaml:3: redis_url: must be redis://HOST:PORT/NUMBER, rediss:// or unix://",
    ]


def test_a_client_needs_no_providers_key(tmp_path: Path) -> None:
    (tmp_path / "aigateway.yaml").write_text(
        'server: {port: 9}\nproviders: {x: {type: openai, api_key: "${NOT_SET}"}}\n'
    )
    done = aigateway("runs", "list", cwd=tmp_path)
    assert "no server answers at http://127.0.0.1:9;" in done.stderr


def test_commands_work_in_a_folder_with_packages_of_the_same_names(tmp_path: Path) -> None:
    for name in ("api", "worker", "engine", "providers", "aigateway"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    assert aigateway("db", "upgrade", cwd=tmp_path).returncode == 0
    assert aigateway("runs", "list", cwd=tmp_path, **NOWHERE).returncode == 1


def test_the_module_can_be_run_beside_packages_of_a_users_own(tmp_path: Path) -> None:
    for name in ("api", "worker", "engine", "providers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    command = [sys.executable, "-m", "aigateway", "keys", "list", "--json"]
    environ = {**ENVIRON, "AIGATEWAY_SERVER__PORT": "9"}
    environ.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, '"data": []' in done.stdout) == (0, True), done.stderr


def test_an_unexpected_error_is_one_line_and_its_details_a_file(tmp_path: Path) -> None:
    (tmp_path / "aigateway.db").mkdir()
    done = aigateway("db", "upgrade", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_the_schema_is_made_shown_and_copied(tmp_path: Path) -> None:
    before = aigateway("db", "current", cwd=tmp_path)
    assert (before.returncode, before.stdout.partition(" ")[0]) == (1, "empty")
    assert not (tmp_path / "aigateway.db").exists()
    assert aigateway("db", "upgrade", cwd=tmp_path).returncode == 0
    after = aigateway("db", "current", cwd=tmp_path)
    assert after.returncode == 0
    assert aigateway("db", "backup", "copy.db", cwd=tmp_path).returncode == 0
    there = aigateway("db", "current", cwd=tmp_path, AIGATEWAY_DATABASE_URL="sqlite:///copy.db")
    assert (there.returncode, there.stdout) == (0, after.stdout)
    again = aigateway("db", "backup", "copy.db", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (
        2,
        "aigateway: copy.db exists already; a backup never overwrites a file\n",
    )


def test_definitions_are_checked_without_a_server(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("name: good\nsteps:\n  - {id: a, type: set, value: 1}\n")
    (tmp_path / "latin.yaml").write_bytes("name: good\nsteps: é".encode("latin-1"))
    (tmp_path / "bad.yaml").write_text("name: bad\nsteps:\n  - {id: a, type: sett, value: 1}\n  - {id: b, type: llm}\n")
    done = aigateway("workflows", "validate", "good.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "good.yaml: ok\n")
    done = aigateway("workflows", "validate", "good.yaml", "latin.yaml", "bad.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "latin.yaml:2:8: not UTF-8 text" in done.stderr
    assert "bad.yaml:3:" in done.stderr
    assert "bad.yaml:4:" in done.stderr
    assert "^" in done.stderr
    done = aigateway("workflows", "push", "good.yaml", "bad.yaml", cwd=tmp_path, **NOWHERE)
    assert done.returncode == 1
    assert "bad.yaml:3:" in done.stderr


def test_a_configuration_at_hand_says_what_a_definition_lacks(tmp_path: Path) -> None:
    text = (
        "name: w\nsteps:\n  - {id: a, type: llm, model: %s, prompt: x}\n  - {id: b, type: workflow, workflow: other}\n"
    )
    (tmp_path / "w.yaml").write_text(text % "lcoal")
    (tmp_path / "other.yaml").write_text("name: other\ninputs: {n: {}}\nsteps: [{id: a, type: set, value: 1}]\n")
    (tmp_path / "aigateway.yaml").write_text("server: {port: 9}\nmodels: {local: simulated/echo}\n")
    done = aigateway("workflows", "validate", "w.yaml", "other.yaml", cwd=tmp_path, OLLAMA_HOST="127.0.0.1:9")
    assert (done.returncode, done.stdout) == (0, "w.yaml: ok, 2 warnings\nother.yaml: ok\n")
    assert "w.yaml:3:31: warning: steps.a.model: No model is called `lcoal`" in done.stderr
    assert "w.yaml:4:5: warning: steps.b.input.n: other, n: the workflow needs it" in done.stderr
    strict = aigateway(
        "workflows", "validate", "--strict", "w.yaml", "other.yaml", cwd=tmp_path, OLLAMA_HOST="127.0.0.1:9"
    )
    assert strict.returncode == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aigateway.yaml", "other.yaml", "w.yaml"]
    (tmp_path / "aigateway.yaml").write_text("server: {port: 9}\nmodles: {}\n")
    done = aigateway("workflows", "validate", "w.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout, "the text alone is checked" in done.stderr) == (0, "w.yaml: ok\n", True)
    assert aigateway("workflows", "validate", "w.yaml", "-c", "aigateway.yaml", cwd=tmp_path).returncode == 2
