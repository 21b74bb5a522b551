"""The settings of one process: one frozen object made of file and environment, which the command line builds once and passes down.

Nothing else reads the environment or the file. Which keys there are says `aigateway.config_keys`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import (
    SecretStr,
    ValidationError,
)

from aigateway.config_environment import (
    API_KEY_VARIABLE,
    CONFIG_VARIABLE,
    PREFIX,
    STANDARD_PROVIDERS,
    URL_VARIABLE,
    add_standard_providers,
    apply_overrides,
    expand,
)
from aigateway.config_file import ConfigTree, read_yaml
from aigateway.config_keys import Section, Settings
from aigateway.config_mcp import read_mcp_servers
from aigateway.config_mistakes import add_validation_mistakes, raise_mistakes
from aigateway.config_models import check_models
from aigateway.config_values import SQLITE
from engine.crash_points import CrashPoint, read_crash_point
from engine.errors import UserError

DEFAULT_FILE = "aigateway.yaml"


def load_settings(*, config_path: str | None = None, environ: Mapping[str, str], cwd: Path) -> Settings:
    """The settings from file and environment; relative paths are taken from `cwd`.

    Raises: UserError(invalid_config), all mistakes in `details`, each worded `file:line: key: what is wrong`.
    """
    tree = _read_file(config_path or environ.get(CONFIG_VARIABLE) or None, cwd)
    if tree.mistakes:
        raise_mistakes(tree)
    used = expand(tree, environ)
    apply_overrides(tree, environ, Settings, read_by_file=used)
    read_mcp_servers(tree, environ, cwd)
    add_standard_providers(tree, environ)
    return _absolute(_checked(tree), cwd)


def process_settings(config_path: str | None = None) -> Settings:
    """The settings of this process, from its own environment and folder. Raises: UserError(invalid_config)."""
    return load_settings(config_path=config_path, environ=os.environ, cwd=Path.cwd())


def config_source(config_path: str | None = None) -> str | None:
    """The file that this process's settings come from, None where there is none. Read it by this name again: then its absence
    is a mistake, where at the start it only means that nothing is configured."""
    told = config_path or os.environ.get(CONFIG_VARIABLE) or None
    return told or (DEFAULT_FILE if Path(DEFAULT_FILE).exists() else None)


def process_environment() -> dict[str, str]:
    """This process's environment: what children inherit."""
    return dict(os.environ)


def tools_environment() -> dict[str, str]:
    """What programs of MCP servers inherit: this process's environment without what is secret in it for certain, the providers' keys and
    our own settings. A server that needs one is given it by its `env`.
    """
    withheld = {standard.variable for standard in STANDARD_PROVIDERS.values() if standard.type != "ollama"}
    return {name: value for name, value in os.environ.items() if name not in withheld and not name.startswith(PREFIX)}


def process_crash_point() -> CrashPoint | None:
    """Where a test wants this process to die; nothing that an operator sets."""
    return read_crash_point(os.environ.get("_AIGATEWAY_CRASH_AT"))


class ServerAddress(Section):
    """Where the command line finds a server; `given` where AIGATEWAY_URL names it rather than the settings."""

    url: str
    api_key: SecretStr | None
    given: bool


def server_address(config_path: str | None = None) -> ServerAddress:
    """The server that this process' commands talk to: AIGATEWAY_URL, else the settings' own host and port.

    Reads nothing but the `server` section: a client needs no provider's key. Raises: UserError(invalid_config).
    """
    environ = os.environ
    api_key = SecretStr(environ[API_KEY_VARIABLE]) if environ.get(API_KEY_VARIABLE) else None
    if url := environ.get(URL_VARIABLE):
        return ServerAddress(url=url.rstrip("/"), api_key=api_key, given=True)
    tree = _read_file(config_path or environ.get(CONFIG_VARIABLE) or None, Path.cwd())
    if tree.mistakes:
        raise_mistakes(tree)
    tree.value = {"server": tree.value.get("server", {})}
    expand(tree, environ)
    own = {name: value for name, value in environ.items() if name.startswith("AIGATEWAY_SERVER__")}
    apply_overrides(tree, own, Settings, read_by_file=frozenset())
    server = _checked(tree).server
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(server.host, server.host)  # what is bound is no address to call
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return ServerAddress(url=f"http://{host}:{server.port}", api_key=api_key, given=False)


def _checked(tree: ConfigTree) -> Settings:
    try:
        settings = Settings.model_validate(tree.value)
    except ValidationError as error:
        add_validation_mistakes(tree, error, Settings)
        raise_mistakes(tree)
    check_models(tree, settings.models, settings.providers)
    _check_budget_names(tree, settings)
    if tree.mistakes:
        raise_mistakes(tree)
    return settings


def _read_file(path: str | None, cwd: Path) -> ConfigTree:
    name = path or DEFAULT_FILE
    try:
        text = (cwd / Path(name).expanduser()).read_text(encoding="utf-8")
    except FileNotFoundError:
        if path is None:
            return ConfigTree(name)
        raise UserError("invalid_config", f"{name}: no such file") from None
    except OSError as error:
        raise UserError("invalid_config", f"{name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError("invalid_config", f"{name}: is not UTF-8 text (byte {error.start})") from None
    return read_yaml(text, source=name)


def _check_budget_names(tree: ConfigTree, settings: Settings) -> None:
    names: set[str] = set()
    for index, budget in enumerate(settings.budgets):
        if budget.name in names:
            tree.mistake(("budgets", index, "name"), f'there is another budget "{budget.name}"')
        names.add(budget.name)


def _absolute(settings: Settings, cwd: Path) -> Settings:
    update: dict[str, Any] = {"workflows_dir": cwd / settings.workflows_dir.expanduser()}
    if settings.database_url.startswith(SQLITE):
        file, question, query = settings.database_url.removeprefix(SQLITE).partition("?")
        update["database_url"] = f"{SQLITE}{cwd / Path(file).expanduser()}{question}{query}"
    return settings.model_copy(update=update)
