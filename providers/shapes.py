"""Reads JSON whose shape nobody promised: a wrong type reads as empty, so that no upstream can raise a TypeError here."""

from typing import Any

from providers.provider import Json

LARGEST_COUNT = 10**9  # tokens; more is a mistake of the upstream, and its price would not fit a column


def as_object(value: Any) -> Json:
    """`value` where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType] - a cast is a call, and this is called for every chunk


def as_list(value: Any) -> list[Any]:
    """`value` where it is an array, else an empty one."""
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]


def as_objects(value: Any) -> list[Json]:
    """The objects among the entries of `value`."""
    return [entry for entry in as_list(value) if isinstance(entry, dict)]


def as_text(value: Any) -> str:
    """`value` where it is text, else an empty one."""
    return value if isinstance(value, str) else ""


def as_count(value: Any) -> int | None:
    """`value` where it is a whole number that is not negative and no nonsense, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_COUNT else None


def told_count(fields: Json, key: str) -> int | None:
    """A count of tokens that is told, or 0 where none is; None where what is told is no count."""
    value: Any = fields.get(key)
    if isinstance(value, float) and value.is_integer():  # some servers count in floats
        value = int(value)
    return 0 if value is None else as_count(value)


def text_of(content: Any) -> str:
    """The text of an OpenAI message's `content`: a string, or its text parts joined."""
    if isinstance(content, str):
        return content
    return "".join(as_text(part.get("text")) for part in as_objects(content))
