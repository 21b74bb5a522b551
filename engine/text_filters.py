"""Filters of text. The rules of `engine.filters` hold."""

import re
import unicodedata
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from engine.filter_arguments import text_of, whole_of
from engine.token_estimate import estimate_tokens
from engine.values import Bounds, Trouble


def _slugify(bounds: Bounds, value: Any) -> str:
    bounds.spend(len(text_of(value, "slugify")) // 16)
    plain = unicodedata.normalize("NFKD", text_of(value, "slugify")).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def _upper(bounds: Bounds, value: Any) -> str:
    return text_of(value, "upper").upper()


def _lower(bounds: Bounds, value: Any) -> str:
    return text_of(value, "lower").lower()


def _trim(bounds: Bounds, value: Any, chars: str | None = None) -> str:
    return text_of(value, "trim").strip(None if chars is None else text_of(chars, "trim's characters"))


def _truncate(bounds: Bounds, value: Any, length: int = 255, killwords: bool = False, end: str = "...") -> str:
    text, room = text_of(value, "truncate"), whole_of(length, "truncate's length") - len(text_of(end, "truncate's end"))
    if room < 0:
        raise Trouble("truncate's length is shorter than its end")
    if len(text) <= length:
        return text
    kept = text[:room]
    return (kept if killwords else kept.rsplit(" ", 1)[0]) + end


def _replace(bounds: Bounds, value: Any, old: str, new: str, count: int = -1) -> str:
    text, before, after = text_of(value, "replace"), text_of(old, "replace"), text_of(new, "replace")
    found = text.count(before) if count < 0 else min(text.count(before), whole_of(count, "replace's count"))
    bounds.check_size(len(text) + found * (len(after) - len(before)))
    return text.replace(before, after, count)


def _split(bounds: Bounds, value: Any, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    parts = text_of(value, "split").split(None if sep is None else text_of(sep, "split's separator"), maxsplit)
    bounds.spend(len(parts))
    return parts


def _capitalize(bounds: Bounds, value: Any) -> str:
    return text_of(value, "capitalize").capitalize()


def _title(bounds: Bounds, value: Any) -> str:
    """Each word with a capital; unlike Python's own, what follows an apostrophe is no word."""
    return re.sub(r"[^\W_]+(?:['\u2019][^\W_]+)?", lambda word: word.group().capitalize(), text_of(value, "title"))


def _indent(bounds: Bounds, value: Any, width: int = 4, first: bool = False, blank: bool = False) -> str:
    text, room = text_of(value, "indent"), " " * min(max(whole_of(width, "indent's width"), 0), 80)
    lines = text.split("\n")
    bounds.check_size(len(text) + len(room) * len(lines))
    bounds.spend(len(lines))
    return "\n".join(
        room + line if (number or first) and (line or blank) else line for number, line in enumerate(lines)
    )


def _wordcount(bounds: Bounds, value: Any) -> int:
    return len(text_of(value, "wordcount").split())


def _tokens(bounds: Bounds, value: Any) -> int:
    return estimate_tokens(text_of(value, "tokens"))


def _urlencode(bounds: Bounds, value: Any) -> str:
    bounds.check_size(3 * len(text_of(value, "urlencode")))
    return quote(text_of(value, "urlencode"), safe="")


TEXT_FILTERS: dict[str, Callable[..., Any]] = {
    "capitalize": _capitalize, "indent": _indent, "lower": _lower, "replace": _replace, "slugify": _slugify,
    "split": _split, "title": _title, "tokens": _tokens, "trim": _trim, "truncate": _truncate, "upper": _upper,
    "urlencode": _urlencode, "wordcount": _wordcount,
}  # fmt: skip
