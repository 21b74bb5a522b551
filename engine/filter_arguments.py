"""What filters are given, checked: the value as a text, a list, an object or a whole number, and keys of a list's items."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.values import Missing, Trouble, is_list, is_object, type_name


def text_of(value: Any, name: str) -> str:
    """The value, which has to be text. `name` is the filter's. Raises: Trouble."""
    if isinstance(value, str):
        return value
    raise Trouble(f"{name} needs text, not {type_name(value)}")


def list_of(value: Any, name: str) -> Sequence[Any]:
    """The value, which has to be a list. Raises: Trouble."""
    if is_list(value):
        return value
    raise Trouble(f"{name} needs a list, not {type_name(value)}")


def object_of(value: Any, name: str) -> Mapping[str, Any]:
    """The value, which has to be an object. Raises: Trouble."""
    if is_object(value):
        return value
    raise Trouble(f"{name} needs an object, not {type_name(value)}")


def whole_of(value: Any, name: str) -> int:
    """The value, which has to be a whole number. Raises: Trouble."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Trouble(f"{name} needs a whole number, not {type_name(value)}")


def pick(items: Iterable[Any], attribute: str | None, name: str) -> list[Any]:
    """The items, or what each has at a dotted path of keys. Raises: Trouble; Missing where an item lacks a key."""
    if attribute is None:
        return list(items)
    keys = text_of(attribute, f"{name}'s attribute").split(".")
    return [_dig(item, keys, name) for item in items]


def _dig(item: Any, keys: list[str], name: str) -> Any:
    for key in keys:
        found = object_of(item, f"{name} by attribute")
        if key not in found:
            raise Missing(f"{name} finds no key '{key}' in an item")
        item = found[key]
    return item
