"""What is wrong with a body that is no JSON, told with its place: the same words on every route."""

import json
from typing import Annotated, TypeVar

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from engine.depth import MAX_DEPTH, is_too_deep

T = TypeVar("T")

TOO_DEEP = f"the body is nested too deeply: {MAX_DEPTH} levels are the limit"


def why_no_json(data: bytes, error: BaseException) -> str:
    """The sentence for a body that could not be read, with line and column, or the first byte that is no UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError as found:
        return f"the body is no JSON: it is not UTF-8 from byte {found.start} on"
    if isinstance(error, RecursionError):
        return TOO_DEEP
    if isinstance(error, json.JSONDecodeError):
        words = error.msg[:1].lower() + error.msg[1:]
        return f"the body is no JSON: {words}: line {error.lineno} column {error.colno} (char {error.pos})"
    return "the body is no JSON"


def _not_too_deep(value: T) -> T:
    if is_too_deep(value):
        raise PydanticCustomError("too_deep", "is nested too deeply: {most} levels are the limit", {"most": MAX_DEPTH})
    return value


Shallow = Annotated[T, AfterValidator(_not_too_deep)]
"""A value that every way of writing JSON takes: a deeper one would be stored and could not be shown."""
