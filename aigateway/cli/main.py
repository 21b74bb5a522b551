"""The program `aigateway`: puts the command groups together and turns every failure into one line and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted. No traceback is ever shown without `--debug`.
The groups import what is slow (HTTP client, settings, rich, the server) inside their commands, so that `--help` stays quick.
"""

import io
import sys
import tempfile
import traceback
from typing import Annotated

import typer

from aigateway import __version__
from aigateway.cli import database, demo, doctor, keys, mcp, run, runs, schedules, serve, spend, workflows
from engine.errors import AIGatewayError, Conflict, Mistake, NotFound, UserError

app = typer.Typer(
    name="aigateway",
    help="A durable workflow engine and an OpenAI-compatible gateway for work done by language models.",
    epilog="Example: aigateway serve",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"aigateway {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of unexpected errors.")] = False,
) -> None:
    """A durable workflow engine and an OpenAI-compatible gateway for work done by language models."""


serve.register(app)
demo.register(app)
run.register(app)
doctor.register(app)
for _group in (runs, workflows, schedules, spend, mcp, keys, database):
    _group.register(app)


def main() -> None:
    """Runs one command and ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows another one
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    try:
        code = app(arguments, standalone_mode=False, prog_name="aigateway")
    except typer.TyperException as error:
        return _usage(error)
    except AIGatewayError as error:
        return _known(error)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:  # noqa: BLE001  # the top of the program: what nobody foresaw becomes one line
        return _unexpected(error, debug="--debug" in arguments)
    return code if isinstance(code, int) else 0


def _usage(error: typer.TyperException) -> int:
    message = " ".join(error.format_message().split())
    if message:  # else a command was called without anything, and its help page has been shown
        typer.echo(f"aigateway: {message.rstrip('.')} (see `aigateway {_command(error)}--help`)", err=True)
    return 2


def _command(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    path = str(context.command_path) if context else ""
    below = path.partition(" ")[2]
    return f"{below} " if below else ""


def _known(error: AIGatewayError) -> int:
    lines = [mistake.message for mistake in error.details] if error.code == "invalid_config" else []
    for line in lines or _with_details(error):
        typer.echo(f"aigateway: {line}", err=True)
    misused = isinstance(error, UserError) and not isinstance(error, NotFound | Conflict)
    return 2 if misused else 1


def _with_details(error: AIGatewayError) -> list[str]:
    lines = [" ".join(error.message.split())]
    first = error.details[0] if error.details else None
    if first is not None and first.line and first.message == error.message:
        lines = [_place(first) + lines[0]]
    for mistake in error.details:
        where = _place(mistake)
        hint = f" (did you mean {mistake.suggestion}?)" if mistake.suggestion else ""
        if mistake.message not in error.message:
            lines.append(f"  {where}{mistake.message}{hint}")
    return lines


def _place(mistake: Mistake) -> str:
    """Line and column where they are known, else the path."""
    if mistake.line and mistake.column:
        step = f"{mistake.path}, " if (mistake.path or "").startswith("steps.") else ""
        return f"{step}line {mistake.line}, column {mistake.column}: "
    if mistake.line:
        return f"line {mistake.line}: "
    named = mistake.path is None or mistake.path.rpartition(".")[2] in mistake.message
    return "" if named else f"{mistake.path}: "


def _unexpected(error: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
        return 1
    with tempfile.NamedTemporaryFile(
        "w", prefix="aigateway-error-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        traceback.print_exc(file=log)
    told = " ".join(str(error).split())[:200]
    typer.echo(f"aigateway: unexpected {type(error).__name__}: {told} (details in {log.name})", err=True)
    return 1
