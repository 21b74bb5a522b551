"""What the connected servers can do: tools with their schemas and hints, and which name was probably meant."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import NotFound

if TYPE_CHECKING:
    import mcp_types


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool of one server. The hints are the server's own claims; left out, a tool counts as unsafe to repeat."""

    server: str
    name: str
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None
    read_only: bool
    idempotent: bool
    destructive: bool

    @property
    def repeatable(self) -> bool:
        """Whether a call whose end nobody saw may be sent again."""
        return self.read_only or self.idempotent


def tool_of(server: str, tool: "mcp_types.Tool") -> Tool:
    """The library's tool as ours; hint defaults as the specification gives them."""
    hints = tool.annotations
    read_only = bool(hints and hints.read_only_hint)
    return Tool(
        server=server,
        name=tool.name,
        description=tool.description or tool.title or "",
        input_schema=tool.input_schema,
        output_schema=tool.output_schema,
        read_only=read_only,
        idempotent=bool(hints and hints.idempotent_hint),
        destructive=not read_only and (hints is None or hints.destructive_hint is not False),
    )


def unknown_server(name: str, known: Iterable[str]) -> NotFound:
    """The error for a server that the configuration lacks."""
    return NotFound("mcp_server_not_found", f"There is no MCP server {name!r}{_nearest(name, known)}.", param="server")


def unknown_tool(name: str, known: Iterable[str], *, server: str | None) -> NotFound:
    """The error for a tool that the server, or every server, lacks."""
    where = f"MCP server {server!r} has" if server else "No MCP server has"
    negation = "no" if server else "a"
    return NotFound("tool_not_found", f"{where} {negation} tool {name!r}{_nearest(name, known)}.", param="tool")


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f", did you mean {' or '.join(near)}?".rstrip("?")
    return f" (known: {', '.join(names[:10])}{', …' if len(names) > 10 else ''})" if names else ""
