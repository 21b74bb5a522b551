"""docs/configuration.md: every key of the configuration stands in its example, which loads, and what it calls a default is one."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from aigateway.config_keys import Settings
from aigateway.settings import load_settings
from mcp_bridge.servers import McpServerConfig
from providers.provider import Timeouts

DOCUMENT = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(encoding="utf-8")
EXAMPLE = re.findall(r"<!-- tested: every key -->\n```yaml\n(.*?)```", DOCUMENT, re.DOTALL)[0]
DEFAULTS = (
    "server",
    "worker",
    "database_url",
    "redis_url",
    "unknown_prices",
    "on_client_disconnect",
    "retention",
    "log",
    "mcp",
)


def named(value: Any) -> set[str]:
    """Every key of the example, however deep."""
    if isinstance(value, dict):
        return {str(key) for key in value} | {name for inner in value.values() for name in named(inner)}
    return {name for inner in value for name in named(inner)} if isinstance(value, list) else set()


def keys_of(schema: Any) -> set[str]:
    """Every key that the JSON Schema of the settings knows."""
    if isinstance(schema, dict):
        own = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set[str]()
        return own | {name for inner in schema.values() for name in keys_of(inner)}
    return {name for inner in schema for name in keys_of(inner)} if isinstance(schema, list) else set()


def test_every_key_is_in_the_example() -> None:
    told = named(yaml.safe_load(EXAMPLE))
    ours = keys_of(Settings.model_json_schema()) - set(McpServerConfig.__dataclass_fields__)
    servers = {"command", "args", "env", "cwd", "url", "headers", "connect_timeout", "call_timeout", "disabled"}
    assert (ours | servers) - told == set()


def test_the_example_loads_and_its_defaults_are_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "aigateway.yaml").write_text(EXAMPLE)
    loaded = load_settings(environ={}, cwd=tmp_path)
    plain = load_settings(environ={}, cwd=tmp_path, config_path="/dev/null")
    for key in DEFAULTS:
        assert getattr(loaded, key) == getattr(plain, key), key
    assert loaded.webhooks == plain.webhooks
    assert loaded.providers["vllm"].timeouts.first_content is not None


@pytest.mark.parametrize("timer", ["connect", "first_content", "idle", "total"])
def test_the_timers_shown_are_the_providers_own(timer: str) -> None:
    shown = yaml.safe_load(EXAMPLE)["providers"]["vllm"]["timeouts"][timer]
    assert float(shown.removesuffix("s")) == getattr(Timeouts(), f"{timer}_s")
