"""`aigateway run`: submits a run, against a server or an embedded one, and shows it until it ends."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aigateway.cli.declared_inputs import of_workflow, plain_definition
from aigateway.cli.inputs import Inputs, parse_inputs, parse_tags, typed_inputs
from aigateway.cli.options import ConfigOption, JsonOption, print_json
from aigateway.cli.reach import reached

if TYPE_CHECKING:
    from aigateway.cli.progress import View
    from aigateway.client import Client
    from engine.definition import Definition

# Imports inside functions: the HTTP client, pydantic and rich cost more than a command's --help may take.
# ruff: noqa: PLC0415


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(epilog="Example: aigateway run research-assistant -i topic=owls", rich_help_panel="Work with runs")(run)


def run(
    *,
    name_or_file: Annotated[str, typer.Argument(metavar="NAME_OR_FILE", help="A stored workflow, or a file with one.")],
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input",
            "-i",
            metavar="KEY=VALUE",
            help="key=value, key=@file: read as the type that the workflow declares for it (n=5 is a number), else text. key:=json.",
        ),
    ] = [],  # noqa: B006  # typer copies it
    follow: Annotated[bool, typer.Option("--follow", help="A line per step change, also where nobody looks.")] = False,
    as_json: JsonOption = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not wait: print the run's id.")] = False,
    budget_usd: Annotated[
        str | None,
        typer.Option(metavar="USD", help="The most that it may cost, in place of the workflow's own budget."),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="KEY:VALUE", help="A tag of the run. Repeatable.")] = None,
    priority: Annotated[str | None, typer.Option(metavar="CLASS", help="low, normal or high.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run nothing: show the prompts, the models and the range of the cost.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Submits a run and shows its progress; the output goes to stdout. Ctrl-C detaches, the run goes on."""
    from aigateway.cli.definition_files import is_file, told_in

    given = parse_inputs(inputs)
    told = {"budget_usd": budget_usd, "tags": parse_tags(tag or []) or None, "priority": priority}
    options = {name: value for name, value in told.items() if value is not None}
    file = _read(name_or_file) if is_file(name_or_file) else None
    definition = None if file is None else plain_definition(file.source)
    with reached(config, embed=not detach) as (client, embedded):
        values = _typed(client, name_or_file, definition, given)
        target, body = _request(name_or_file, definition, {"input": values, **options})
        with nullcontext() if file is None else told_in(Path(name_or_file), file):
            if dry_run:
                _preview(client, target, body, as_json=as_json)
                return
            submitted = client.post(target, body)
        if detach:
            print_json(submitted) if as_json else typer.echo(submitted["id"])
            return
        _watch(client, submitted["id"], _view(follow=follow, as_json=as_json), as_json=as_json, embedded=embedded)


def _read(name: str) -> "Definition":
    from aigateway.cli.definition_files import read_definition

    return read_definition(Path(name))


def _typed(client: "Client", name: str, definition: dict[str, Any] | None, given: Inputs) -> dict[str, Any]:
    """The run's input in the types that the workflow declares; the server is asked only where something was given as text."""
    if given.texts and definition is None:
        return typed_inputs(given, of_workflow(client, name))
    return typed_inputs(given, (definition or {}).get("inputs"))


def _request(name: str, definition: dict[str, Any] | None, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    from aigateway.client import path

    if definition is None:
        return path("workflows", name, "runs"), body
    return path("runs"), {"workflow": definition, **body}


def _preview(client: "Client", target: str, body: dict[str, Any], *, as_json: bool) -> None:
    from aigateway.dry_run_view import dry_run_view

    answer = client.post(target, body, params={"dry_run": "true"})
    print_json(answer) if as_json else typer.echo(dry_run_view(answer))
    if any(step["mistake"] for step in answer["steps"]):
        raise typer.Exit(1)


def _view(*, follow: bool, as_json: bool) -> "View":
    if as_json:
        return "json" if follow else "silent"
    if follow:
        return "lines"
    return "live" if sys.stderr.isatty() else "silent"


def _watch(client: "Client", run_id: str, view: "View", *, as_json: bool, embedded: bool) -> None:
    try:  # around the import too: it is slow enough to be interrupted
        from aigateway.cli.progress import follow

        ended = follow(client, run_id, view)
    except KeyboardInterrupt:
        then = "it goes on with the next `aigateway serve`" if embedded else "the run goes on"
        typer.echo(f"\ndetached: {then}; see `aigateway runs show {run_id}`", err=True)
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(ended, indent=None if view == "json" else 2, ensure_ascii=False))
    elif ended["status"] == "succeeded":
        _print_output(ended["output"])
    if ended["status"] != "succeeded":
        typer.echo(_why(ended), err=True)
        raise typer.Exit(1)


def _print_output(output: Any) -> None:
    from aigateway.timeline import printable

    text = output if isinstance(output, str) else json.dumps(output, indent=2, ensure_ascii=False)
    if sys.stdout.isatty():
        text = "\n".join(printable(line) for line in text.splitlines())
    sys.stdout.write(text + "\n")  # as it is: echo would take escape sequences out of what is piped on


def _why(ended: dict[str, Any]) -> str:
    from aigateway.timeline import money, printable

    error: dict[str, Any] = ended.get("error") or {}
    where = f" at step {error['step']}" if error.get("step") else ""
    reason = f": {error['message']}" if error.get("message") else ""
    if ended["status"] == "paused" and ended.get("pause_reason") == "budget_exceeded":
        reason = f": its budget is used up; `aigateway runs resume {ended['id']} --budget USD` with a larger one lets it go on"
    paid = f" ({money(ended['cost_usd'])} paid so far)" if ended.get("cost_usd") else ""
    return printable(f"aigateway: run {ended['id']} {ended['status']}{where}{reason}{paid}")
