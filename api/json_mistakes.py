"""What is wrong with a body that is no JSON, told with its place: the same words on every route."""

import json

MAX_DEPTH = 200
"""Levels of a JSON body: more than anybody means, fewer than the JSON encoder (254) and Python's own stack can take."""
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
