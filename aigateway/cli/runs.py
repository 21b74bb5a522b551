"""`aigateway runs …`: looks at and steers the runs of a server."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aigateway.cli.declared_inputs import of_run
from aigateway.cli.inputs import parse_inputs, typed_inputs
from aigateway.cli.options import ConfigOption, JsonOption, connect, print_json
from aigateway.cli.reach import looked
from aigateway.cli.tables import print_table
from aigateway.cli.times import SinceOption, instant

if TYPE_CHECKING:
    from aigateway.client import Client

# Imports inside functions: the HTTP client, pydantic and rich cost more than a command's --help may take.
# ruff: noqa: PLC0415

group = typer.Typer(
    name="runs",
    help="Look at runs and steer them: show, cancel, pause, retry, fork …",
    no_args_is_help=True,
    epilog="Example: aigateway runs list",
)
RunArgument = Annotated[str, typer.Argument(metavar="ID", help="The run's id.")]
RunsArgument = Annotated[list[str], typer.Argument(metavar="ID…", help="The run's id, or several.")]


def register(app: typer.Typer) -> None:
    """Adds the group to the program."""
    app.add_typer(group, rich_help_panel="Work with runs")


@group.command("list", epilog="Example: aigateway runs list --status failed --limit 10")
def list_runs(
    *,
    status: Annotated[
        str | None,
        typer.Option(metavar="STATUS", help="queued, running, waiting, paused, succeeded, failed, cancelled."),
    ] = None,
    workflow: Annotated[str | None, typer.Option(metavar="NAME", help="Runs of this workflow alone.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="KEY:VALUE", help="Runs with this tag alone.")] = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option(min=1, max=200, metavar="N", help="The most that are listed.")] = 20,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Lists runs, newest first."""
    with looked(config) as client:
        asked = {"status": status, "workflow": workflow, "tag": tag, "since": instant(since), "limit": limit}
        answer = client.get("/v1/runs", asked)
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
        shorten="workflow",
    )


@group.command(epilog="Example: aigateway runs show 01997f3e-…")
def show(*, run_id: RunArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Draws a run's timeline: steps, attempts, tokens and cost."""
    with looked(config) as client:
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

    with looked(config) as client:
        answer = client.get_all(path("runs", run_id, "events"))
    if as_json:
        print_json(answer)
        return
    print_table(
        ("at", "event", "step", "attempt"),
        ((event["at"], event["type"], event["step"], event["attempt"]) for event in answer["data"]),
        precise=True,
    )


@group.command(epilog="Example: aigateway runs cancel 01997f3e-…")
def cancel(*, run_ids: RunsArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Cancels runs: queued steps at once, calls in flight within two seconds."""
    _steer(run_ids, "cancel", None, as_json=as_json, config=config)


@group.command(epilog="Example: aigateway runs pause 01997f3e-…")
def pause(*, run_ids: RunsArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Starts no further step of these runs; those in flight end."""
    _steer(run_ids, "pause", None, as_json=as_json, config=config)


@group.command(epilog="Example: aigateway runs resume 01997f3e-… --budget 2")
def resume(
    *,
    run_ids: RunsArgument,
    budget: Annotated[float | None, typer.Option(min=0, metavar="USD", help="The run's new budget.")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Lets paused runs go on, after a budget stop with a larger budget."""
    _steer(run_ids, "resume", None if budget is None else {"budget_usd": budget}, as_json=as_json, config=config)


@group.command(epilog="Example: aigateway runs list --status failed --since 1d | cut -f1 | xargs aigateway runs retry")
def retry(*, run_ids: RunsArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Goes on from the step that failed; what succeeded before is not run again."""
    _steer(run_ids, "retry", None, as_json=as_json, config=config)


@group.command(epilog="Example: aigateway runs fork 01997f3e-… --from report -i topic=owls --model report=fast")
def fork(
    *,
    run_id: RunArgument,
    step: Annotated[str, typer.Option("--from", metavar="STEP", help="The step to go on from.")],
    inputs: Annotated[
        list[str],
        typer.Option("--input", "-i", metavar="KEY=VALUE", help="Changes this input; the others stay. As in `run`."),
    ] = [],  # noqa: B006  # typer copies it
    models: Annotated[
        list[str], typer.Option("--model", metavar="STEP=NAME", help="Another model for an llm step.")
    ] = [],  # noqa: B006
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Makes a new run that goes on from a step of this one; every result before it is reused and not paid for again."""
    from aigateway.client import path

    changed, body = parse_inputs(inputs), {"from_step": step, "models": _models(models)}
    with connect(config) as client:
        if changed.values:
            old = client.get(path("runs", run_id))
            declared = of_run(client, old) if changed.texts else None
            body["input"] = {**old["input"], **typed_inputs(changed, declared)}
        run = client.post(path("runs", run_id, "fork"), body)
    _print_run(run, as_json=as_json)


@group.command(epilog="Example: aigateway runs signal 01997f3e-… approval -d approved:=true -d by=Ann")
def signal(
    *,
    run_id: RunArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The signal's name.")],
    payload: Annotated[
        str | None, typer.Argument(metavar="JSON", help="Its payload, such as '{\"approved\": true}'; left out: null.")
    ] = None,
    data: Annotated[
        list[str],
        typer.Option("--data", "-d", metavar="KEY=VALUE", help="The payload key by key: key=text, key:=json."),
    ] = [],  # noqa: B006
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Sends a run the signal that a step of it waits for: an approval, an event from outside."""
    from aigateway.client import path

    value = _payload(payload, data)
    with connect(config) as client:
        run = client.send(path("runs", run_id, "signals", name), value)
    _print_run(run, as_json=as_json)


def _models(given: list[str]) -> dict[str, str]:
    models: dict[str, str] = {}
    for entry in given:
        step, equals, model = entry.partition("=")
        if not equals or not step or not model:
            raise typer.BadParameter(f"{entry!r} is not step=name", param_hint="--model")
        models[step] = model
    return models


def _payload(text: str | None, data: list[str]) -> Any:
    if text is not None and data:
        raise typer.BadParameter("give the payload as JSON or with -d, not both", param_hint="-d")
    if text is None:
        return parse_inputs(data, "-d").values if data else None
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"the payload is no JSON: {error}", param_hint="JSON") from None


def _steer(run_ids: list[str], verb: str, body: dict[str, Any] | None, *, as_json: bool, config: str | None) -> None:
    """One run after the other; one that refuses is told of and keeps none of the others. Exit code 1 where one did."""
    from aigateway.client import path
    from engine.errors import AIGatewayError, RetryableError

    refused = 0
    with connect(config) as client:
        for run_id in run_ids:
            try:
                _print_run(client.post(path("runs", run_id, verb), body), as_json=as_json)
            except AIGatewayError as error:
                if len(run_ids) == 1 or isinstance(error, RetryableError):
                    raise
                typer.echo(f"aigateway: {run_id}: {error.message}", err=True)
                refused += 1
    if refused:
        raise typer.Exit(1)


def _print_run(run: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(run)
    else:
        typer.echo(f"{run['id']} {run['status']}")


def _run_and_steps(client: "Client", run_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from aigateway.client import path

    return client.get(path("runs", run_id)), client.get_all(path("runs", run_id, "steps"))["data"]
