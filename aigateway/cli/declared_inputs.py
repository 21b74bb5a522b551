"""The inputs that a workflow declares, as its stored text has them: what `-i` options are read by."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aigateway.client import Client

# Imports inside functions: the HTTP client and the language cost more than a command's --help may take.
# ruff: noqa: PLC0415

_TYPES = {bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}


def plain_definition(source: str) -> dict[str, Any]:
    """A definition's text as data."""
    from engine.yaml12 import read_yaml

    node, _ = read_yaml(source)
    return {} if node is None else node.plain()


def of_workflow(client: "Client", name: str) -> Mapping[str, Any] | None:
    """Those of the newest version of a stored workflow; None where it declares none."""
    from aigateway.client import path

    return plain_definition(client.get(path("workflows", name))["config_yaml"]).get("inputs")


def of_run(client: "Client", run: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Those of the version that a run is pinned to. A run of a file has none that could be asked for: the types of its own values."""
    from aigateway.client import path

    if run["version"] is None:
        return {name: {"type": _TYPES[type(value)]} for name, value in run["input"].items() if type(value) in _TYPES}
    versions = client.get_all(path("workflows", run["workflow"], "versions"))["data"]
    source = next((one["config_yaml"] for one in versions if one["version"] == run["version"]), "")
    return plain_definition(source).get("inputs")
