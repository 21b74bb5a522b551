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
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

from engine.filter_arguments import list_of, object_of, pick, text_of, whole_of
from engine.list_filters import LIST_FILTERS
from engine.text_filters import TEXT_FILTERS
from engine.values import (
    Bounds,
    Missing,
    Trouble,
    equal,
    is_list,
    is_number,
    is_object,
    measure,
    to_json,
    to_text,
    type_name,
)

_MISSING: Any = object()
_DATE_FORMAT = re.compile(r"(?:[^%]|%[YmdHMSfjaAbBpyzZIuVG%])*")


def _refuse_constant(word: str) -> NoReturn:
    raise Trouble(f"fromjson read {word}, which is not JSON")


def _fromjson(bounds: Bounds, value: Any) -> Any:
    bounds.spend(len(text_of(value, "fromjson")) // 32)
    try:
        found = json.loads(text_of(value, "fromjson"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Trouble(f"fromjson needs JSON text ({str(error)[:80]})") from None
    check = json.dumps(found, ensure_ascii=False)
    try:
        check.encode()
    except UnicodeEncodeError:
        raise Trouble("fromjson read half of a surrogate pair") from None
    return found


def _tojson(bounds: Bounds, value: Any, indent: int | None = None) -> str:
    if indent is not None and not 0 <= whole_of(indent, "tojson's indent") <= 8:
        raise Trouble("tojson's indent must be between 0 and 8")
    return to_json(value, bounds, indent)


def _length(bounds: Bounds, value: Any) -> int:
    if isinstance(value, str) or is_list(value) or is_object(value):
        return len(value)
    raise Trouble(f"length needs text, a list or an object, not {type_name(value)}")


def _round(bounds: Bounds, value: Any, precision: int = 0, method: str = "common") -> float:
    if not is_number(value):
        raise Trouble(f"round needs a number, not {type_name(value)}")
    if not -15 <= whole_of(precision, "round's precision") <= 15:
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
        return int(text_of(value, "int").strip()) if len(value) < 32 else int("")
    except (ValueError, OverflowError):
        return _or_default(default, "int needs a number or text that is a whole number")


def _float(bounds: Bounds, value: Any, default: Any = _MISSING) -> Any:
    number = math.nan
    try:
        number = float(value if is_number(value) else text_of(value, "float"))
    except (ValueError, OverflowError):
        pass
    return number if math.isfinite(number) else _or_default(default, "float needs a number or text that is one")


def _or_default(default: Any, message: str) -> Any:
    if default is _MISSING:
        raise Trouble(message)
    return default


def _string(bounds: Bounds, value: Any) -> str:
    return to_text(value, bounds)


def _date(bounds: Bounds, value: Any, format: str = "%Y-%m-%d") -> str:  # the keyword is part of the language
    if not _DATE_FORMAT.fullmatch(text_of(format, "date's format")):
        raise Trouble("date's format has a directive that is not known")
    try:
        if is_number(value):
            return datetime.fromtimestamp(value, UTC).strftime(format)
        return datetime.fromisoformat(text_of(value, "date")).strftime(format)
    except (ValueError, OverflowError, OSError):
        raise Trouble("date needs ISO 8601 text or seconds since 1970") from None


def _abs(bounds: Bounds, value: Any) -> float:
    if not is_number(value):
        raise Trouble(f"abs needs a number, not {type_name(value)}")
    return abs(value)


def _keys(bounds: Bounds, value: Any) -> list[str]:
    return list(object_of(value, "keys"))


def _values(bounds: Bounds, value: Any) -> list[Any]:
    return list(object_of(value, "values").values())


def _items(bounds: Bounds, value: Any) -> list[list[Any]]:
    return [[key, item] for key, item in object_of(value, "items").items()]


def _default(bounds: Bounds, value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    """What is given where the value is there; the evaluator answers for a missing one."""
    return default_value if boolean and not value else value


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


def _ordered(compare: Callable[[Any, Any], bool], value: Any, other: Any) -> bool:
    if (is_number(value) and is_number(other)) or (isinstance(value, str) and isinstance(other, str)):
        return compare(value, other)
    raise Trouble(f"this test cannot compare {type_name(value)} and {type_name(other)}")


def _greater(value: Any, than: Any) -> bool:
    return _ordered(operator.gt, value, than)


def _at_least(value: Any, than: Any) -> bool:
    return _ordered(operator.ge, value, than)


def _less(value: Any, than: Any) -> bool:
    return _ordered(operator.lt, value, than)


def _at_most(value: Any, than: Any) -> bool:
    return _ordered(operator.le, value, than)


def _differs(value: Any, other: Any) -> bool:
    return not equal(value, other)


def _is_in(value: Any, container: Any) -> bool:
    if isinstance(container, str):
        return isinstance(value, str) and value in container
    if is_object(container):
        return isinstance(value, str) and value in container
    if is_list(container):
        return any(equal(value, item) for item in container)
    raise Trouble(f"this test needs a list, an object or text, not {type_name(container)}")


TESTS: dict[str, Callable[..., bool]] = {
    "eq": equal, "equalto": equal, "ne": _differs, "gt": _greater, "greaterthan": _greater, "ge": _at_least,
    "lt": _less, "lessthan": _less, "le": _at_most, "in": _is_in,
    "boolean": _is_boolean, "defined": _is_there, "divisibleby": _divisible, "even": _is_even,
    "false": functools.partial(operator.is_, False), "float": _is_float, "integer": _is_integer, "mapping": is_object,
    "none": functools.partial(operator.is_, None), "number": is_number, "odd": _is_odd, "sequence": is_list,
    "string": _is_text, "true": functools.partial(operator.is_, True), "undefined": _is_missing,
}  # fmt: skip


def _map(bounds: Bounds, value: Any, filter: str | None = None, *args: Any, **named: Any) -> list[Any]:
    """Each item's `attribute`, or what a filter makes of each item, as Jinja's own does."""
    items = list_of(value, "map")
    bounds.spend(len(items))
    if filter is None:
        return _attributes(items, **named)
    if text_of(filter, "map's filter") not in FILTERS or filter in _OF_ITEMS:
        raise Trouble(f"map cannot use '{filter[:60]}'; write map(attribute='{filter[:60]}') for a key of each item")
    made: list[Any] = []
    size = 0
    for item in items:
        bounds.handle(item)
        made.append(FILTERS[filter](bounds, item, *args, **named))
        bounds.handle(made[-1])
        size += len(made[-1]) if isinstance(made[-1], str) else 1
        bounds.check_size(size)
    return made


def _attributes(items: Sequence[Any], attribute: str | None = None, default: Any = _MISSING) -> list[Any]:
    if attribute is None:
        raise Trouble("map needs a filter, or attribute='key'")
    if default is _MISSING:
        return pick(items, attribute, "map")
    return [_found(item, attribute, default) for item in items]


def _found(item: Any, attribute: str, default: Any) -> Any:
    try:
        return pick([item], attribute, "map")[0]
    except Missing:
        return default


def _chosen(bounds: Bounds, tested: Sequence[Any], test: str | None, args: tuple[Any, ...]) -> list[bool]:
    bounds.spend(len(tested))
    if test is None:
        return [bool(item) for item in tested]
    if text_of(test, "a test's name") not in TESTS:
        raise Trouble(f"there is no test '{test[:60]}'")
    for value in (*tested, *args):
        measure(value, bounds)  # comparing goes through all of it
    return [TESTS[test](item, *args) for item in tested]


def _select(bounds: Bounds, value: Any, test: str | None = None, *args: Any) -> list[Any]:
    items = list_of(value, "select")
    return [item for item, fits in zip(items, _chosen(bounds, items, test, args), strict=True) if fits]


def _reject(bounds: Bounds, value: Any, test: str | None = None, *args: Any) -> list[Any]:
    items = list_of(value, "reject")
    return [item for item, fits in zip(items, _chosen(bounds, items, test, args), strict=True) if not fits]


def _selectattr(bounds: Bounds, value: Any, attribute: str, test: str | None = None, *args: Any) -> list[Any]:
    items = list_of(value, "selectattr")
    tested = [_found(item, text_of(attribute, "selectattr's attribute"), None) for item in items]
    return [item for item, fits in zip(items, _chosen(bounds, tested, test, args), strict=True) if fits]


def _rejectattr(bounds: Bounds, value: Any, attribute: str, test: str | None = None, *args: Any) -> list[Any]:
    items = list_of(value, "rejectattr")
    tested = [_found(item, text_of(attribute, "rejectattr's attribute"), None) for item in items]
    return [item for item, fits in zip(items, _chosen(bounds, tested, test, args), strict=True) if not fits]


_OF_ITEMS = frozenset(
    {"map", "select", "reject", "selectattr", "rejectattr"}
)  # none inside another: work stays bounded
FILTERS: dict[str, Callable[..., Any]] = {
    **TEXT_FILTERS, **LIST_FILTERS,
    "abs": _abs, "count": _length, "date": _date, "default": _default, "float": _float, "fromjson": _fromjson, "int": _int,
    "items": _items, "json": _tojson, "keys": _keys, "length": _length, "map": _map, "reject": _reject,
    "rejectattr": _rejectattr, "round": _round, "select": _select, "selectattr": _selectattr, "string": _string,
    "tojson": _tojson, "values": _values,
}  # fmt: skip

FILTER_SIGNATURES = {name: inspect.signature(function) for name, function in FILTERS.items()}
TEST_SIGNATURES = {name: inspect.signature(function) for name, function in TESTS.items()}
