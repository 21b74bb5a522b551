"""Signed thinking inside a Responses reasoning item: the field that clients hand back unread carries the blocks as they came."""

import base64
import binascii
from typing import Any

import orjson

from providers.provider import Json
from providers.shapes import as_objects, as_text

_MARK = "aigateway-thinking-1:"


def sealed(blocks: list[Json]) -> str:
    """The blocks as a value for `encrypted_content`. They are not secret: what protects them is their signature."""
    return _MARK + base64.b64encode(orjson.dumps(blocks)).decode()


def unsealed(value: Any) -> list[Json]:
    """The blocks again; none for a value that was not made here."""
    text = as_text(value)
    if not text.startswith(_MARK):
        return []
    try:
        return as_objects(orjson.loads(base64.b64decode(text.removeprefix(_MARK), validate=True)))
    except (binascii.Error, orjson.JSONDecodeError):
        return []
