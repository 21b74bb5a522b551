"""`aigateway mcp …`: the MCP servers that a running gateway is connected to, and their tools."""

import typer

from aigateway.cli.options import ConfigOption, JsonOption, connect, print_json, print_table

group = typer.Typer(
    name="mcp", help="MCP servers and their tools.", no_args_is_help=True, epilog="Example: aigateway mcp tools"
)


def register(app: typer.Typer) -> None:
    """Adds the group to the program."""
    app.add_typer(group, rich_help_panel="Definitions and tools")


@group.command(epilog="Example: aigateway mcp tools --json")
def tools(*, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Lists the tools of all connected servers."""
    with connect(config) as client:
        answer = client.get("/v1/mcp/tools")
    if as_json:
        print_json(answer)
        return
    print_table(
        ("server", "tool", "description"),
        ((tool["server"], tool["name"], (tool.get("description") or "").partition("\n")[0]) for tool in answer["data"]),
    )


@group.command(epilog="Example: aigateway mcp servers")
def servers(*, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Lists the configured servers and how each one is."""
    with connect(config) as client:
        answer = client.get("/v1/mcp/servers")
    if as_json:
        print_json(answer)
        return
    print_table(
        ("server", "state", "tools", "error"),
        ((server["name"], server.get("status"), server.get("tools"), server.get("error")) for server in answer["data"]),
    )
