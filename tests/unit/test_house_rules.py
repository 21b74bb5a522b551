"""Gates that no linter has: sizes, borders that may catch everything, where the environment is read, what is named."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ROOMS = ("aigateway", "api", "worker", "engine", "providers", "mcp_bridge", "migrations")
FUNCTION_LINES = 50
PARAMETERS = 6
FILE_LINES = 500
LOCKS = ("requirements", "requirements-dev")

# Where everything may be caught, and why. Such a border logs what it caught, with its traceback, or hands it on.
BORDERS = {
    "aigateway/cli/main.py::_run": "the program's top: what nobody foresaw becomes one line and exit code 1",
    "aigateway/reloading.py::Reloader._reload_or_log": "loop top: a process outlives a reload that failed",
    "worker/template.py::be_template": "a forked process's top: its fault is logged and becomes its exit code",
    "worker/runner.py::StepRunner._execute": "executor border: whatever an executor raises becomes an outcome",
    "worker/runner.py::StepRunner._end_and_go_on": "executor border: what another step's claim fails of costs no result",
    "worker/runner.py::StepRunner._complete": "executor border: a result that no database takes fails its step",
    "worker/deliveries.py::Deliveries.run": "loop top: webhooks outlive a look that failed",
    "worker/housekeeping.py::Sweeper.run": "loop top: the sweeper outlives a sweep that failed",
    "worker/undertaker.py::Undertaker.run": "loop top: burials go on after a look that failed",
    "worker/retention.py::Retention.run": "loop top: retention outlives a turn that failed",
    "worker/holdings.py::Holdings.run": "loop top: the comparison outlives a look that failed",
    "api/auth.py::Gate.__call__": "the API's top: no traceback reaches a user",
    "api/run_watch.py::RunWatch._compare": "task top: the fault is handed to those who wait",
    "mcp_bridge/connection.py::Connection._own": "task top: the fault is handed to the connection's callers",
    "engine/store/group_commit.py::GroupCommit.run_if_free": "group commit: a member's failure belongs to the one who asked",
    "engine/store/group_commit.py::GroupCommit._alone": "the same, for a member that is run by itself",
}

# The one place that reads the process's environment, and hands it down as settings.
ENVIRONMENT = ("aigateway/settings.py",)

Function = ast.FunctionDef | ast.AsyncFunctionDef
Breach = tuple[str, int, str]


@cache
def project_files() -> tuple[str, ...]:
    """Everything that is, or by its place would be, part of the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return tuple(sorted(name for name in set(listed) if name and (ROOT / name).is_file()))


def python_files(*, rooms_only: bool) -> list[str]:
    """Names relative to the root."""
    names = [name for name in project_files() if name.endswith(".py")]
    return [name for name in names if name.split("/")[0] in ROOMS] if rooms_only else names


@cache
def tree_of(name: str) -> ast.Module:
    """The file, parsed."""
    return ast.parse((ROOT / name).read_text(), name)


def functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """Each function with its qualified name, such as `Worker.run`."""

    def below(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function | ast.ClassDef):
                name = f"{prefix}{child.name}"
                if isinstance(child, Function):
                    yield name, child
                yield from below(child, f"{name}.")
            else:
                yield from below(child, prefix)

    return below(tree, "")


