"""What a definition names that lies outside of it: models, MCP servers and their tools. Looks them up, asks and starts nothing.

Used where a definition is stored or a run submitted, and by `workflows validate` without a server.
"""

from collections.abc import Iterator, Mapping, Sequence

from engine.agent_steps import ANY_TOOL, split_tool
from engine.definition import Definition, Step
from engine.errors import Mistake, NotFound, RetryableError
from engine.tool_params import wrong_params
from engine.values import is_object
from mcp_bridge.bridge import McpBridge
from mcp_bridge.catalogue import Tool, unknown_tool
from providers.routing import Router

_NAMING = ("llm", "agent", "mcp_tool")

Known = Mapping[str, Mapping[str, Tool]]  # the tools of the servers that have told theirs


async def missing_names(router: Router, bridge: McpBridge, definition: Definition) -> list[Mistake]:
    """One mistake for each model or server that is not there, and each parameter that its tool does not take.

    Names made by expressions are not known yet, nor the tools of servers that nobody has needed so far.
    """
    naming = [step for step in definition.walk() if step.type in _NAMING]
    if not naming:
        return []
    servers = [state.name for state in await bridge.servers()]
    tools = bridge.known_tools()
    found: list[Mistake] = []
    for step in naming:
        model = step.fields["model"] if step.type in ("llm", "agent") else None
        message = await unknown_model(router, model) if isinstance(model, str) and "${" not in model else None
        wrong = [("model", message)] if message else []
        if step.type == "mcp_tool":
            wrong += _wrong_call(step, servers, tools)
        elif step.type == "agent":
            wrong += _wrong_tools(step, servers, tools)
        found += [Mistake(message, f"steps.{step.path}.{where}") for where, message in wrong]
    return found


async def unknown_model(router: Router, model: str) -> str | None:
    """Why nothing serves a model; None where something does, or will: a provider that is away is waited for."""
    try:
        await router.resolve(model)
    except NotFound as error:
        return error.message
    except RetryableError:
        return None
    return None


def asks_tools(definition: Definition) -> bool:
    """Whether it uses any tool of an MCP server."""
    return any(step.type in ("mcp_tool", "agent") for step in definition.walk())


def _unknown_server(server: str, known: Sequence[str]) -> Iterator[str]:
    if server not in known:
        yield f"there is no MCP server {server!r} in the configuration (there is: {', '.join(sorted(known)) or 'none'})"


def _wrong_tools(step: Step, servers: Sequence[str], known: Known) -> Iterator[tuple[str, str]]:
    """Entries of an agent's `tools` and `approve` whose server is not there, or has told its tools and has none of that name."""
    for key in ("tools", "approve"):
        for index, entry in enumerate(step.fields.get(key, ())):
            server, name = split_tool(entry)
            for message in _unknown_server(server, servers):
                yield f"{key}[{index}].server", message
            if name != ANY_TOOL and server in known and name not in known[server]:
                yield f"{key}[{index}].tool", unknown_tool(name, known[server], server=server).message


def _wrong_call(step: Step, servers: Sequence[str], known: Known) -> Iterator[tuple[str, str]]:
    """What is wrong with a tool step. Without a server, a tool that any server may have yet is not missing."""
    server, name = step.fields.get("server"), step.fields["tool"]
    if server is not None:
        for message in _unknown_server(server, servers):
            yield "server", message
    elif not servers:
        yield "server", "the tool names no server and no MCP server is configured"
    asked = [one for one in servers if server in (None, one)]
    having = [known[one][name] for one in asked if name in known.get(one, {})]
    if having:
        # Whichever of them is asked may take it: what is told is what the one has to say that minds it least.
        yield from min((list(_wrong_params(step, tool)) for tool in having), key=len)
    elif asked and all(one in known for one in asked):
        yield "tool", unknown_tool(name, [tool for one in asked for tool in known[one]], server=server).message


def _wrong_params(step: Step, tool: Tool) -> Iterator[tuple[str, str]]:
    given = step.fields.get("params", {})
    if not is_object(given):
        return
    for param, message in wrong_params(given, tool.input_schema):
        yield f"params.{param}", f"{tool.server}/{tool.name}, {param}: {message}"


async def unasked_tools(bridge: McpBridge, definition: Definition) -> list[Mistake]:
    """One mistake for each step whose tools could not be checked, because its server has not told them."""
    told = bridge.known_tools()
    silent = {state.name: state.error for state in await bridge.servers() if state.name not in told}
    found: list[Mistake] = []
    for step in definition.walk() if silent else ():
        for where, server in _servers_of(step, silent, told):
            reason = silent[server] or f"MCP server {server!r} has not answered yet"
            found.append(Mistake(f"not checked: {reason}", f"steps.{step.path}.{where}"))
    return found


def _servers_of(step: Step, silent: Mapping[str, str | None], told: Known) -> Iterator[tuple[str, str]]:
    """The silent servers that a step's tools may be of."""
    if step.type == "agent":
        for index, entry in enumerate(step.fields.get("tools", ())):
            if split_tool(entry)[0] in silent:
                yield f"tools[{index}]", split_tool(entry)[0]
    elif step.type == "mcp_tool":
        server = step.fields.get("server")
        if isinstance(server, str):
            yield from (("server", name) for name in silent if name == server)
        elif not any(step.fields["tool"] in tools for tools in told.values()):
            yield from (("tool", name) for name in silent)
