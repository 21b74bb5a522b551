"""The environment's three ways into the configuration: `${NAME}` inside values, `AIGATEWAY_<KEY>` variables over the file,
and the standard variables of well-known providers beneath it. Works on plain trees; `aigateway.settings` is its only caller.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from aigateway.config_file import ConfigTree, KeyPath, Place, read_scalar
from aigateway.config_mistakes import schema_at, section_paths
from engine.nearest import nearest

PREFIX = "AIGATEWAY_"
CONFIG_VARIABLE = "AIGATEWAY_CONFIG"
URL_VARIABLE = "AIGATEWAY_URL"
API_KEY_VARIABLE = "AIGATEWAY_API_KEY"
"""These two say how the command line reaches a server; they are no settings of a server."""

_NO_SETTINGS = (CONFIG_VARIABLE, URL_VARIABLE, API_KEY_VARIABLE)
_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-.*)?", re.DOTALL)
# What Kubernetes puts into every pod for a service that happens to be called aigateway.
_KUBERNETES = re.compile(
    r"AIGATEWAY_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


@dataclass(frozen=True, slots=True)
class StandardProvider:
    """A provider that its customary variable configures without a file."""

    variable: str
    type: str
    base_url: str | None = None


STANDARD_PROVIDERS = {
    "openai": StandardProvider("OPENAI_API_KEY", "openai"),
    "anthropic": StandardProvider("ANTHROPIC_API_KEY", "anthropic"),
    "gemini": StandardProvider("GEMINI_API_KEY", "openai", "https://generativelanguage.googleapis.com/v1beta/openai/"),
    "openrouter": StandardProvider("OPENROUTER_API_KEY", "openai", "https://openrouter.ai/api/v1"),
    "ollama": StandardProvider("OLLAMA_HOST", "ollama"),
}


def expand(tree: ConfigTree, environ: Mapping[str, str]) -> frozenset[str]:
    """Replaces `${NAME}`, `${NAME:-default}` and `$${` in every text value; returns the names that were read.

    An unset variable without a default is a mistake. As in a shell, the default also stands in for an empty one.
    """
    used: set[str] = set()

    def one(match: re.Match[str], path: KeyPath) -> str:
        if match.group() == "$${":
            return "${"
        inside = _INSIDE.fullmatch(match[1])
        if inside is None:
            tree.mistake(
                path, "${...} holds the name of an environment variable; write $${ for the characters themselves"
            )
            return ""
        name, default = inside["name"], inside["default"]
        used.add(name)
        if default is not None:
            return environ.get(name) or default.removeprefix(":-")
        if name not in environ:
            tree.mistake(path, f"environment variable {name} is not set (${{{name}:-}} would allow that)")
        return environ.get(name, "")

    def walk(value: Any, path: KeyPath) -> Any:
        if isinstance(value, str):
            return _REFERENCE.sub(lambda match: one(match, path), value)
        if isinstance(value, dict):
            return {key: walk(item, (*path, key)) for key, item in cast("dict[str, Any]", value).items()}
        if isinstance(value, list):
            return [walk(item, (*path, index)) for index, item in enumerate(cast("list[Any]", value))]
        return value

    tree.value = walk(tree.value, ())
    return frozenset(used)


def apply_overrides(
    tree: ConfigTree, environ: Mapping[str, str], schema: type[BaseModel], *, read_by_file: frozenset[str]
) -> None:
    """Lets `AIGATEWAY_SERVER__PORT=9000` set `server.port`. An empty variable counts as not given."""
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in _NO_SETTINGS or name in read_by_file:
            continue
        path = _existing_path(tree.value, name.removeprefix(PREFIX).lower().split("__"))
        target = schema_at(schema, path)
        if target is None:
            if not ("KUBERNETES_SERVICE_HOST" in environ and _KUBERNETES.fullmatch(name)):
                _unknown_variable(tree, name, path, schema)
        elif environ[name]:
            _set(tree, path, environ[name] if target in (str, SecretStr, Path) else None, name, environ[name])


def _existing_path(value: Any, parts: list[str]) -> KeyPath:
    """The path that a variable's parts mean: `BRAVE_SEARCH` finds the key `brave-search` if the file has it."""
    path: list[str] = []
    for part in parts:
        keys = list(cast("dict[str, Any]", value)) if isinstance(value, dict) else []
        key = next((key for key in keys if key.lower().replace("-", "_") == part), part)
        value = cast("dict[str, Any]", value).get(key) if keys else None
        path.append(key)
    return tuple(path)


