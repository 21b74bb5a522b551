"""The filters and tests of expressions: an explicit list, nothing of Jinja's own is reachable.

Every filter is `(bounds, value, …)`, returns JSON data, never changes what it is given, pays for what it does and
raises only `Trouble`, or the plain ValueError and TypeError that the evaluator turns into one.
"""

import functools
import inspect
import json
import math
import operator
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

from engine.values import Bounds, Missing, Trouble, is_list, is_number, is_object, to_json, to_text, type_name

_MISSING: Any = object()
_DATE_FORMAT = re.compile(r"(?:[^%]|%[YmdHMSfjaAbBpyzZIuVG%])*")


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    raise Trouble(f"{name} needs text, not {type_name(value)}")


def _list(value: Any, name: str) -> Sequence[Any]:
    if is_list(value):
        return value
    raise Trouble(f"{name} needs a list, not {type_name(value)}")


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if is_object(value):
        return value
    raise Trouble(f"{name} needs an object, not {type_name(value)}")


def _whole(value: Any, name: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Trouble(f"{name} needs a whole number, not {type_name(value)}")


def _pick(items: Iterable[Any], attribute: str | None, name: str) -> list[Any]:
    if attribute is None:
        return list(items)
    keys = _text(attribute, f"{name}'s attribute").split(".")
    return [_dig(item, keys, name) for item in items]


def _dig(item: Any, keys: list[str], name: str) -> Any:
    for key in keys:
        found = _object(item, f"{name} by attribute")
        if key not in found:
            raise Missing(f"{name} finds no key '{key}' in an item")
        item = found[key]
    return item


def _refuse_constant(word: str) -> NoReturn:
    raise Trouble(f"fromjson read {word}, which is not JSON")


def _fromjson(bounds: Bounds, value: Any) -> Any:
    bounds.spend(len(_text(value, "fromjson")) // 32)
    try:
        found = json.loads(_text(value, "fromjson"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Trouble(f"fromjson needs JSON text ({str(error)[:80]})") from None
    check = json.dumps(found, ensure_ascii=False)
    try:
        check.encode()
    except UnicodeEncodeError:
        raise Trouble("fromjson read half of a surrogate pair") from None
    return found


def _tojson(bounds: Bounds, value: Any, indent: int | None = None) -> str:
    if indent is not None and not 0 <= _whole(indent, "tojson's indent") <= 8:
        raise Trouble("tojson's indent must be between 0 and 8")
    return to_json(value, bounds, indent)


def _length(bounds: Bounds, value: Any) -> int:
    if isinstance(value, str) or is_list(value) or is_object(value):
        return len(value)
    raise Trouble(f"length needs text, a list or an object, not {type_name(value)}")


def _truncate(bounds: Bounds, value: Any, length: int = 255, killwords: bool = False, end: str = "...") -> str:
    text, room = _text(value, "truncate"), _whole(length, "truncate's length") - len(_text(end, "truncate's end"))
    if room < 0:
        raise Trouble("truncate's length is shorter than its end")
    if len(text) <= length:
        return text
    kept = text[:room]
    return (kept if killwords else kept.rsplit(" ", 1)[0]) + end


def _join(bounds: Bounds, value: Any, d: str = "", attribute: str | None = None) -> str:
    parts: list[str] = []
    size, between = 0, len(_text(d, "join's separator"))
    for item in _pick(_list(value, "join"), attribute, "join"):
        parts.append(to_text(item, bounds))
        size += len(parts[-1]) + between
        bounds.check_size(size - between)
    return d.join(parts)


def _slugify(bounds: Bounds, value: Any) -> str:
    bounds.spend(len(_text(value, "slugify")) // 16)
    plain = unicodedata.normalize("NFKD", _text(value, "slugify")).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def _upper(bounds: Bounds, value: Any) -> str:
    return _text(value, "upper").upper()


def _lower(bounds: Bounds, value: Any) -> str:
    return _text(value, "lower").lower()


def _trim(bounds: Bounds, value: Any, chars: str | None = None) -> str:
    return _text(value, "trim").strip(None if chars is None else _text(chars, "trim's characters"))


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


def _round(bounds: Bounds, value: Any, precision: int = 0, method: str = "common") -> float:
    if not is_number(value):
        raise Trouble(f"round needs a number, not {type_name(value)}")
    if not -15 <= _whole(precision, "round's precision") <= 15:
        raise Trouble("round's precision must be between -15 and 15")
    if method == "common":
        return float(round(value, precision))
    if method not in ("ceil", "floor"):
        raise Trouble("round's method must be common, ceil or floor")
    scaled = value * 10.0**precision
    return float((math.ceil if method == "ceil" else math.floor)(scaled) / 10.0**precision)


def _int(bounds: Bounds, value: Any, default: Any = _MISSING) -> Any:
    try:
        if is_number(value):
            return int(value)
        return int(_text(value, "int").strip()) if len(value) < 32 else int("")
    except (ValueError, OverflowError):
        return _or_default(default, "int needs a number or text that is a whole number")


def _float(bounds: Bounds, value: Any, default: Any = _MISSING) -> Any:
    number = math.nan
    try:
        number = float(value if is_number(value) else _text(value, "float"))
    except (ValueError, OverflowError):
        pass
    return number if math.isfinite(number) else _or_default(default, "float needs a number or text that is one")


def _or_default(default: Any, message: str) -> Any:
    if default is _MISSING:
        raise Trouble(message)
    return default


def _string(bounds: Bounds, value: Any) -> str:
    return to_text(value, bounds)


def _sum(bounds: Bounds, value: Any, attribute: str | None = None, start: float = 0) -> float:
    total = start
    for item in _pick(_list(value, "sum"), attribute, "sum"):
        if not is_number(item):
            raise Trouble(f"sum needs numbers, not {type_name(item)}")
        total += item
    return total


def _comparable(items: Sequence[Any], name: str) -> None:
    kinds = {type_name(item) for item in items}
    if kinds - {"number"} and kinds - {"text"}:
        raise Trouble(f"{name} needs numbers alone or texts alone, not {' and '.join(sorted(kinds))}")


def _extreme(choose: Callable[..., Any], value: Any, attribute: str | None, name: str) -> Any:
    items = _list(value, name)
    if not items:
        raise Missing(f"{name} finds nothing: the list is empty")
    keys = _pick(items, attribute, name)
    _comparable(keys, name)
    return items[choose(range(len(items)), key=keys.__getitem__)]


def _min(bounds: Bounds, value: Any, attribute: str | None = None) -> Any:
    return _extreme(min, value, attribute, "min")


def _max(bounds: Bounds, value: Any, attribute: str | None = None) -> Any:
    return _extreme(max, value, attribute, "max")


def _sort(bounds: Bounds, value: Any, reverse: bool = False, attribute: str | None = None) -> list[Any]:
    items = _list(value, "sort")
    keys = _pick(items, attribute, "sort")
    _comparable(keys, "sort")
    bounds.spend(len(items))
    return [items[index] for index in sorted(range(len(items)), key=keys.__getitem__, reverse=bool(reverse))]


def _unique(bounds: Bounds, value: Any, attribute: str | None = None) -> list[Any]:
    items = _list(value, "unique")
    bounds.spend(len(items))
    kept: dict[str, Any] = {}
    for key, item in zip(_pick(items, attribute, "unique"), items, strict=True):
        kept.setdefault(to_json(key, bounds), item)
    return list(kept.values())


def _reverse(bounds: Bounds, value: Any) -> Any:
    return value[::-1] if isinstance(value, str) else list(reversed(_list(value, "reverse")))


def _replace(bounds: Bounds, value: Any, old: str, new: str, count: int = -1) -> str:
    text, before, after = _text(value, "replace"), _text(old, "replace"), _text(new, "replace")
    found = text.count(before) if count < 0 else min(text.count(before), _whole(count, "replace's count"))
    bounds.check_size(len(text) + found * (len(after) - len(before)))
    return text.replace(before, after, count)


def _split(bounds: Bounds, value: Any, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    parts = _text(value, "split").split(None if sep is None else _text(sep, "split's separator"), maxsplit)
    bounds.spend(len(parts))
    return parts


def _date(bounds: Bounds, value: Any, format: str = "%Y-%m-%d") -> str:  # the keyword is part of the language
    if not _DATE_FORMAT.fullmatch(_text(format, "date's format")):
        raise Trouble("date's format has a directive that is not known")
    try:
        if is_number(value):
            return datetime.fromtimestamp(value, UTC).strftime(format)
        return datetime.fromisoformat(_text(value, "date")).strftime(format)
    except (ValueError, OverflowError, OSError):
        raise Trouble("date needs ISO 8601 text or seconds since 1970") from None


def _abs(bounds: Bounds, value: Any) -> float:
    if not is_number(value):
        raise Trouble(f"abs needs a number, not {type_name(value)}")
    return abs(value)


def _map(bounds: Bounds, value: Any, attribute: str) -> list[Any]:
    return _pick(_list(value, "map"), attribute, "map")


def _keys(bounds: Bounds, value: Any) -> list[str]:
    return list(_object(value, "keys"))


def _values(bounds: Bounds, value: Any) -> list[Any]:
    return list(_object(value, "values").values())


def _items(bounds: Bounds, value: Any) -> list[list[Any]]:
    return [[key, item] for key, item in _object(value, "items").items()]


def _default(bounds: Bounds, value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    """What is given where the value is there; the evaluator answers for a missing one."""
    return default_value if boolean and not value else value


FILTERS: dict[str, Callable[..., Any]] = {
    "abs": _abs, "date": _date, "default": _default, "first": _first, "float": _float, "fromjson": _fromjson,
    "int": _int, "items": _items, "join": _join, "json": _tojson, "keys": _keys, "last": _last, "length": _length,
    "lower": _lower, "map": _map, "max": _max, "min": _min, "replace": _replace, "reverse": _reverse, "round": _round,
    "slugify": _slugify, "sort": _sort, "split": _split, "string": _string, "sum": _sum, "tojson": _tojson,
    "trim": _trim, "truncate": _truncate, "unique": _unique, "upper": _upper, "values": _values,
}  # fmt: skip


def _divisible(value: Any, by: int) -> bool:
    if not is_number(value) or not is_number(by):
        raise Trouble(f"this test needs a number, not {type_name(value)}")
    return value % by == 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_float(value: Any) -> bool:
    return isinstance(value, float)


def _is_even(value: Any) -> bool:
    return _divisible(value, 2)


def _is_odd(value: Any) -> bool:
    return not _divisible(value, 2)


def _is_there(value: Any) -> bool:
    """For a value that is there; the evaluator answers `defined` and `undefined` for a missing one."""
    return True


def _is_missing(value: Any) -> bool:
    return not _is_there(value)


TESTS: dict[str, Callable[..., bool]] = {
    "boolean": _is_boolean, "defined": _is_there, "divisibleby": _divisible, "even": _is_even,
    "false": functools.partial(operator.is_, False), "float": _is_float, "integer": _is_integer, "mapping": is_object,
    "none": functools.partial(operator.is_, None), "number": is_number, "odd": _is_odd, "sequence": is_list,
    "string": _is_text, "true": functools.partial(operator.is_, True), "undefined": _is_missing,
}  # fmt: skip

FILTER_SIGNATURES = {name: inspect.signature(function) for name, function in FILTERS.items()}
TEST_SIGNATURES = {name: inspect.signature(function) for name, function in TESTS.items()}
