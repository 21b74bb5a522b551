"""Filters that make something of a list. The rules of `engine.filters` hold."""

from collections.abc import Callable, Sequence
from typing import Any

from engine.filter_arguments import list_of, pick, text_of, whole_of
from engine.values import Bounds, Missing, Trouble, is_list, is_number, is_object, to_json, to_text, type_name

MAX_BATCH = 1_000


def _join(bounds: Bounds, value: Any, d: str = "", attribute: str | None = None) -> str:
    parts: list[str] = []
    size, between = 0, len(text_of(d, "join's separator"))
    for item in pick(list_of(value, "join"), attribute, "join"):
        parts.append(to_text(item, bounds))
        size += len(parts[-1]) + between
        bounds.check_size(size - between)
    return d.join(parts)


def _end(value: Any, index: int, name: str) -> Any:
    if not isinstance(value, str) and not is_list(value):
        raise Trouble(f"{name} needs a list or text, not {type_name(value)}")
    if not value:
        raise Missing(f"{name} finds nothing: the {type_name(value)} is empty")
    return value[index]


def _first(bounds: Bounds, value: Any) -> Any:
    return _end(value, 0, "first")


def _last(bounds: Bounds, value: Any) -> Any:
    return _end(value, -1, "last")


def _sum(bounds: Bounds, value: Any, attribute: str | None = None, start: float = 0) -> float:
    total = start
    for item in pick(list_of(value, "sum"), attribute, "sum"):
        if not is_number(item):
            raise Trouble(f"sum needs numbers, not {type_name(item)}")
        total += item
    return total


def _comparable(bounds: Bounds, items: Sequence[Any], name: str) -> None:
    for item in items:
        bounds.handle(item)  # texts may be long and alike nearly to their ends
    kinds = {type_name(item) for item in items}
    if kinds - {"number"} and kinds - {"text"}:
        raise Trouble(f"{name} needs numbers alone or texts alone, not {' and '.join(sorted(kinds))}")


def _extreme(bounds: Bounds, choose: Callable[..., Any], value: Any, attribute: str | None, name: str) -> Any:
    items = list_of(value, name)
    if not items:
        raise Missing(f"{name} finds nothing: the list is empty")
    keys = pick(items, attribute, name)
    _comparable(bounds, keys, name)
    return items[choose(range(len(items)), key=keys.__getitem__)]


def _min(bounds: Bounds, value: Any, attribute: str | None = None) -> Any:
    return _extreme(bounds, min, value, attribute, "min")


def _max(bounds: Bounds, value: Any, attribute: str | None = None) -> Any:
    return _extreme(bounds, max, value, attribute, "max")


def _sort(bounds: Bounds, value: Any, reverse: bool = False, attribute: str | None = None) -> list[Any]:
    items = list_of(value, "sort")
    keys = pick(items, attribute, "sort")
    _comparable(bounds, keys, "sort")
    bounds.spend(len(items))
    return [items[index] for index in sorted(range(len(items)), key=keys.__getitem__, reverse=bool(reverse))]


def _unique(bounds: Bounds, value: Any, attribute: str | None = None) -> list[Any]:
    items = list_of(value, "unique")
    bounds.spend(len(items))
    kept: dict[str, Any] = {}
    for key, item in zip(pick(items, attribute, "unique"), items, strict=True):
        kept.setdefault(to_json(key, bounds), item)
    return list(kept.values())


def _reverse(bounds: Bounds, value: Any) -> Any:
    return value[::-1] if isinstance(value, str) else list(reversed(list_of(value, "reverse")))


def _to_list(bounds: Bounds, value: Any) -> list[Any]:
    if isinstance(value, str):
        bounds.spend(len(value) // 8)
        return list(value)
    return list(value) if is_object(value) else list(list_of(value, "list"))


def _batch(bounds: Bounds, value: Any, linecount: int, fill_with: Any = None) -> list[list[Any]]:
    items, size = list_of(value, "batch"), whole_of(linecount, "batch's size")
    if not 1 <= size <= MAX_BATCH:
        raise Trouble(f"batch's size must be between 1 and {MAX_BATCH}")
    made = [list(items[start : start + size]) for start in range(0, len(items), size)]
    if made and fill_with is not None:
        made[-1] += [fill_with] * (size - len(made[-1]))
    return made


LIST_FILTERS: dict[str, Callable[..., Any]] = {
    "batch": _batch, "first": _first, "join": _join, "last": _last, "list": _to_list, "max": _max, "min": _min,
    "reverse": _reverse, "sort": _sort, "sum": _sum, "unique": _unique,
}  # fmt: skip