def _set(tree: ConfigTree, path: KeyPath, text: str | None, name: str, raw: str) -> None:
    place = Place(name, names_key=True)
    try:
        value = read_scalar(raw) if text is None else text
    except ValueError:
        tree.mistake(path, "is not valid YAML", place=place)
        return
    holder = tree.value
    for part in path[:-1]:
        if not isinstance(holder.get(part), dict):
            holder[part] = {}
        holder = holder[part]
    holder[path[-1]] = value
    tree.places = {known: at for known, at in tree.places.items() if known[: len(path)] != path}
    tree.places[path] = place


def _unknown_variable(tree: ConfigTree, name: str, path: KeyPath, schema: type[BaseModel]) -> None:
    """Suggests the variable of the nearest key below the part of the path that is right."""
    depth = next(depth for depth in range(len(path)) if schema_at(schema, path[: depth + 1]) is None)
    start = [str(part) for part in path[:depth]]
    known = ["__".join([*start, *rest]) for rest in section_paths(schema_at(schema, path[:depth]))]
    near = nearest(name.removeprefix(PREFIX), known)
    found = PREFIX + near.upper().replace("-", "_") if near else None
    hint = f'did you mean "{found}"?' if found else "variables that start with AIGATEWAY_ set keys of aigateway.yaml"
    tree.mistake(path, f"no such setting, {hint}", suggestion=found, place=Place(name, names_key=True))


def add_standard_providers(tree: ConfigTree, environ: Mapping[str, str]) -> None:
    """Adds the providers that need no file, and completes those that the file mentions by their standard names.

    A mentioned provider keeps whatever is written. It gets the customary key only where it also keeps the customary address:
    a key must not go to another host because of its name alone.
    """
    providers = tree.value.setdefault("providers", {})
    if not isinstance(providers, dict):
        return  # validation reports it
    known = cast("dict[str, Any]", providers)
    for name, standard in STANDARD_PROVIDERS.items():
        defaults = _standard_defaults(standard, environ.get(standard.variable, ""))
        if name not in known:
            if standard.type == "ollama" or "api_key" in defaults:
                known[name] = defaults
        elif isinstance(known[name], dict):
            known[name] = _completed(cast("dict[str, Any]", known[name]), defaults)
    simulated = known.setdefault("simulated", {"type": "simulated"})
    if isinstance(simulated, dict):
        models = cast("dict[str, Any]", simulated).setdefault("models", {})
        if isinstance(models, dict):
            cast("dict[str, Any]", models).setdefault("echo", {})


def _standard_defaults(standard: StandardProvider, value: str) -> dict[str, Any]:
    defaults: dict[str, Any] = {"type": standard.type}
    if standard.base_url:
        defaults["base_url"] = standard.base_url
    if standard.type == "ollama":
        defaults["base_url"] = ollama_url(value)
    elif value:
        defaults["api_key"] = value
    return defaults


def _completed(written: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    if written.get("type", defaults["type"]) != defaults["type"]:
        return written
    if "base_url" in written:
        return {"type": defaults["type"], **written}
    return {**defaults, **written}


def ollama_url(host: str) -> str:
    """OLLAMA_HOST as Ollama reads it: scheme and port may be missing, and what a server binds is no address to call."""
    text = host.strip().strip("'\"")
    scheme, _, rest = text.rpartition("://")
    parts = urlsplit(f"//{rest}")
    try:
        port = parts.port
    except ValueError:
        port = None
    name = parts.hostname or "127.0.0.1"
    if name in ("0.0.0.0", "::"):
        name = "127.0.0.1"
    name = f"[{name}]" if ":" in name else name
    default_port = {"http": 80, "https": 443}.get(scheme, 11434)
    return f"{scheme or 'http'}://{name}:{port or default_port}{parts.path.rstrip('/')}"
