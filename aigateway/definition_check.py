"""What files with definitions name, looked up without a server: models, MCP servers and tools of a configuration, other workflows.

Reads what `serve` would read and stores nothing; the MCP servers that a definition needs are started for a moment.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aigateway.config_keys import Settings
from aigateway.wiring import SHIPPED_WORKFLOWS, Outgoing
from api.definition_names import asks_tools, missing_names, unasked_tools
from engine.calls import call_mistakes
from engine.definition import Definition
from engine.errors import Mistake
from engine.located import located
from engine.workflows import read_folder

_ASKING_S = 15.0  # how long all MCP servers together may take to tell their tools


@dataclass(frozen=True, slots=True)
class Folders:
    """engine.calls.Library: the definitions of folders and files, by name."""

    by_name: Mapping[str, Definition]

    def names(self) -> list[str]:
        """All that there are."""
        return sorted(self.by_name)

    def definition(self, name: str) -> Definition | None:
        """The one of that name."""
        return self.by_name.get(name)


async def check_against(settings: Settings, definitions: Sequence[Definition]) -> list[list[Mistake]]:
    """For each definition, one warning for each name that leads nowhere and each value that what is named does not take."""
    library = Folders({one.name: one for one in [*_stored(settings), *definitions]})
    outgoing = Outgoing(settings)
    try:
        if any(asks_tools(definition) for definition in definitions):
            await _ask(outgoing)
        return [await _warnings(outgoing, library, definition) for definition in definitions]
    finally:
        await outgoing.close()


def _stored(settings: Settings) -> list[Definition]:
    """What the next start would take up."""
    folders = (SHIPPED_WORKFLOWS, settings.workflows_dir)
    return [definition for folder in folders for definition in read_folder(folder)[0].values()]


async def _ask(outgoing: Outgoing) -> None:
    asking = asyncio.ensure_future(outgoing.bridge.tools())
    await asyncio.wait([asking], timeout=_ASKING_S)
    if not asking.done():
        asking.cancel()
        await asyncio.wait([asking])


async def _warnings(outgoing: Outgoing, library: Folders, definition: Definition) -> list[Mistake]:
    named = await missing_names(outgoing.router, outgoing.bridge, definition)
    unasked = await unasked_tools(outgoing.bridge, definition)
    return located(definition, [*call_mistakes(library, definition), *named, *unasked])
