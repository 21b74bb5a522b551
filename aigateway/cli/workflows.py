"""`aigateway workflows …`: checks definitions in files, and lists, shows and stores those of a server."""

from pathlib import Path
from typing import Annotated

import typer

from aigateway.cli.options import ConfigOption, JsonOption, connect, print_json
from aigateway.cli.reach import looked
from aigateway.cli.tables import print_table

# Imports inside functions: the HTTP client, pydantic and the language cost more than a command's --help may take.
# ruff: noqa: PLC0415

group = typer.Typer(
    name="workflows",
    help="Definitions: validate, push, show, draw, delete …",
    no_args_is_help=True,
    epilog="Example: aigateway workflows validate workflows/*.yaml",
)
FilesArgument = Annotated[list[Path], typer.Argument(metavar="FILE…", help="YAML files, each with one definition.")]


def register(app: typer.Typer) -> None:
    """Adds the group to the program."""
    app.add_typer(group, rich_help_panel="Definitions and tools")


@group.command("list", epilog="Example: aigateway workflows list --json")
def list_workflows(*, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Lists the definitions that the server has, newest first."""
    with looked(config) as client:
        answer = client.get_all("/v1/workflows")
    if as_json:
        print_json(answer)
        return
    print_table(
        ("name", "version", "updated"),
        ((entry["name"], entry["version"], entry["updated_at"]) for entry in answer["data"]),
    )


@group.command(epilog="Example: aigateway workflows show research-assistant")
def show(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The workflow's name.")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Prints a definition as it was stored."""
    from aigateway.client import path

    with looked(config) as client:
        entry = client.get(path("workflows", name))
    if as_json:
        print_json(entry)
    else:
        typer.echo(entry["config_yaml"])


@group.command(epilog="Example: aigateway workflows validate --strict workflows/*.yaml")
def validate(
    *,
    files: FilesArgument,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 for warnings too.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Reports every mistake in the files at once, with line and column. Exit code 1 where there is one, 0 with warnings alone.

    Warnings tell of steps that never run, and of models, MCP servers, tools and workflows that are not there.

    They go by the server that runs, else by the configuration (MCP servers in question are started for a moment).

    Without either the text alone is checked.
    """
    from dataclasses import asdict

    from aigateway.cli.definition_files import check
    from aigateway.cli.definition_names import add_warnings

    checked = [check(file) for file in files]
    against = add_warnings(checked, config)
    if as_json:
        found = [(str(one.file), map(asdict, one.mistakes), map(asdict, one.warnings)) for one in checked]
        told = [{"file": file, "mistakes": [*wrong], "warnings": [*odd]} for file, wrong, odd in found]
        print_json([entry | {"checked_against": against} for entry in told])
    for one in () if as_json else checked:
        one.show()
        if not one.mistakes:
            number = len(one.warnings)
            typer.echo(f"{one.file}: ok" + (f", {number} warning{'s' * (number > 1)}" if number else ""))
    if any(one.mistakes or (strict and one.warnings) for one in checked):
        raise typer.Exit(1)


@group.command(epilog="Example: aigateway workflows push workflows/research-assistant.yaml")
def push(*, files: FilesArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Stores definitions on the server: a changed one becomes a new version. Nothing is stored if a file has mistakes."""
    from aigateway.cli.definition_files import Checked, read_definition
    from aigateway.client import mistake_of, path

    definitions = [read_definition(file) for file in files]
    with connect(config) as client:
        stored = [client.put_yaml(path("workflows", one.name), one.source) for one in definitions]
    if as_json:
        print_json(stored)
        return
    for file, definition, entry in zip(files, definitions, stored, strict=True):
        typer.echo(f"{entry['name']} version {entry['version']}")
        Checked(file, definition.source, definition, [], [mistake_of(one) for one in entry.get("warnings", ())]).show()


@group.command(epilog="Example: aigateway workflows delete old-digest")
def delete(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The workflow's name.")],
    config: ConfigOption = None,
) -> None:
    """Deletes a definition with its schedules; runs of it go on, and are kept."""
    from aigateway.client import path

    with connect(config) as client:
        client.delete(path("workflows", name))
    typer.echo(f"{name} is deleted")


@group.command(epilog="Example: aigateway workflows graph research-assistant")
def graph(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME_OR_FILE", help="A stored workflow, or a file with one.")],
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Mermaid text, which Markdown viewers draw.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Draws a definition: what waits for what, and what stands inside what. A file needs no server."""
    from aigateway.cli.definition_files import is_file, read_definition
    from aigateway.client import path
    from aigateway.workflow_tree import workflow_tree
    from engine.workflow_graph import workflow_graph

    if is_file(name):
        found = workflow_graph(read_definition(Path(name)))
    else:
        with looked(config) as client:
            found = client.get(path("workflows", name, "graph"))
    if as_json:
        print_json(found)
    else:
        typer.echo(found["mermaid"].rstrip("\n") if mermaid else workflow_tree(found))


@group.command(epilog="Example: aigateway workflows schema > schema.json")
def schema() -> None:
    """Prints the JSON Schema of the workflow language, for editors and for models that write workflows. Needs no server."""
    from engine.schema import language_schema

    print_json(language_schema())
