"""What a key may hold as plain data, said in the same words of a literal in a definition and of what an expression has given.

`engine.shapes` asks before anything runs, executors once a step's expressions are evaluated.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from engine.durations import parse_duration, parse_instant_us
from engine.errors import UserError
from engine.key_kinds import Key, Kind
from engine.values import is_list, is_number, is_object, type_name

_URL = re.compile(r"https?://[^/\s?#]+", re.IGNORECASE)
_PICTURE = re.compile(r"data:|https?://", re.IGNORECASE)
_SHOWN = 40  # characters of a wrong address
_MOST_STOPS = 16

WANTED: Mapping[Kind, str] = {  # of kinds that no text with an expression inside it can be
    Kind.BOOLEAN: "true or false",
    Kind.INTEGER: "a whole number",
    Kind.LIST: "a list",
    Kind.NUMBER: "a number",
    Kind.NUMBERS: "an object with numbers",
    Kind.OBJECT: "an object",
}


def value_mistake(key: Key, value: Any, *, written: bool = False) -> str | None:
    """What is wrong with a value of that key, as a clause; None where nothing is. `written`: texts in it may hold ${…} yet."""
    check = _CHECKS.get(key.kind)
    return None if check is None else check(key, value, written)


def given_mistake(name: str, key: Key, written: Any, value: Any) -> str | None:
    """What is wrong with a value that an expression has given: its sentence names the expression, the key and the value's type.

    A key that may be left out is left out by null.
    """
    message = None if value is None and not key.required else value_mistake(key, value)
    return None if message is None else f"{shown_expression(written)}{name} {message}"


def accepted(keys: Mapping[str, Key], written: Mapping[str, Any], rendered: Mapping[str, Any]) -> dict[str, Any]:
    """Rendered values as their keys take them: without those that are null, whole numbers as such.

    Raises: UserError for one that its key does not take.
    """
    for name, value in rendered.items():
        message = given_mistake(name, keys[name], written.get(name), value)
        if message is not None:
            raise UserError("invalid_value", message)
    told = {name: value for name, value in rendered.items() if value is not None}
    return {name: int(value) if keys[name].kind is Kind.INTEGER else value for name, value in told.items()}


def shown_expression(written: Any) -> str:
    """The expression that gave a value, to stand in front of what is wrong with it; empty where there is none."""
    texts = [text for text in _texts(written) if "${" in text]
    return f"{texts[0][:200]}: " if texts else ""


def not_of_type(wanted: str, value: Any) -> str:
    """The clause for a value of another type."""
    name = type_name(value)
    told = {"null": "nothing", "text": "text", "object": "an object"}.get(name, f"a {name}")
    return f"has to be {wanted}, not {told}"


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif is_list(value) or is_object(value):
        for item in value.values() if is_object(value) else value:
            yield from _texts(item)


def _number(key: Key, value: Any, written: bool) -> str | None:
    whole = key.kind is Kind.INTEGER
    if not is_number(value) or (whole and isinstance(value, float) and not value.is_integer()):
        return not_of_type(WANTED[key.kind], value) + ("" if not is_number(value) else f" such as {value}")
    if (key.minimum is not None and value < key.minimum) or (key.maximum is not None and value > key.maximum):
        most = "" if key.maximum is None else f" and at most {key.maximum}"
        return f"has to be at least {key.minimum}{most}"
    return None


def _numbers(key: Key, value: Any, written: bool) -> str | None:
    if not is_object(value):
        return not_of_type(WANTED[key.kind], value)
    for name, item in value.items():
        if not is_number(item) and not (written and _is_open(item)):
            return f"{name[:60]}: {not_of_type('a number', item)}"
    return None


def _list(key: Key, value: Any, written: bool) -> str | None:
    return None if is_list(value) else not_of_type("a list", value)


def _object(key: Key, value: Any, written: bool) -> str | None:
    return None if is_object(value) else not_of_type("an object", value)


def _boolean(key: Key, value: Any, written: bool) -> str | None:
    return None if isinstance(value, bool) else not_of_type("true or false", value)


def _text(key: Key, value: Any, written: bool) -> str | None:
    if not isinstance(value, str):
        return not_of_type("text", value)
    return "may not be empty" if key.minimum and not value.strip() else None


def _stop(key: Key, value: Any, written: bool) -> str | None:
    if isinstance(value, str):
        return None
    if not is_list(value):
        return not_of_type("text or a list of texts", value)
    wrong = next((item for item in value if not isinstance(item, str)), "")
    if wrong != "":
        return not_of_type("a list of texts", wrong) + " in it"
    return None if 1 <= len(value) <= _MOST_STOPS else f"has to hold 1 to {_MOST_STOPS} texts"


def _pictures(key: Key, value: Any, written: bool) -> str | None:
    for url in value if is_list(value) else [value]:
        if written and _is_open(url):
            continue
        if not isinstance(url, str) or not _PICTURE.match(url):
            said = repr(url[:_SHOWN]) if isinstance(url, str) else type_name(url)
            return f"has to be data: or http(s): URLs, not {said}"
    return None


def _url(key: Key, value: Any, written: bool) -> str | None:
    if not isinstance(value, str):
        return not_of_type("text", value)
    if (written and _is_open(value)) or _URL.match(value):
        return None
    return f"has to begin with http:// or https:// and a host, not {value[:_SHOWN]!r}"


def _is_open(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def _duration(key: Key, value: Any, written: bool) -> str | None:
    return _told(parse_duration, value)


def _time(key: Key, value: Any, written: bool) -> str | None:
    return _told(parse_instant_us, value if isinstance(value, str) else "")


def _told(parse: Callable[[Any], object], value: Any) -> str | None:
    try:
        parse(value)
    except ValueError as error:
        return f"is {error}" if str(error).startswith("not ") else str(error)
    return None


_CHECKS: Mapping[Kind, Callable[[Key, Any, bool], str | None]] = {
    Kind.BOOLEAN: _boolean,
    Kind.DURATION: _duration,
    Kind.INTEGER: _number,
    Kind.LIST: _list,
    Kind.NUMBER: _number,
    Kind.NUMBERS: _numbers,
    Kind.OBJECT: _object,
    Kind.PICTURES: _pictures,
    Kind.STOP: _stop,
    Kind.TEXT: _text,
    Kind.TIME: _time,
    Kind.URL: _url,
}
