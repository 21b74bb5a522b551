"""`aigateway runs …`: looks at and steers the runs of a server."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from aigateway.cli.options import ConfigOption, JsonOption, connect, print_json, print_table

if TYPE_CHECKING:
    from aigateway.client import Client

# Imports inside functions: the HTTP client, pydantic and rich cost more than a command's --help may take.
# ruff: noqa: PLC0415

group = typer.Typer(name="runs", help="Work with runs.", no_args_is_help=True, epilog="Example: aigateway runs list")
RunArgument = Annotated[str, typer.Argument(metavar="ID", help="The run's id.")]


def register(app: typer.Typer) -> None:
    """Adds the group to the program."""
    app.add_typer(group, rich_help_panel="Work with runs")


@group.command("list", epilog="Example: aigateway runs list --status failed --limit 10")
def list_runs(
    *,
    status: Annotated[
        str | None, typer.Option(help="queued, running, waiting, paused, succeeded, failed, cancelled.")
    ] = None,
    workflow: Annotated[str | None, typer.Option(help="Runs of this workflow alone.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Lists runs, newest first."""
    with connect(config) as client:
        answer = client.get("/v1/runs", {"status": status, "workflow": workflow, "limit": limit})
    if as_json:
        print_json(answer)
        return
    from aigateway.timeline import money

    print_table(
        ("id", "workflow", "status", "created", "tokens", "cost"),
        (
            (run["id"], run["workflow"], run["status"], run["created_at"], run["tokens"], money(run["cost_usd"]))
            for run in answer["data"]
        ),
    )


@group.command(epilog="Example: aigateway runs show 01997f3e-…")
def show(*, run_id: RunArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Draws a run's timeline: steps, attempts, tokens and cost."""
    with connect(config) as client:
        run, steps = _run_and_steps(client, run_id)
    if as_json:
        print_json(run | {"steps": steps})
        return
    from datetime import UTC, datetime

    from rich.console import Console

    from aigateway.timeline import timeline

    console = Console()
    console.print(timeline(run, steps, width=console.width, now=datetime.now(UTC)))


@group.command(epilog="Example: aigateway runs events 01997f3e-…")
def events(*, run_id: RunArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Prints a run's history, oldest first."""
    from aigateway.client import path

    with connect(config) as client:
        answer = client.get(path("runs", run_id, "events"))
    if as_json:
        print_json(answer)
        return
    print_table(
        ("at", "event", "step", "attempt"),
        ((event["at"], event["type"], event["step"], event["attempt"]) for event in answer["data"]),
    )


@group.command(epilog="Example: aigateway runs cancel 01997f3e-…")
def cancel(*, run_id: RunArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Cancels a run: queued steps at once, calls in flight within two seconds."""
    _steer(run_id, "cancel", None, as_json=as_json, config=config)


@group.command(epilog="Example: aigateway runs pause 01997f3e-…")
def pause(*, run_id: RunArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Starts no further step of a run; those in flight end."""
    _steer(run_id, "pause", None, as_json=as_json, config=config)


@group.command(epilog="Example: aigateway runs resume 01997f3e-… --budget 2")
def resume(
    *,
    run_id: RunArgument,
    budget: Annotated[float | None, typer.Option(min=0, metavar="USD", help="The run's new budget.")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Lets a paused run go on, after a budget stop with a larger budget."""
    _steer(run_id, "resume", None if budget is None else {"budget_usd": budget}, as_json=as_json, config=config)


@group.command(epilog="Example: aigateway runs retry 01997f3e-…")
def retry(*, run_id: RunArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Goes on from the step that failed; what succeeded before is not run again."""
    _steer(run_id, "retry", None, as_json=as_json, config=config)


def _steer(run_id: str, verb: str, body: dict[str, Any] | None, *, as_json: bool, config: str | None) -> None:
    from aigateway.client import path

    with connect(config) as client:
        run = client.post(path("runs", run_id, verb), body)
    if as_json:
        print_json(run)
    else:
        typer.echo(f"{run['id']} {run['status']}")


def _run_and_steps(client: "Client", run_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from aigateway.client import path

    return client.get(path("runs", run_id)), client.get(path("runs", run_id, "steps"))["data"]
