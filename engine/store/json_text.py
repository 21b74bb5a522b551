"""Values as compact JSON text, the form in which the tables keep them."""

import json
import re
from typing import Any

import orjson

_LONG_NUMBER = re.compile(r"\d{19}")  # orjson would round an integer beyond 64 bits to a float


def dumps(value: Any) -> str:
    """Compact JSON. Integers beyond 64 bits and lone surrogates take the slow way; NaN and infinities become null."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value, separators=(",", ":"))


def storable(text: str) -> str:
    """A message as both databases take it: without NUL, and with `?` in place of lone surrogates."""
    return text.replace("\0", "").encode(errors="replace").decode()


def loads(text: str) -> Any:
    """The value of a text that `dumps` wrote."""
    if _LONG_NUMBER.search(text):
        return json.loads(text)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)
