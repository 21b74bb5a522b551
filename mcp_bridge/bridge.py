"""The bridge as the rest of the house sees it: all configured servers, their tools, and calls by name.

Lives in one event loop. Starts nothing until something is asked for; `close` ends every server that was started.
Nothing that a server does leaves here as anything but `ToolError`.
"""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from engine.errors import NotFound
from engine.states import ErrorClass
from mcp_bridge.calls import ToolResult
from mcp_bridge.catalogue import Tool, unknown_server, unknown_tool
from mcp_bridge.errors import ToolError, shorten
from mcp_bridge.link import ServerLink, ServerState
from mcp_bridge.servers import McpServerConfig

MAX_RESULT_BYTES = 16 * 1024 * 1024
_CATALOGUE_TTL_S = 60.0
_SECOND_LOOK_S = 2.0
_GRACE_S = 0.25
_RANK = {"connected": 0, "idle": 1, "failed": 2}


class McpBridge:
    """All configured servers. Also an async context manager."""

    def __init__(
        self,
        configs: Mapping[str, McpServerConfig],
        *,
        environment: Mapping[str, str],
        max_result_bytes: int = MAX_RESULT_BYTES,
    ) -> None:
        """`environment` is what child processes inherit, below their own `env`; many servers fail with less."""
        self._environment = environment
        self._max_result_bytes = max_result_bytes
        self._links = {name: self._new_link(config) for name, config in configs.items()}
        self._retiring: dict[asyncio.Task[None], ServerLink] = {}

    async def __aenter__(self) -> Self:
        """The bridge itself; connects nothing."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Closes the bridge."""
        await self.close()

    async def close(self) -> None:
        """Ends all connections and the servers that were started, all at once; takes a few seconds at most."""
        retiring = dict(self._retiring)
        await asyncio.gather(*(link.close() for link in (*self._links.values(), *retiring.values())))
        await asyncio.gather(*retiring)

    def reconfigure(self, configs: Mapping[str, McpServerConfig]) -> None:
        """Takes another configuration up at once. New servers start when something asks for them, unchanged ones are not
        touched; those that are gone or changed end as soon as their calls have ended.
        """
        old = dict(self._links)
        unchanged = {
            name: old.pop(name) for name, config in configs.items() if name in old and old[name].config == config
        }
        self._links = {name: unchanged.get(name) or self._new_link(config) for name, config in configs.items()}
        for link in old.values():
            task = asyncio.create_task(link.retire())
            self._retiring[task] = link
            task.add_done_callback(self._retiring.pop)

    async def servers(self) -> list[ServerState]:
        """Every configured server as it stands now, in the order of the configuration; connects nothing."""
        return [link.state() for link in self._links.values()]

    async def tools(self, *, refresh: bool = False) -> list[Tool]:
        """Every tool of every server that can be reached; `servers` then says which could not, and why.

        Waits for the slowest server, at most its connect timeout twice. Lists are kept for a minute, and a server
        that could not be reached is left out for half a minute; `refresh` asks all of them now.
        """
        max_age_s = 0.0 if refresh else _CATALOGUE_TTL_S
        asked = [link for link in self._links.values() if refresh or not link.lately_unreachable]
        answers = await asyncio.gather(*(_reached(link, max_age_s) for link in asked))
        return [
            tool for link, reached in zip(asked, answers, strict=True) if reached for tool in link.tools_known.values()
        ]

    def known_tools(self) -> dict[str, dict[str, Tool]]:
        """The tools by server as each told them last; servers that have not told theirs yet are left out. Asks nobody."""
        return {name: dict(link.tools_known) for name, link in self._links.items() if link.state().tools is not None}

    async def tools_of(self, server: str) -> list[Tool]:
        """Every tool of one server, by name. Raises: NotFound for an unknown server; ToolError where it cannot be asked."""
        link = self._link(server)
        await link.refresh(max_age_s=_CATALOGUE_TTL_S)
        return [link.tools_known[name] for name in sorted(link.tools_known)]

    async def find(self, tool: str, server: str | None = None) -> Tool:
        """The tool, on the server that would serve it now.

        Raises:
            NotFound: `mcp_server_not_found` or `tool_not_found`, with the nearest names.
            ToolError: not found where it could be looked for, and some server could not be reached.
        """
        return (await self._candidates(tool, server))[0].tools_known[tool]

    async def call(
        self, tool: str, params: Mapping[str, Any], *, server: str | None = None, timeout_s: float | None = None
    ) -> ToolResult:
        """Calls a tool; without `server`, on whichever server has it, healthy ones first, in configured order.

        Such a call goes on to the next server where the first could not be reached before the call was sent.
        `timeout_s` bounds all of it; without it connecting and calling have the server's configured timeouts.

        Raises:
            ToolError: anything that went wrong, unknown names included.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        candidates = await self._routed(tool, server, timeout_s)
        for link in candidates[:-1]:
            try:
                return await link.call(tool, params, timeout_s=_left(deadline))
            except ToolError as error:
                if error.sent or error.error_class not in (ErrorClass.CONNECTION, ErrorClass.TIMEOUT):
                    raise
        return await candidates[-1].call(tool, params, timeout_s=_left(deadline))

    async def _routed(self, tool: str, server: str | None, timeout_s: float | None) -> list[ServerLink]:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._candidates(tool, server)
        except NotFound as error:
            raise ToolError(
                ErrorClass.INVALID_REQUEST, error.message, code=error.code, param=error.param, sent=False
            ) from error
        except TimeoutError as error:
            message = f"MCP tool {tool}: no server that has it answered within {timeout_s:g} s"
            raise ToolError(ErrorClass.TIMEOUT, message, sent=False) from error

    async def _candidates(self, tool: str, server: str | None) -> list[ServerLink]:
        """Who has the tool, best first; never empty. What is known already is believed: a tool that has vanished
        since is refused by its server."""
        if server is not None:
            return [await self._holder(tool, self._link(server))]
        links = list(self._links.values())
        if not _having(tool, links):
            await self._look_up(tool, links)
        found = _having(tool, links)
        if not found:
            raise self._missing(tool, links)
        return sorted(found, key=lambda link: _RANK[link.status])

    async def _holder(self, tool: str, link: ServerLink) -> ServerLink:
        if tool not in link.tools_known:
            await link.refresh(max_age_s=_SECOND_LOOK_S)
        if tool not in link.tools_known:
            raise unknown_tool(tool, link.tools_known, server=link.config.name)
        return link

    def _missing(self, tool: str, links: list[ServerLink]) -> NotFound | ToolError:
        """Only where every server could be asked is it certain that none has the tool."""
        missing = unknown_tool(tool, [name for link in links for name in link.tools_known], server=None)
        unreachable = [shorten(link.error, 300) for link in links if link.error is not None]
        if not unreachable:
            return missing
        message = f"{missing.message} Not every server could be asked: {'; '.join(unreachable)}."
        return ToolError(ErrorClass.CONNECTION, message, param="tool", sent=False)

    def _new_link(self, config: McpServerConfig) -> ServerLink:
        return ServerLink(config, self._environment, max_result_bytes=self._max_result_bytes)

    def _link(self, server: str) -> ServerLink:
        link = self._links.get(server)
        if link is None:
            raise unknown_server(server, self._links)
        return link

    async def _look_up(self, tool: str, links: list[ServerLink]) -> None:
        """Asks all at once, and waits for who still connects only while none has the tool: a mute server delays nobody.

        Those that stand before the first one found get a moment more, so that the order of the configuration counts.
        """
        asked = [asyncio.create_task(_reached(link, _SECOND_LOOK_S)) for link in links]
        waiting = set(asked)
        try:
            while waiting and not _having(tool, links):
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            first = next((place for place, link in enumerate(links) if tool in link.tools_known), 0)
            if before := waiting & set(asked[:first]):
                await asyncio.wait(before, timeout=_GRACE_S)
        finally:
            for task in asked:
                task.cancel()


def _having(tool: str, links: list[ServerLink]) -> list[ServerLink]:
    return [link for link in links if tool in link.tools_known]


async def _reached(link: ServerLink, max_age_s: float) -> bool:
    """Whether the server's tools are known and no older than that; its state keeps the reason where not."""
    try:
        await link.refresh(max_age_s=max_age_s)
    except ToolError:
        return False
    return True


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())
