"""JSON from an upstream. orjson, and what orjson refuses though it is JSON: half of a surrogate pair in an escape.

Servers in JavaScript cut an emoji in two where they cut a text by length. Each half becomes U+FFFD, which every client can
read; the answer around it is whole.
"""

import json
from typing import Any

import orjson


def parse(raw: bytes) -> Any:
    """The value. Raises: orjson.JSONDecodeError, for NaN and Infinity too."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        if b"\\ud" not in raw and b"\\uD" not in raw:
            raise
        mended = _without_halves(raw)
        if mended is None:
            raise
        return mended


def _without_halves(raw: bytes) -> Any:
    """The value with U+FFFD for each half; None where it is no JSON for other reasons too."""
    try:
        told = json.dumps(json.loads(raw), ensure_ascii=False)
        return orjson.loads(told.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, RecursionError):
        return None
