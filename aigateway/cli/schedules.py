"""`aigateway schedules …`: lists, makes and deletes the schedules of a server."""

from typing import Annotated, Any

import typer

from aigateway.cli.options import ConfigOption, JsonOption, connect, print_json
from aigateway.cli.reach import looked
from aigateway.cli.tables import print_table

# Imports inside functions: the HTTP client costs more than a command's --help may take.
# ruff: noqa: PLC0415

group = typer.Typer(
    name="schedules",
    help="Run workflows by the clock.",
    no_args_is_help=True,
    epilog='Example: aigateway schedules create daily-digest --cron "0 7 * * *" --timezone Europe/Berlin -i folder=/notes',
)
_MOST = 200
_Schedule = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Its id or name.")]


def register(app: typer.Typer) -> None:
    """Adds the group to the program."""
    app.add_typer(group, rich_help_panel="Work with runs")


@group.command("list", epilog="Example: aigateway schedules list --json")
def list_schedules(
    *,
    workflow: Annotated[str | None, typer.Option(metavar="NAME", help="Schedules of this workflow alone.")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Lists schedules, newest first, those that definitions ask for too."""
    with looked(config) as client:
        answer = client.get("/v1/schedules", {"workflow": workflow, "limit": _MOST})
    if as_json:
        print_json(answer)
        return
    print_table(
        ("name", "workflow", "cron", "timezone", "next", "last", "last run", "skipped", "missed", "failed", "error"),
        (
            (
                each["name"],
                each["workflow"],
                each["cron"],
                each["timezone"],
                each["next_at"] or _why_never(each),
                each["last_at"],
                each["last_run_id"],
                each["skipped"],
                each["missed"],
                each["failed"],
                each["error"]["message"] if each["error"] else None,
            )
            for each in answer["data"]
        ),
        shorten="error",
    )


@group.command(
    epilog='Example: aigateway schedules create daily-digest --cron "0 7 * * MON-FRI" --timezone Europe/Berlin'
)
def create(
    *,
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="A stored workflow's name.")],
    cron: Annotated[
        str, typer.Option(metavar="LINE", help="Minute, hour, day of month, month, day of week; or @daily, @hourly …")
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What it is called; left out: as the workflow.")
    ] = None,
    timezone: Annotated[str, typer.Option(metavar="ZONE", help="An IANA name, such as Europe/Berlin.")] = "UTC",
    overlap: Annotated[
        str, typer.Option(metavar="POLICY", help="skip or queue, where the run before is still under way.")
    ] = "skip",
    catch_up: Annotated[
        int | None, typer.Option(min=0, max=100, metavar="N", help="How many missed firings are made up.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("-i", "--input", metavar="KEY=VALUE", help="As with `aigateway run`. Repeatable."),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="KEY:VALUE", help="A tag of its runs. Repeatable.")] = None,
    priority: Annotated[str, typer.Option(metavar="CLASS", help="low, normal or high.")] = "normal",
    budget_usd: Annotated[str | None, typer.Option(metavar="USD", help="The most that each run may cost.")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Makes a schedule for a stored workflow; prints when it comes due first."""
    from aigateway.cli.declared_inputs import of_workflow
    from aigateway.cli.inputs import parse_inputs, parse_tags, typed_inputs

    given = parse_inputs(inputs or [])
    asked: dict[str, Any] = {
        "workflow": workflow,
        "cron": cron,
        "name": name,
        "timezone": timezone,
        "overlap": overlap,
        "catch_up": catch_up,
        "input": dict(given.values),
        "tags": parse_tags(tag or []),
        "priority": priority,
        "budget_usd": budget_usd,
    }
    with connect(config) as client:
        if given.texts:
            asked["input"] = typed_inputs(given, of_workflow(client, workflow))
        made = client.post("/v1/schedules", {key: value for key, value in asked.items() if value is not None})
    if as_json:
        print_json(made)
        return
    for warning in made["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{made['name']} ({made['id']}) runs {made['workflow']} next at {', '.join(made['upcoming'][:3])}, …")


@group.command(epilog="Example: aigateway schedules pause daily-digest:1")
def pause(*, schedule: _Schedule, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Starts no runs until the schedule is resumed; one of a definition stays paused through its new versions."""
    told = _asked("pause", schedule, as_json=as_json, config=config)
    if told is not None:
        typer.echo(f"{told['name']} is paused since {told['paused_at']}")


@group.command(epilog="Example: aigateway schedules resume daily-digest:1")
def resume(*, schedule: _Schedule, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Lets a paused schedule go on with its next time; what came due meanwhile is not made up."""
    told = _asked("resume", schedule, as_json=as_json, config=config)
    if told is not None:
        typer.echo(f"{told['name']} runs next at {told['next_at'] or 'no time: it is not enabled'}")


@group.command(epilog="Example: aigateway schedules delete daily-digest")
def delete(
    *,
    schedule: _Schedule,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Deletes a schedule; the runs that it started go on."""
    from aigateway.client import path

    with connect(config) as client:
        gone = client.delete(path("schedules", schedule))
    if as_json:
        print_json(gone)
    else:
        typer.echo(f"{gone['name']} ({gone['id']}) is deleted")


def _asked(what: str, schedule: str, *, as_json: bool, config: str | None) -> dict[str, Any] | None:
    """The schedule as it is now; None where that was printed as JSON."""
    from aigateway.client import path

    with connect(config) as client:
        told: dict[str, Any] = client.post(f"{path('schedules', schedule)}/{what}", {})
    if as_json:
        print_json(told)
    return None if as_json else told


def _why_never(schedule: dict[str, Any]) -> str:
    if schedule["paused_at"]:
        return "paused"
    return "never" if schedule["enabled"] else "off"
