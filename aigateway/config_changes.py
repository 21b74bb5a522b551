"""What differs between two configurations, by section and name. Tells names alone, never values: they may be secrets. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel

from aigateway.config_keys import Settings

NEEDS_RESTART = ("server", "worker", "database_url", "redis_url", "log")
"""Sections that a process reads once, when it starts. All others are taken up by a reload."""


@dataclass(frozen=True, slots=True)
class Changes:
    """`live`: by section, the names that were added, changed and removed; `needs_restart`: keys such as `server.port`."""

    live: Mapping[str, Mapping[str, Sequence[str]]]
    needs_restart: Sequence[str]


def changes_between(old: Settings, new: Settings) -> Changes:
    """What a reload from `old` to `new` changes, and what it cannot."""
    differing = [name for name in Settings.model_fields if getattr(old, name) != getattr(new, name)]
    live = {
        name: _names(name, getattr(old, name), getattr(new, name)) for name in differing if name not in NEEDS_RESTART
    }
    kept = [
        key
        for name in differing
        if name in NEEDS_RESTART
        for key in _keys(name, getattr(old, name), getattr(new, name))
    ]
    return Changes(live, kept)


def merged(old: Settings, new: Settings) -> Settings:
    """What is in force after a reload: the new settings, but for what needs a restart."""
    return new.model_copy(update={name: getattr(old, name) for name in NEEDS_RESTART})


def _names(section: str, old: Any, new: Any) -> dict[str, list[str]]:
    before, after = _entries(section, old), _entries(section, new)
    return {
        "added": [name for name in after if name not in before],
        "changed": [name for name in after if name in before and before[name] != after[name]],
        "removed": [name for name in before if name not in after],
    }


def _keys(section: str, old: Any, new: Any) -> list[str]:
    if not isinstance(old, BaseModel):
        return [section]
    return [f"{section}.{name}" for name in _names(section, old, new)["changed"]]


def _entries(section: str, value: Any) -> Mapping[str, Any]:
    """The section's parts by name; a section without parts is its own only one."""
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value)
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return {str(getattr(item, "name", index)): item for index, item in enumerate(items)}
    return {section: value}
