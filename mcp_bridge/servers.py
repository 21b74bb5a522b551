"""Which MCP servers there are: their configuration, read from the common `mcpServers` shapes and checked by name.

Owns no connection and starts nothing. `${ENV}` in values is expanded before this is called.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Never, cast

from engine.errors import UserError

_KEYS = ("command", "args", "env", "cwd", "url", "headers", "type", "connect_timeout", "call_timeout", "disabled")
_OTHER_CLIENTS_KEYS = frozenset({"transport", "connectionTimeoutMs", "requestTimeoutMs"})
_IGNORED_KEYS = frozenset({"name", "description", "autoApprove", "alwaysAllow"})
_TRANSPORTS = {
    "stdio": "stdio",
    "http": "http",
    "streamable-http": "http",
    "streamable_http": "http",
    "streamableHttp": "http",
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_MAX_TIMEOUT_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class McpServerConfig:
    """One server: a program to start (`command`) or an address to connect to (`url`), exactly one of them."""

    name: str
    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    cwd: str | None = None
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    connect_timeout_s: float = 15.0
    call_timeout_s: float = 60.0

    @property
    def transport(self) -> str:
        """`stdio` or `http`."""
        return "stdio" if self.command is not None else "http"


def parse_servers(data: Mapping[str, Any]) -> dict[str, McpServerConfig]:
    """The servers by name, in the order given; entries with `disabled: true` are left out.

    Takes `{"mcpServers": {…}}`, `{"mcp": {"servers": {…}}}` and the bare map.

    Raises:
        UserError: `invalid_config`; `param` is the path of the wrong key, such as `mcp_servers.docs.url`.
    """
    servers: dict[str, McpServerConfig] = {}
    for name, raw in _server_map(data).items():
        if not isinstance(raw, Mapping):
            _refuse(name, None, "must be an object with `command` or `url`")
        entry = cast("Mapping[str, Any]", raw)
        config = _Entry(name, entry).read()
        if not entry.get("disabled"):
            servers[name] = config
    return servers


def _server_map(data: Mapping[str, Any]) -> Mapping[str, Any]:
    inner: Any = data
    if "mcpServers" in data:
        inner = data["mcpServers"]
    elif isinstance(data.get("mcp"), Mapping) and "servers" in data["mcp"]:
        inner = data["mcp"]["servers"]
    if inner is None:
        return {}
    if not isinstance(inner, Mapping):
        raise UserError("invalid_config", "mcp_servers must be an object of servers by name.", param="mcp_servers")
    return cast("Mapping[str, Any]", inner)


def _refuse(name: str, key: str | None, problem: str) -> Never:
    path = f"mcp_servers.{name}" + (f".{key}" if key else "")
    raise UserError("invalid_config", f"{path} {problem}.", param=path)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One raw entry and the checks that turn it into a configuration."""

    name: str
    raw: Mapping[str, Any]

    def read(self) -> McpServerConfig:
        self._check_name()
        self._check_keys()
        self._check_type()
        command, url = self._text("command"), self._text("url")
        if (command is None) == (url is None):
            _refuse(self.name, None, "needs exactly one of `command` (a program) and `url` (an address)")
        if url is not None and not re.match(r"https?://[^/\s]+", url):
            _refuse(self.name, "url", f"must start with http:// or https://, not {url!r}")
        self._check_belongs(url is not None)
        return McpServerConfig(
            name=self.name,
            command=command,
            args=self._args(),
            env=self._texts("env"),
            cwd=self._text("cwd"),
            url=url,
            headers=self._texts("headers"),
            connect_timeout_s=self._timeout("connect_timeout", "connectionTimeoutMs", 15.0),
            call_timeout_s=self._timeout("call_timeout", "requestTimeoutMs", 60.0),
        )

    def _check_name(self) -> None:
        if not self.name.strip() or "/" in self.name:
            _refuse(self.name, None, "is no usable name: it must not be empty or hold a `/`, which divides server/tool")

    def _check_keys(self) -> None:
        for key in self.raw:
            if key in _KEYS or key in _OTHER_CLIENTS_KEYS or key in _IGNORED_KEYS:
                continue
            near = difflib.get_close_matches(str(key), _KEYS, n=1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(_KEYS)}"
            _refuse(self.name, str(key), f"is not a known key ({hint})")

    def _check_type(self) -> None:
        key = "type" if "type" in self.raw else "transport"
        kind = self.raw.get(key)
        if kind is None:
            return
        if kind == "sse":
            _refuse(self.name, key, "is `sse`, which MCP replaced in 2025: give the server's Streamable HTTP address")
        wanted = _TRANSPORTS.get(kind) if isinstance(kind, str) else None
        if wanted is None:
            _refuse(self.name, key, f"must be `stdio` or `http`, not {kind!r}")
        needed = "command" if wanted == "stdio" else "url"
        if self.raw.get(needed) is None:
            _refuse(self.name, key, f"is `{kind}`, which needs `{needed}`")

    def _check_belongs(self, is_http: bool) -> None:
        for key in ("args", "env", "cwd") if is_http else ("headers",):
            if self.raw.get(key):
                kind = "an address (`url`)" if is_http else "a program (`command`)"
                _refuse(self.name, key, f"has no meaning for {kind}")

    def _text(self, key: str) -> str | None:
        value = self.raw.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            _refuse(self.name, key, "must be text that is not empty")
        if "\0" in value:
            _refuse(self.name, key, "must not hold a zero byte")
        return value

    def _args(self) -> tuple[str, ...]:
        value = self.raw.get("args")
        if value is None:
            return ()
        if not isinstance(value, list | tuple):
            _refuse(self.name, "args", "must be a list of texts")
        items = cast("list[Any]", value)
        return tuple(self._scalar(f"args[{index}]", item) for index, item in enumerate(items))

    def _texts(self, key: str) -> dict[str, str]:
        value = self.raw.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            _refuse(self.name, key, "must be an object of texts by name")
        return {str(k): self._scalar(f"{key}.{k}", v) for k, v in cast("Mapping[Any, Any]", value).items()}

    def _scalar(self, key: str, value: Any) -> str:
        """Numbers and booleans of a YAML file as the text that a program expects."""
        if isinstance(value, bool):
            return "true" if value else "false"
        if not isinstance(value, str | int | float):
            _refuse(self.name, key, "must be text")
        if "\0" in str(value):
            _refuse(self.name, key, "must not hold a zero byte")
        return str(value)

    def _timeout(self, key: str, milliseconds_key: str, default_s: float) -> float:
        if self.raw.get(key) is None and self.raw.get(milliseconds_key) is not None:
            value: Any = self.raw[milliseconds_key]
            key, factor = milliseconds_key, 0.001
        else:
            value, factor = self.raw.get(key, default_s), 1.0
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is not None:
            value, factor = float(match[1]), _UNIT_S[match[2]]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value * factor <= _MAX_TIMEOUT_S:
            _refuse(self.name, key, "must be a duration such as 15s or a number of seconds, above 0 and at most 24h")
        return value * factor