def code_lines(function: Function) -> int:
    """Lines that hold code: no blank lines, comments, decorators or docstring."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    own = {function.lineno}
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.stmt | ast.expr | ast.excepthandler | ast.keyword):
                own.update((node.lineno, node.end_lineno or node.lineno))
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    own.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(own)


def long_functions(name: str, tree: ast.Module) -> Iterator[Breach]:
    if name.startswith("migrations/versions/"):
        return  # a list of tables and columns, read once
    for qualified, function in functions(tree):
        if (lines := code_lines(function)) > FUNCTION_LINES:
            yield name, function.lineno, f"{qualified} has {lines} lines of code, at most {FUNCTION_LINES}"


def wide_functions(name: str, tree: ast.Module) -> Iterator[Breach]:
    commands = {
        node.args[0].id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and "command(" in ast.unparse(node.func) and isinstance(node.args[0], ast.Name)
    }
    for qualified, function in functions(tree):
        given = function.args
        names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        count = len([each for each in names if each not in ("self", "cls")])
        # A command's parameters are its options: what the user sees, not what a caller has to know.
        is_command = qualified in commands or any("command" in ast.unparse(each) for each in function.decorator_list)
        if count > PARAMETERS and not is_command:
            yield name, function.lineno, f"{qualified} has {count} parameters, at most {PARAMETERS}"


def broad_catches(name: str, tree: ast.Module) -> Iterator[Breach]:
    for qualified, function in chain(functions(tree), [("", tree)]):
        for node in own_nodes(function):
            if isinstance(node, ast.ExceptHandler) and catches_everything(node):
                place = f"{name}::{qualified}"
                if place not in BORDERS:
                    yield name, node.lineno, f"{place} catches everything and is no border in BORDERS"


def own_nodes(function: Function | ast.Module) -> Iterator[ast.AST]:
    """What is inside, but not inside a function or class of its own."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, Function | ast.ClassDef):
            yield child
            yield from own_nodes(child)  # type: ignore[arg-type]


def catches_everything(handler: ast.ExceptHandler) -> bool:
    """Whether it takes Exception, BaseException or anything; re-raising at its end makes it harmless."""
    if isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None:
        return False
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(ast.unparse(each).split(".")[-1] in ("Exception", "BaseException") for each in caught)


def environment_reads(name: str, tree: ast.Module) -> Iterator[Breach]:
    if name in ENVIRONMENT:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv", "os.putenv"):
            yield name, node.lineno, f"{ast.unparse(node)} outside {ENVIRONMENT[0]}"
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            taken = {alias.name for alias in node.names} & {"environ", "getenv", "putenv"}
            if taken:
                yield name, node.lineno, f"os.{taken.pop()} outside {ENVIRONMENT[0]}"


def relative_imports(name: str, tree: ast.Module) -> Iterator[Breach]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            yield name, node.lineno, "a relative import"


def unstable_migrations(name: str, tree: ast.Module) -> Iterator[Breach]:
    """A migration is written once: it may lean on nothing that changes after it."""
    if not name.startswith("migrations/versions/"):
        return
    for node in ast.walk(tree):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in modules:
            if module.split(".")[0] in ROOMS:
                yield name, getattr(node, "lineno", 0), f"a migration imports {module}"


IN_ROOMS = [wide_functions, broad_catches, environment_reads, unstable_migrations]
EVERYWHERE = [long_functions, relative_imports]

Rule = Callable[[str, ast.Module], Iterator[Breach]]


@pytest.mark.parametrize("rule", [*IN_ROOMS, *EVERYWHERE])
def test_the_code_keeps(rule: Rule) -> None:
    files = python_files(rooms_only=rule in IN_ROOMS)
    assert len(files) > 5
    assert [f"{name}:{line}: {what}" for file in files for name, line, what in rule(file, tree_of(file))] == []


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (long_functions, "def long():\n" + "    a = 1\n" * FUNCTION_LINES),
        (wide_functions, "class A:\n    def wide(self, a, b, c, d, *, e, f, g): ..."),
        (broad_catches, "class A:\n    def f(self):\n        try: ...\n        except (ValueError, Exception): pass"),
        (broad_catches, "try: ...\nexcept: ..."),
        (broad_catches, "def f():\n    try: ...\n    except BaseException as e:\n        raise ValueError from e"),
        (environment_reads, "import os\nx = os.environ['A']"),
        (environment_reads, "import os\nx = os.getenv('A')"),
        (environment_reads, "from os import environ"),
        (relative_imports, "from . import sibling"),
        (unstable_migrations, "from engine.store.tables import metadata"),
    ],
)
def test_each_rule_finds_its_breach(rule: Rule, code: str) -> None:
    place = "migrations/versions" if rule is unstable_migrations else "engine"
    assert len(list(rule(f"{place}/planted.py", ast.parse(code)))) == 1


