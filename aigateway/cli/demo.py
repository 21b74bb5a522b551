"""`aigateway demo`: reads its options and hands over to `aigateway.demo`; exit code 1 where what it claims does not hold."""

import signal
from typing import Annotated

import typer

from aigateway.cli.options import JsonOption, print_json

# Imports inside the function: the HTTP client, pydantic and rich cost more than a command's --help may take.
# ruff: noqa: PLC0415


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(epilog="Example: aigateway demo --fast", rich_help_panel="Run the gateway")(demo)


def demo(
    *,
    fast: Annotated[bool, typer.Option("--fast", help="For scripts: short delays, nothing animated.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Runs the research workflow on simulated models, kills a worker midway and proves what was not paid twice."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C: everything is taken down in order
    from rich.console import Console

    from aigateway.demo import play
    from aigateway.demo_proof import broken, facts
    from aigateway.demo_script import CALM, FAST
    from aigateway.demo_view import Narrator

    console = Console(quiet=as_json, highlight=False)
    narrator = Narrator(console, animate=console.is_terminal and not fast and not as_json)
    evidence = play(FAST if fast else CALM, narrator)
    if as_json:
        print_json(facts(evidence))
    else:
        narrator.conclude(evidence)
    if broken(evidence):
        raise typer.Exit(1)
