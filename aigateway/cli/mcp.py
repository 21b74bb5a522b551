"""`aigateway mcp`: this gateway as an MCP server over stdio; `aigateway mcp …`: the servers that it is connected to, and their tools."""

import sys

import typer

from aigateway.cli.options import ConfigOption, JsonOption, connect, print_json
from aigateway.cli.reach import reached
from aigateway.cli.tables import print_table

# Imports inside functions: the library costs more than a second.
# ruff: noqa: PLC0415

group = typer.Typer(name="mcp", invoke_without_command=True, epilog="Example: aigateway mcp --config aigateway.yaml")


def register(app: typer.Typer) -> None:
    """Adds the group to the program."""
    app.add_typer(group, rich_help_panel="Definitions and tools")


@group.callback()
def serve(context: typer.Context, *, config: ConfigOption = None) -> None:
    """This gateway as an MCP server over stdio: every workflow is a tool. Meant to be started by an MCP client.

    Talks to the running server, or runs one of its own until standard input closes.
    """
    if context.invoked_subcommand is not None:
        return
    if sys.stdin.isatty():
        typer.echo(context.get_help())
        raise typer.Exit(2)
    from aigateway.mcp_stdio import serve_stdio

    with reached(config, embed=True) as (client, _):
        serve_stdio(client.address)


@group.command(epilog="Example: aigateway mcp tools --json")
def tools(*, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Lists the tools of all connected servers."""
    with connect(config) as client:
        answer = client.get_all("/v1/mcp/tools")
    if as_json:
        print_json(answer)
        return
    print_table(
        ("server", "tool", "description"),
        ((tool["server"], tool["name"], (tool.get("description") or "").partition("\n")[0]) for tool in answer["data"]),
        shorten="description",
    )


@group.command(epilog="Example: aigateway mcp servers")
def servers(*, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Lists the configured servers and how each one is."""
    with connect(config) as client:
        answer = client.get_all("/v1/mcp/servers")
    if as_json:
        print_json(answer)
        return
    print_table(
        ("server", "state", "tools", "error"),
        ((server["name"], server.get("status"), server.get("tools"), server.get("error")) for server in answer["data"]),
    )