def test_comments_docstrings_and_commands_are_not_counted() -> None:
    quiet = 'def f():\n    """One.\n' + "\n" * 60 + '    """\n' + "    # why\n" * 60 + "    return 1\n"
    command = "@app.command()\ndef run(a, b, c, d, e, f, g, h): ..."
    handed_on = "try: ...\nexcept BaseException:\n    close()\n    raise"
    assert list(long_functions("x.py", ast.parse(quiet))) == []
    assert list(wide_functions("x.py", ast.parse(command))) == []
    assert list(broad_catches("x.py", ast.parse(handed_on))) == []


def test_every_border_is_still_there() -> None:
    named = {
        f"{name}::{qualified}"
        for name in python_files(rooms_only=True)
        for qualified, function in functions(tree_of(name))
        if any(isinstance(node, ast.ExceptHandler) and catches_everything(node) for node in own_nodes(function))
    }
    assert set(BORDERS) - named == set()


def test_no_file_is_long() -> None:
    lengths = {name: (ROOT / name).read_text().count("\n") for name in python_files(rooms_only=False)}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES} == {}


# Put together from pieces, so that this file does not hold what it forbids.
UNFINISHED = re.compile("|".join(rf"\b{''.join(pieces)}\b" for pieces in (("TO", "DO"), ("FIX", "ME"), ("XX", "X"))))
HOSTS = [("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("deb", "debian")]
FOLDERS = ("root", "work", "home/[a-z]+", "Users/[A-Za-z]+")
PLACES = re.compile(
    "|".join([rf"(?<![\w.~/$}}-])/{folder}/\w" for folder in FOLDERS] + [r"\b" + r"\.".join(host) for host in HOSTS])
)


@pytest.mark.parametrize(
    ("forbidden", "kind"), [(UNFINISHED, "unfinished"), (PLACES, "a place")], ids=["unfinished", "places"]
)
def test_no_file_holds(forbidden: re.Pattern[str], kind: str) -> None:
    found: list[str] = []
    for name in project_files():
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{name}: {kind}: {match.group()}" for match in forbidden.finditer(text)]
    assert found == []


@pytest.mark.parametrize("pieces", [("see ", "root", "x"), ("cd ", "home", "me", "x"), (".".join(HOSTS[0]), "simple")])
def test_a_place_is_recognised(pieces: tuple[str, ...]) -> None:
    assert PLACES.search("/".join(pieces))


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_pins_by_hash_and_names_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert re.findall(r"://| @ |--\w*index|--find-links|file:", text) == []
    pins = re.split(r"\n(?=\S)", text)
    unhashed = [pin.splitlines()[0] for pin in pins if not pin.startswith("#") and "--hash=sha256:" not in pin]
    assert unhashed == []


def test_the_development_lock_is_a_superset_of_the_runtime_lock() -> None:
    pins = [set(re.findall(r"^[\w.-]+==\S+", (ROOT / f"{name}.lock").read_text(), re.M)) for name in LOCKS]
    assert len(pins[0]) > 20
    assert pins[0] <= pins[1]


@pytest.mark.parametrize(
    ("lock", "groups"), [("requirements.lock", ["build"]), ("requirements-dev.lock", ["build", "dev"])]
)
def test_a_lock_satisfies_what_the_project_asks_for(lock: str, groups: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*project["project"]["dependencies"], *chain.from_iterable(project["dependency-groups"][g] for g in groups)]
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / lock).read_text(), re.M))
    requirements = [Requirement(each) for each in asked]
    unmet = [
        str(each) for each in requirements if not each.specifier.contains(pins.get(canonicalize_name(each.name), "0"))
    ]
    missing = [each.name for each in requirements if canonicalize_name(each.name) not in pins]
    assert unmet + missing == []
