"""The `mcp_servers` key: a mapping of servers, or the `mcpServers` JSON files that other programs keep theirs in.

What a server's entry may hold is `mcp_bridge.servers`' to say; this module finds the entries and gives mistakes their place.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from aigateway.config_environment import expand
from aigateway.config_file import ConfigTree, KeyPath, path_text, read_json
from engine.errors import UserError
from mcp_bridge.servers import McpServerConfig, parse_servers

_KEY = "mcp_servers"
_SHARED = frozenset({"type", "transport", "command", "args", "env", "cwd", "url", "headers", "disabled"})
_SHARED_TIMEOUTS = frozenset({"connect_timeout", "call_timeout", "connectionTimeoutMs", "requestTimeoutMs"})


def read_mcp_servers(tree: ConfigTree, environ: Mapping[str, str], cwd: Path) -> None:
    """Replaces `mcp_servers` by checked configurations; paths of files are taken from `cwd`.

    Of servers with the same name the one in the later file counts.
    """
    value = tree.value.get(_KEY)
    if value is None:
        tree.value.pop(_KEY, None)
        return
    if not isinstance(value, dict):
        tree.value[_KEY] = {}
        _include_files(tree, value, environ, cwd)
    entries = cast("dict[str, Any]", tree.value[_KEY])
    tree.value[_KEY] = {name: server for name, entry in entries.items() if (server := _server(tree, name, entry))}


def _server(tree: ConfigTree, name: str, entry: Any) -> McpServerConfig | None:
    already = {mistake.path for mistake in tree.mistakes}
    try:
        return parse_servers({"mcpServers": {name: entry}}).get(name)
    except UserError as error:
        shown = path_text((_KEY, name))
        key = (error.param or shown).removeprefix(shown).removeprefix(".")
        path: KeyPath = (_KEY, name, *key.split(".")) if key else (_KEY, name)
        if path_text(path) not in already:
            # What follows "not" is the wrong value itself, and here it may hold a key.
            message = error.message.removeprefix(error.param or "").partition(", not ")[0]
            tree.mistake(path, message.strip().removesuffix("."))
        return None


def _include_files(tree: ConfigTree, value: Any, environ: Mapping[str, str], cwd: Path) -> None:
    names = cast("list[Any]", value) if isinstance(value, list) else [value]
    for index, name in enumerate(names):
        path: KeyPath = (_KEY, index) if isinstance(value, list) else (_KEY,)
        if isinstance(name, str):
            _include(tree, path, cwd / Path(name).expanduser(), environ)
        else:
            tree.mistake(
                path, "must be a mapping of servers, or the path of an mcpServers JSON file, or a list of such"
            )


def _include(tree: ConfigTree, path: KeyPath, file: Path, environ: Mapping[str, str]) -> None:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        tree.mistake(path, f"{file} cannot be read: {reason}")
        return
    included = read_json(text, source=str(file))
    if not included.mistakes:
        _keep_servers(included, ("mcp", "servers") if "mcp" in included.value else ("mcpServers",))
    if not included.mistakes:
        expand(included, environ)
        tree.value[_KEY] |= included.value[_KEY]
        tree.places |= included.places
    tree.mistakes += included.mistakes


def _keep_servers(included: ConfigTree, path: KeyPath) -> None:
    """Keeps of a file only the servers, and of them what is known here: the rest belongs to the programs that share it."""
    servers: Any = included.value
    for part in path:
        servers = cast("dict[str, Any]", servers).get(str(part)) if isinstance(servers, dict) else None
    if not isinstance(servers, dict):
        included.mistake((), f'holds no "{path_text(path)}" object')
        return
    named = {name: _shared_keys(server) for name, server in cast("dict[str, Any]", servers).items()}
    included.value = {_KEY: named}
    depth = len(path)
    places = {at[depth:]: place for at, place in included.places.items() if at[:depth] == path and at != path}
    included.places = {(_KEY, *at): place for at, place in places.items()}


def _shared_keys(server: Any) -> Any:
    if not isinstance(server, dict):
        return server
    known = _SHARED | _SHARED_TIMEOUTS
    return {key: value for key, value in cast("dict[str, Any]", server).items() if key in known}
