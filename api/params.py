"""Query parameters that several lists share, read strictly: what cannot be understood is a 400 that names it."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from engine.clock import microseconds
from engine.errors import UserError

Row = Mapping[str, Any]

MAX_LIMIT = 200
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
FORM = "form:"
"""Begins the tag of each form that a body may have (pydantic puts it into a mistake's path, where users have no use for it)."""


def check_limit(limit: int) -> int:
    """A page's size. Raises: UserError."""
    if not 1 <= limit <= MAX_LIMIT:
        raise UserError("invalid_parameter", f"limit must be from 1 to {MAX_LIMIT}", param="limit")
    return limit


def check_cursor(cursor: str | None) -> str | None:
    """Where a page begins, as the page before it told. Raises: UserError."""
    if cursor is not None and not _ID.fullmatch(cursor):
        raise _not_a_cursor()
    return cursor


def _not_a_cursor() -> UserError:
    return UserError("invalid_parameter", "cursor must be the next_cursor of the page before", param="cursor")


def instant_us(text: str | None, param: str) -> int | None:
    """An ISO 8601 time or date, UTC where no zone is given, as microseconds. Raises: UserError."""
    if text is None:
        return None
    try:
        return microseconds(datetime.fromisoformat(text.replace(" ", "+")))  # a plus sign in a URL arrives as a space
    except ValueError as error:
        raise UserError(
            "invalid_parameter", f"{param} must be a time such as 2026-11-22T07:00:00Z", param=param
        ) from error


def tag_filter(text: str | None) -> tuple[str, str] | None:
    """`key:value`. Raises: UserError."""
    if text is None:
        return None
    key, colon, value = text.partition(":")
    if not colon or not key:
        raise UserError("invalid_parameter", "tag must be key:value", param="tag")
    return key, value


def part(rows: Sequence[Row], limit: int, cursor: str | None, *, name: Callable[[Row], object]) -> dict[str, object]:
    """A list answer from a list that is short enough to be read whole.

    The cursor is the name of the last row that was shown. Raises: UserError.
    """
    size = check_limit(limit)
    start = 0 if cursor is None else next((n for n, row in enumerate(rows, 1) if str(name(row)) == cursor), None)
    if start is None:
        raise _not_a_cursor()
    shown = rows[start : start + size]
    more = start + size < len(rows)
    return {"object": "list", "data": shown, "next_cursor": str(name(shown[-1])) if more else None}


def page(rows: list[dict[str, object]], limit: int) -> dict[str, object]:
    """A list answer; the cursor is the id of the last row where there may be more."""
    more = len(rows) > limit
    shown = rows[:limit]
    return {"object": "list", "data": shown, "next_cursor": shown[-1]["id"] if more else None}
